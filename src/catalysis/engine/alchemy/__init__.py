"""The one package that touches SQLAlchemy's private names.

Each is used in one place in here, and `tests/engine/` fails when an upgrade changes it.  `statements` reads what a
statement says, `compiling` turns it into SQL and binds its parameters, `loading` tells how its rows become
instances, `sessions` knows a session's state, `touches` loads what an attribute access asks for, `greenlets` are where
code that does not await may wait, and `pooling` lends connections.
"""
