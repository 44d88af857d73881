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
    inferred: bool = False
    """Only the database knows the type, and says so when it is given something else."""

    def suits(self, value: Any) -> bool:
        """Whether the database compares the value with the term without an error, as far as is known here."""
        if isinstance(value, bool):
            return bool in self.accepts
        if not isinstance(value, self.accepts):
            return False
        if isinstance(self.stored, Enum):
            return value in self.stored.enums
        # PostgreSQL's text cannot hold a zero, and SQLite's can.
        is_text = self.inferred or isinstance(self.stored, String)
        return not (is_text and isinstance(value, str) and "\0" in value)

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


_ANY_STORAGE_CLASS = SortType(NullType(), (int, float, str, bytes))
"""What SQLite keeps, in any column.  Source: SQLite documentation, "Datatypes in SQLite"."""

_INFERRED = SortType(NullType(), (str, *_PARAMETERS, datetime, time), inferred=True)
"""A parameter without a type has that of what it is compared with.

Source: PostgreSQL documentation, "Operator Type Resolution", step 2a.
"""


def sort_type(expression: ColumnElement[Any], capabilities: Capabilities) -> SortType:
    """The type of a term, decorators taken off."""
    if not capabilities.types_are_strict:
        return _ANY_STORAGE_CLASS
    stored: TypeEngine[Any] = expression.type.dialect_impl(capabilities.dialect)
    while isinstance(stored, TypeDecorator):
        stored = stored.impl_instance
    if isinstance(stored, Enum):
        return SortType(stored, (str,))
    if isinstance(stored, Uuid):
        return SortType(stored, (UUID,))
    accepts = _DRIVER_TYPES.get(stored.python_type)
    return SortType(stored, accepts) if accepts else _INFERRED
