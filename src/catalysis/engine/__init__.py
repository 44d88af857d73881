"""How a statement is executed.  Today everything goes through SQLAlchemy; `alchemy.py` holds its private names."""
