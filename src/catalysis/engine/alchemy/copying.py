"""What SQLAlchemy would do with the rows of an INSERT, told so that COPY may do the same."""

from collections.abc import Callable
from typing import Any, cast

from sqlalchemy import Column, types
from sqlalchemy.dialects.postgresql import INTERVAL
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.elements import quoted_name
from sqlalchemy.sql.schema import CallableColumnDefault
from sqlalchemy.types import TypeDecorator, TypeEngine

_KNOWN = (
    types.String,
    types.Integer,
    types.Numeric,
    types.Float,
    types.Boolean,
    types.Date,
    types.DateTime,
    types.Time,
    INTERVAL,
    types.Uuid,
    types.LargeBinary,
    types.JSON,
)
"""Types whose values are the driver's parameters as their bind processors leave them; with all their subclasses."""


def cast_of(column: Column[Any], dialect: Dialect) -> str | None:
    """The type that an INSERT casts the column's parameter to, in SQL; None if a value is more than a parameter."""
    kind: Any = column.type.dialect_impl(dialect)
    while isinstance(kind, TypeDecorator):
        if _class_of(kind).bind_expression is not _DECORATOR.bind_expression:
            return None
        kind = kind.type_engine(dialect).dialect_impl(dialect)
    items: Any = cast("Any", kind).item_type if isinstance(kind, types.ARRAY) else kind
    plain = isinstance(items, _KNOWN) and _class_of(kind).bind_expression is _ENGINE.bind_expression
    return kind.compile(dialect=dialect) if plain else None


def _class_of(kind: Any) -> Any:
    return cast("Any", type(kind))


_ENGINE: Any = TypeEngine
_DECORATOR: Any = TypeDecorator


def processor_of(column: Column[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    """What turns a value of the column into the driver's parameter; None for one that is it already."""
    return column.type.dialect_impl(dialect).bind_processor(dialect)


def maker_of(default: CallableColumnDefault) -> Callable[[], Any] | None:
    """The function of a column's default; None if it looks at the statement that it is for.

    SQLAlchemy wraps those that take no context in a function of its own, and leaves the others as they are.
    """
    wrapper: Any = default.arg
    return wrapper.__closure__[0].cell_contents if getattr(wrapper, "__code__", None) in _WRAPPERS else None


def _code_of(function: Any) -> Any:
    wrapper: Any = CallableColumnDefault(function).arg
    return wrapper.__code__


_WRAPPERS = frozenset({_code_of(lambda: None), _code_of(dict)})


def exact_name(name: str, dialect: Dialect) -> str | None:
    """The name as the database has it; None where that is for the database to say."""
    folds = isinstance(name, quoted_name) and name.quote is False and name != name.lower()
    return None if folds or dialect.name != "postgresql" else str(name)
