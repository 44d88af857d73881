"""Which values a term of an order may have, and how they go back into SQL.

Values are the driver's own, untouched by SQLAlchemy's types on the way out and back in: what a row was ordered
by is compared with exactly itself, whatever digits a type drops when it makes a Python value.
"""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Date,
    DateTime,
    Double,
    Enum,
    Interval,
    LargeBinary,
    Numeric,
    String,
    Time,
    Uuid,
    bindparam,
    cast,
)
from sqlalchemy.types import Boolean, NullType, TypeDecorator, TypeEngine

from catalysis.errors import InvalidPage
from catalysis.tools.capabilities import Capabilities

_NUMBERS = (int, Decimal, float)
_DRIVER_TYPES: dict[Any, tuple[type, ...]] = {
    int: _NUMBERS,  # PostgreSQL: the sum of a bigint is a numeric
    float: _NUMBERS,
    Decimal: _NUMBERS,
    str: (str,),
    bool: (bool,),
    bytes: (bytes,),
    UUID: (UUID,),
    date: (date,),
    datetime: (datetime,),
    time: (time,),
    timedelta: (timedelta,),
}
"""What a driver gives for a column, by the Python type that SQLAlchemy's type stands for."""

_PARAMETERS: dict[type, TypeEngine[Any]] = {
    bool: Boolean(),
    int: BigInteger(),
    float: Double(),
    Decimal: Numeric(),
    bytes: LargeBinary(),
    UUID: Uuid(),
    date: Date(),
    timedelta: Interval(),
}


_STORAGE_CLASSES = (int, float, str, bytes)
"""What SQLite keeps, in any column.  Source: SQLite documentation, "Datatypes in SQLite"."""


@dataclass(frozen=True, slots=True)
class SortType:
    """The database's own type of one term."""

    stored: TypeEngine[Any]
    accepts: tuple[type, ...]

    def suits(self, value: Any) -> bool:
        """Whether the database compares the value with the term without an error."""
        if isinstance(value, bool):
            return bool in self.accepts
        if not isinstance(value, self.accepts):
            return False
        if isinstance(self.stored, Enum):
            return value in self.stored.enums
        return not (isinstance(self.stored, String) and "\0" in value)  # which PostgreSQL's text cannot hold

    def parameter(self, value: Any) -> ColumnElement[Any]:
        """The value as a bound parameter that is compared exactly, by whatever index the column has."""
        if isinstance(self.stored, Enum):
            return cast(bindparam(None, value, String()), self.stored)
        if isinstance(self.stored, NullType | String):  # text may be of a type with an equality of its own
            return bindparam(None, value, self.stored)
        if isinstance(value, datetime):
            return bindparam(None, value, DateTime(timezone=value.tzinfo is not None))
        if isinstance(value, time):
            return bindparam(None, value, Time(timezone=value.tzinfo is not None))
        return bindparam(None, value, _PARAMETERS[type(value)])


_ANYTHING = SortType(NullType(), _STORAGE_CLASSES)


def _accepted(stored: TypeEngine[Any]) -> tuple[type, ...]:
    if isinstance(stored, Enum):
        return (str,)
    if isinstance(stored, Uuid):
        return (UUID,)
    return _DRIVER_TYPES.get(stored.python_type, ())


def sort_type(expression: ColumnElement[Any], capabilities: Capabilities) -> SortType:
    """The type of a term, decorators taken off.

    Raises:
        InvalidPage: it is unknown, or values of it cannot be kept in a cursor.
    """
    stored: TypeEngine[Any] = expression.type.dialect_impl(capabilities.dialect)
    while isinstance(stored, TypeDecorator):
        stored = stored.impl_instance
    if accepts := _accepted(stored):
        return SortType(stored, accepts) if capabilities.types_are_strict else _ANYTHING
    kind = "unknown" if isinstance(stored, NullType) else type(stored).__name__
    raise InvalidPage(
        f"The type of {expression} is {kind}, and a cursor cannot keep values of it.  Order by something whose type "
        "is known: cast(expression, String), or func.name(..., type_=Integer)."
    )
