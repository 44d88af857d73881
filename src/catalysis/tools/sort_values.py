"""Which values a term of an order may have, how they are read, and how they go back into SQL.

What a row was ordered by must be compared with exactly itself.  So values are read past SQLAlchemy's types,
which drop digits where a database stores no decimals or dates, and times are read as PostgreSQL's own text:
asyncpg gives the last day of 9999 for `infinity` too, and 365 days for a year of 12 months of 30.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    Double,
    Enum,
    LargeBinary,
    Numeric,
    String,
    Time,
    Uuid,
    bindparam,
    cast,
    type_coerce,
)
from sqlalchemy.types import Boolean, NullType, TypeDecorator, TypeEngine

from catalysis.tools.capabilities import Capabilities


@dataclass(frozen=True, slots=True)
class SortType:
    """How the values of one term are read and compared."""

    stored: TypeEngine[Any]
    """The database's own type; NullType if it goes without saying."""
    accepts: tuple[type, ...]
    """What the driver gives."""
    spelled: Callable[[str], bool] | None = None
    """For types that are read as text: whether a text is one that the database can read again."""
    inferred: bool = False
    """Only the database knows the type, and says so when it is given something else."""

    def column(self, expression: ColumnElement[Any]) -> ColumnElement[Any]:
        """The expression, as a column that gives values for `parameter`."""
        return cast(expression, String()) if self.spelled else type_coerce(expression, NullType())

    def suits(self, value: Any) -> bool:
        """Whether the database compares the value with the term without an error, as far as is known here."""
        if isinstance(value, bool):
            return bool in self.accepts
        if not isinstance(value, self.accepts):
            return False
        if self.spelled:
            return self.spelled(value)
        # PostgreSQL's text cannot hold a zero, and SQLite's can.
        is_text = self.inferred or isinstance(self.stored, String)
        return not (is_text and isinstance(value, str) and "\0" in value)

    def parameter(self, value: Any) -> ColumnElement[Any]:
        """The value as a bound parameter that is compared exactly, by whatever index the column has."""
        if self.spelled:
            return cast(bindparam(None, value, String()), _with_zone(self.stored, value))
        # Text takes its type from what it is compared with: char(n) and citext have an equality of their own.
        untyped = isinstance(self.stored, NullType) or isinstance(value, str)
        return bindparam(None, value, NullType() if untyped else _PARAMETERS[type(value)])


def sort_type(expression: ColumnElement[Any], capabilities: Capabilities) -> SortType:
    """The type of a term, decorators taken off."""
    if not capabilities.types_are_strict:
        return _ANY_STORAGE_CLASS
    stored: TypeEngine[Any] = expression.type.dialect_impl(capabilities.dialect)
    while isinstance(stored, TypeDecorator):
        stored = stored.impl_instance
    if isinstance(stored, Enum):
        return SortType(stored, (str,), spelled=stored.enums.__contains__)
    if isinstance(stored, Uuid):
        return SortType(stored, (UUID,))
    if spelled := _SPELLED.get(stored.python_type):
        return SortType(stored, (str,), spelled)
    accepts = _DRIVER_TYPES.get(stored.python_type)
    return SortType(stored, accepts) if accepts else _INFERRED


_NUMBERS = (int, Decimal, float)  # the sum of PostgreSQL's bigint is a numeric
_DRIVER_TYPES: dict[Any, tuple[type, ...]] = {
    int: _NUMBERS,
    float: _NUMBERS,
    Decimal: _NUMBERS,
    str: (str,),
    bool: (bool,),
    bytes: (bytes,),
}
"""What a driver gives for a column, by the Python type that SQLAlchemy's type stands for."""

_PARAMETERS: dict[type, TypeEngine[Any]] = {
    bool: Boolean(),
    int: BigInteger(),
    float: Double(),
    Decimal: Numeric(),
    bytes: LargeBinary(),
    UUID: Uuid(),
}

_ANY_STORAGE_CLASS = SortType(NullType(), (int, float, str, bytes))
"""What SQLite keeps, in any column.  Source: SQLite documentation, "Datatypes in SQLite"."""

_INFERRED = SortType(
    NullType(), (str, int, float, Decimal, bool, bytes, UUID, date, time, timedelta), inferred=True
)
"""A parameter without a type has that of what it is compared with.

Source: PostgreSQL documentation, "Operator Type Resolution", step 2a.
"""


# --- Times as PostgreSQL spells them ----------------------------------------------------------------
# Source: PostgreSQL documentation, "Date/Time Types": output in style ISO, intervals in style postgres.

_DATE = r"\d{4}-\d\d-\d\d"
_TIME = r"\d\d:[0-5]\d:[0-5]\d(?:\.\d{1,6})?"
_ZONE = r"(?:[+-](?:0\d|1[0-5])(?::[0-5]\d){0,2})"
_INFINITE = "|-?infinity"
_INTERVAL = (
    r"(?=.)(?:-?\d{1,8} years? ?)?(?:[+-]?\d\d? mons? ?)?(?:[+-]?\d{1,9} days? ?)?"
    rf"(?:[+-]?\d{{0,7}}{_TIME})?"
)


def _is(form: str, parse: Callable[[str], object], text: str) -> bool:
    """Whether a text has the form and, for the days of a month and the like, `parse` takes it."""
    if not re.fullmatch(form, text, re.ASCII):
        return False
    try:
        parse(re.sub("^-?infinity$", "0001-01-01", re.sub(r"^24:00:00(?!\.)", "00:00:00", text)))
    except ValueError:
        return False
    return True


_SPELLED: dict[Any, Callable[[str], bool]] = {
    date: partial(_is, _DATE + _INFINITE, date.fromisoformat),
    datetime: partial(_is, f"{_DATE} {_TIME}{_ZONE}?{_INFINITE}", datetime.fromisoformat),
    time: partial(_is, f"{_TIME}{_ZONE}?", time.fromisoformat),
    timedelta: partial(_is, _INTERVAL, str),
}


def _with_zone(stored: TypeEngine[Any], text: str) -> TypeEngine[Any]:
    """The type, with a time zone if the text has one, whatever the model says."""
    if isinstance(stored, DateTime | Time) and text[-1].isdigit():
        kind = DateTime if isinstance(stored, DateTime) else Time
        return kind(timezone=re.search(_ZONE + "$", text) is not None)
    return stored
