"""What a row of a bulk operation may be, and which values of it are sent.

Rows are read here, checked and completed; nothing is sent and nothing awaited but the rows themselves.
"""

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Container,
    Coroutine,
    Generator,
    Iterable,
    Mapping,
    Set,
)
from contextlib import aclosing
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import partial
from typing import Any, TypeAlias, cast

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from sqlalchemy import Column, inspect
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import ColumnProperty, InstanceState, Mapper, QueryableAttribute
from sqlalchemy.sql.schema import (
    CallableColumnDefault,
    ColumnElementColumnDefault,
    ScalarElementColumnDefault,
)

from catalysis.errors import BulkError

Rows: TypeAlias = Iterable[Any] | AsyncIterable[Any]
"""Mappings by attribute name, pydantic models, or instances of the model that no session holds."""


Names: TypeAlias = str | QueryableAttribute[Any] | Iterable[str | QueryableAttribute[Any]]
"""Attributes of a model, by name or themselves."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row, read."""

    number: int
    """From 1, as people count."""
    values: dict[str, Any]
    given: frozenset[str]
    """The attributes the caller set; the others come from defaults of the class."""


async def in_chunks(rows: Rows, size: int) -> AsyncGenerator[list[Any]]:
    """The rows in lists of `size`, the last one shorter; only one list is held at a time.

    A generator of rows is closed when this is, so that what it holds is free at once, whoever keeps the error.
    """
    chunk: list[Any] = []
    async with aclosing(_each(rows)) as each:
        async for row in each:
            chunk.append(row)
            if len(chunk) == size:
                yield chunk
                chunk = []
        if chunk:
            yield chunk


async def _each(rows: Rows) -> AsyncGenerator[Any]:
    if isinstance(rows, AsyncIterable):
        try:
            async for row in rows:
                yield row
        finally:
            if isinstance(rows, AsyncGenerator):
                await cast("AsyncGenerator[Any]", rows).aclose()
    else:
        try:
            for row in rows:
                yield row
        finally:
            if isinstance(rows, Generator):
                cast("Generator[Any]", rows).close()


def check_arguments(
    operation: str,
    where: object,
    chunk_size: object,
    on_progress: object,
    *,
    kinds: tuple[type[Any], ...] = (AsyncSession,),
) -> None:
    """What all bulk operations are given besides the model and the rows; `kinds`: what may come first.

    Raises:
        BulkError: one of them cannot be used.
    """
    if not isinstance(where, kinds):
        wanted = " or ".join(f"a {kind.__name__}" for kind in kinds).replace("a Async", "an Async")
        raise BulkError(f"{operation} needs {wanted} first, not a {type(where).__name__}.")
    if not isinstance(chunk_size, int) or chunk_size < 1:
        raise BulkError(f"{operation}: chunk_size is {chunk_size!r}; give a whole number, 1 or more.")
    if on_progress is not None and not callable(on_progress):
        raise BulkError(
            f"{operation}: on_progress is a {type(on_progress).__name__}; give a function of one number."
        )


def check_rows(reader: "RowReader", rows: Any) -> None:
    """Whether they are rows at all.

    Raises:
        BulkError: they are one row, or nothing that can be iterated over.
    """
    about, kind = f"{reader.operation} {reader.model.__name__}", type(rows).__name__
    if isinstance(rows, Mapping | str | bytes):
        raise BulkError(f"{about}: the rows are a {kind}.  Put a single row into a list.")
    if not isinstance(rows, Iterable | AsyncIterable):
        mend = (
            "Call it, and give what it returns"
            if callable(rows)
            else "Give a list, a generator or an async one"
        )
        if isinstance(rows, Coroutine):
            mend = "Await it, and give what it returns"
            rows.close()
        raise BulkError(f"{about}: the rows are a {kind}, which cannot be iterated over.  {mend}.")


class RowReader:
    """Reads the rows meant for one model: decided once per call, looped per row."""

    def __init__(self, operation: str, model: type[Any]) -> None:
        """`operation` opens every message.

        Raises:
            BulkError: `model` is no mapped class.
        """
        mapper = cast("Any", inspect(model, raiseerr=False))
        if not getattr(mapper, "is_mapper", False):
            raise BulkError(f"{operation} needs a mapped class, not {model!r}.  Is `table=True` missing?")
        self.operation = operation
        self.model = model
        self.mapper: Mapper[Any] = mapper
        self.columns: dict[str, list[Column[Any]]] = {
            attribute.key: cast("list[Column[Any]]", attribute.columns)
            for attribute in self.mapper.column_attrs
            if all(isinstance(column, Column) for column in attribute.columns)
        }
        """The columns behind each attribute; several where a subclass repeats the key of its base's table."""
        self.key = tuple(_attribute(self.mapper, column).key for column in self.mapper.primary_key)

    def read(self, number: int, row: Any) -> Row:
        """What the row says, by attribute name.

        Raises:
            BulkError: it is of no known kind, or has a key that is no column attribute.
        """
        values: Mapping[str, Any]
        given: Set[str] | None = None
        if isinstance(row, Mapping):
            values = cast("Mapping[str, Any]", row)
        elif (state := _state_of(row)) is not None and state.mapper is self.mapper:
            values = {key: state.dict[key] for key in self.columns.keys() & state.dict.keys()}
            if isinstance(row, BaseModel) and not state.has_identity:
                given = row.model_fields_set
        elif state is None and isinstance(row, BaseModel):
            values, given = row.model_dump(), row.model_fields_set
        else:
            raise BulkError(
                f"{self.at(number)} is a {type(row).__name__}.  Give a mapping, a pydantic model or an instance "
                f"of {self.model.__name__} itself."
            )
        if not self.columns.keys() >= values.keys():
            raise self._unknown(number, next(key for key in values if key not in self.columns))
        return Row(number, dict(values), frozenset(values if given is None else given & values.keys()))

    def missing(self, number: int, attribute: str, why: str) -> BulkError:
        """The error for a row without a value that it needs."""
        return BulkError(f"{self.at(number)} has no value for {attribute!r}, which {why}.")

    def known(self, argument: str, given: Names) -> frozenset[str]:
        """The names, checked: one, or several, or the attributes themselves.

        Raises:
            BulkError: one is no column attribute.
        """
        parts: Any = (
            [given]
            if not isinstance(given, Iterable) or isinstance(given, str | QueryableAttribute)
            else given
        )
        names = frozenset(each.key if isinstance(each, QueryableAttribute) else each for each in parts)
        for name in names - self.columns.keys():
            raise BulkError(
                f"{self.operation} {self.model.__name__}: {argument} names {name!r}, which is no column attribute.  "
                f"Use one of {', '.join(self.columns)}."
            )
        return names

    def at(self, number: int) -> str:
        """How a message about that row begins."""
        return f"{self.operation} {self.model.__name__}: row {number}"

    def _unknown(self, number: int, key: object) -> BulkError:
        message = (
            f"{self.at(number)} has the key {key!r}, which is no column attribute of {self.model.__name__}.  "
        )
        if (relation := self.mapper.relationships.get(cast("str", key))) is not None:
            wanted = [str(_attribute(self.mapper, column).key) for column in relation.local_columns]
            return BulkError(f"{message}It is a relationship: give {', '.join(wanted)} instead.")
        return BulkError(f"{message}Use one of {', '.join(self.columns)}.")


