"""How a statement is executed: start at `run.py`.  SQLAlchemy's private names are in `alchemy/` alone."""
