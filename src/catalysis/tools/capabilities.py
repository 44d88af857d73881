"""What a database does with pages.  Asked here by name, once; the pages themselves do not ask which it is."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import Dialect
from sqlalchemy.ext.asyncio import AsyncSession


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the database of a statement can do; the defaults hold for any."""

    dialect: Dialect
    nulls_are_largest: bool = False
    """NULLs sort after everything else in ascending order, unless the statement says."""
    compares_rows: bool = False
    """`(a, b) > (x, y)` is understood, and uses an index over (a, b)."""
    types_are_strict: bool = True
    """A value of another type than the column's is an error, where SQLite compares anything with anything."""
    estimates_rows: bool = False
    """The planner tells how many rows it expects."""


def capabilities_of(session: AsyncSession, statement: Any) -> Capabilities:
    """The capabilities of the database on which the session would execute the statement.

    Sources: PostgreSQL documentation, "Sorting Rows (ORDER BY)" and "Row and Array Comparisons"; SQLite
    documentation, "SELECT", section 4, "Row Values", and "Datatypes in SQLite".
    """
    dialect = session.get_bind(clause=statement).dialect
    match dialect.name:
        case "postgresql":
            return Capabilities(dialect, nulls_are_largest=True, compares_rows=True, estimates_rows=True)
        case "sqlite":
            return Capabilities(dialect, compares_rows=True, types_are_strict=False)
        case _:
            return Capabilities(dialect)