class RowCompleter:
    """Completes rows as the flush of an instance would, so that as many as can be share one statement.

    Source: SQLAlchemy, `orm/persistence.py`: None counts as absent where the column has a default, and a column
    with neither value nor default gets NULL.
    """

    def __init__(self, reader: RowReader) -> None:
        self._reader = reader
        self._absent: dict[str, Any] = {}
        self._none_is_absent: list[str] = []
        self._made: dict[str, Callable[[], Any]] = {}
        self._required: list[str] = []
        made_by_class = _defaults_of_class(reader.model)
        left_to_sqlalchemy = (reader.mapper.polymorphic_on, reader.mapper.version_id_col)
        for key, columns in reader.columns.items():
            column = columns[0]
            if any(each is not None and each in set(columns) for each in left_to_sqlalchemy):
                continue
            none_is_a_value = column.type.should_evaluate_none
            if any(map(_has_default, columns)):
                if not none_is_a_value:
                    self._none_is_absent.append(key)
                if isinstance(column.default, ScalarElementColumnDefault):
                    self._absent[key] = column.default.arg
                continue
            if key in made_by_class:
                self._made[key] = made_by_class[key]
            if none_is_a_value:
                continue
            if column.nullable:
                self._absent[key] = None
            else:
                self._required.append(key)

    @property
    def required(self) -> frozenset[str]:
        """The attributes that every row must have a value for."""
        return frozenset(self._required)

    def complete(self, row: Row) -> dict[str, Any]:
        """The values to insert; what is left out is the column's default to make.

        Raises:
            BulkError: a column that needs a value has none.
        """
        values = {**self._absent, **row.values}
        for key in self._none_is_absent:
            if key in values and values[key] is None:
                del values[key]
                if key in self._absent:
                    values[key] = self._absent[key]
        for key, make in self._made.items():
            if key not in row.values:
                values[key] = make()
        for key in self._required:
            if values.get(key) is None:
                raise self._reader.missing(row.number, key, "is NOT NULL and has no default")
        return values


def values_on_update(reader: RowReader, changed: Container[Any]) -> dict[Column[Any], Any]:
    """What `onupdate` gives the columns that an UPDATE does not change itself: `updated_at`, for one.

    SQLAlchemy fills them in for an UPDATE, but neither in ON CONFLICT DO UPDATE nor on objects of the session.  A
    function of the execution context gets None for it.
    """
    values: dict[Column[Any], Any] = {}
    for columns in reader.columns.values():
        for column in columns:
            if column not in changed:
                if isinstance(column.onupdate, CallableColumnDefault):
                    values[column] = column.onupdate.arg(cast("Any", None))
                elif isinstance(column.onupdate, ScalarElementColumnDefault | ColumnElementColumnDefault):
                    values[column] = column.onupdate.arg
    return values


def _has_default(column: Column[Any]) -> bool:
    counts_up = column.table.autoincrement_column is column
    return counts_up or column.default is not None or column.server_default is not None


def _defaults_of_class(model: type[Any]) -> dict[str, Callable[[], Any]]:
    """Defaults that the constructor applies, which an INSERT by values would miss."""
    if issubclass(model, BaseModel):
        found: dict[str, FieldInfo] = model.model_fields
        return {
            name: partial(field.get_default, call_default_factory=True, validated_data={})
            for name, field in found.items()
            if not field.is_required()
        }
    if is_dataclass(model):
        return {
            each.name: each.default_factory for each in fields(model) if each.default_factory is not MISSING
        }
    return {}


def _state_of(row: object) -> InstanceState[Any] | None:
    state = cast("Any", inspect(row, raiseerr=False))
    return state if getattr(state, "is_instance", False) else None


def _attribute(mapper: Mapper[Any], column: Any) -> ColumnProperty[Any]:
    return cast("ColumnProperty[Any]", mapper.get_property_by_column(column))
