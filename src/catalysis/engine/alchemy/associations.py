"""From an owner through an association table to what a relationship leads to."""

from typing import Any

from sqlalchemy import inspect
from sqlalchemy.sql.util import ClauseAdapter


def joined_through(statement: Any, prop: Any, owner: Any) -> Any:
    """The statement from an alias of the owner, joined to the association table and to the target, under their names.

    SQLAlchemy's own `join()` gives the table another name, so that criteria about its columns would be of a second one.
    """
    own = ClauseAdapter(inspect(owner).selectable).traverse(prop.primaryjoin)
    return statement.join(prop.secondary, own).join(target_of(prop), prop.secondaryjoin)


def target_of(prop: Any) -> Any:
    """What a relationship leads to, as a statement has it: a class, or the alias that it was declared with."""
    return prop.entity.entity
