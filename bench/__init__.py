"""Comparisons with the bare driver and with stock SQLModel.  Nothing of the package imports this."""
