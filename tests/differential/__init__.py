"""The oracle: programs of session calls, run on stock `AsyncSession` and on `Session`, must leave the same traces."""
