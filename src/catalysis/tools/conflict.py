"""What makes a row of an upsert the same row: its unique key, and the ON CONFLICT clause that follows from it.

Only statements are built here.  Which databases have ON CONFLICT is known in this module and nowhere else.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from sqlalchemy import (
    Column,
    ColumnElement,
    Constraint,
    Index,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
    and_,
    literal_column,
    select,
    tuple_,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import QueryableAttribute

from catalysis.errors import BulkError
from catalysis.soft_delete import include_deleted
from catalysis.tools.rows import RowReader, values_on_update

Key: TypeAlias = str | QueryableAttribute[Any] | Sequence[str | QueryableAttribute[Any]]

_INSERTS = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}


def insert_unless_there(table: Table[Any], dialect: Dialect) -> Any:
    """INSERT of rows into the table that leaves out those whose key is there already.

    Raises:
        BulkError: the database has no ON CONFLICT.
    """
    if dialect.name not in _INSERTS:
        raise BulkError(f"insert into {table.name}: there is no INSERT … ON CONFLICT on {dialect.name}.")
    return _INSERTS[dialect.name](table).on_conflict_do_nothing()


@dataclass(frozen=True, slots=True)
class ConflictKey:
    """A unique key of one table."""

    name: str | None
    attributes: tuple[str, ...]
    columns: tuple[Column[Any], ...]
    where: ColumnElement[bool] | None
    """The rows among which it is unique; None for all."""
    nulls_are_equal: bool
    is_deferrable: bool
    """Whether it may be checked at the end only, so that PostgreSQL's ON CONFLICT refuses it."""
    dialect: Dialect

    def insert(self, reader: RowReader, update: Iterable[str]) -> Any:
        """INSERT into the model's table that updates the attributes `update` of the row already there, if any."""
        statement = _INSERTS[self.dialect.name](reader.model)
        target: dict[str, Any] = {"index_elements": self.columns, "index_where": self._condition()}
        changed: dict[Any, Any] = {
            column: statement.excluded[column.key] for name in update for column in reader.columns[name]
        }
        if not changed:
            return statement.on_conflict_do_nothing(**target)
        return statement.on_conflict_do_update(**target, set_=changed | values_on_update(reader, changed))

    def _condition(self) -> ColumnElement[Any] | None:
        """`where` without parameters: with them the database does not recognise its index."""
        if self.where is None:
            return None
        in_words = {"literal_binds": True, "include_table": False}
        return literal_column(str(self.where.compile(dialect=self.dialect, compile_kwargs=in_words)))

    def select(self, reader: RowReader, keys: Sequence[tuple[Any, ...]]) -> Any:
        """Primary key and this key of the rows that have one of `keys`."""
        columns: tuple[Any, ...] = tuple(getattr(reader.model, name) for name in self.attributes)
        if len(keys) == 1:  # also NULL, which IN never finds
            found = and_(*(column == value for column, value in zip(columns, keys[0], strict=True)))
        elif len(columns) == 1:
            found = columns[0].in_([key for (key,) in keys])
        else:
            found = tuple_(*columns).in_(keys)
        # Over the class, so that a session may limit it to a tenant's rows; marked ones have keys too.
        own = [getattr(reader.model, name) for name in reader.key]
        statement = select(*own, *columns).where(found).options(include_deleted())
        return statement if self.where is None else statement.where(self.where)


def find_key(reader: RowReader, key: Key | None, dialect: Dialect) -> ConflictKey:
    """The unique key meant by `key`: attributes, or the name of a constraint or index; None is the primary key.

    Raises:
        BulkError: the database has no ON CONFLICT, the model spans tables, or nothing makes that key unique.
    """
    name = reader.model.__name__
    table: Any = reader.mapper.local_table
    if dialect.name not in _INSERTS:
        raise BulkError(f"upsert {name}: there is no INSERT … ON CONFLICT on {dialect.name}.")
    if not isinstance(table, Table) or len(reader.mapper.tables) > 1:
        raise BulkError(f"upsert {name}: the model is stored in several tables, and ON CONFLICT writes one.")
    candidates = list(_unique_keys(reader, cast("Table[Any]", table), dialect))
    if isinstance(key, str) and key not in reader.columns:
        wanted: object = f"constraint or index {key!r}"
        found = [each for each in candidates if each.name == key]
    else:
        wanted = attributes = set(reader.known("key", reader.key if key is None else key))
        found = [each for each in candidates if set(each.attributes) == attributes]
    if not found:
        raise BulkError(
            f"upsert {name}: no primary key, unique constraint or unique index of table {table.name!r} is over "
            f"exactly {wanted}, so the database cannot tell which row is meant.  Add one, or use one of "
            f"{', '.join(sorted(str(list(each.attributes)) for each in candidates))}."
        )
    if all(each.is_deferrable for each in found):
        raise BulkError(
            f"upsert {name}: the constraint over {wanted} is deferrable, and ON CONFLICT takes none that is.  Declare "
            "it without `deferrable`, or use another key."
        )
    return min(found, key=lambda each: (each.is_deferrable, each.where is not None))


def _unique_keys(reader: RowReader, table: Table[Any], dialect: Dialect) -> Iterator[ConflictKey]:
    attribute_of = {columns[0]: attribute for attribute, columns in reader.columns.items()}
    for unique in (*table.constraints, *table.indexes):
        columns = _unique_columns(unique)
        if columns and all(column in attribute_of for column in columns):
            options = unique.dialect_options[dialect.name]
            yield ConflictKey(
                name=unique.name
                if isinstance(unique.name, str)
                else None,  # unnamed, or named by a convention later
                attributes=tuple(attribute_of[column] for column in columns),
                columns=columns,
                where=options.get("where"),
                nulls_are_equal=bool(options.get("nulls_not_distinct")),
                is_deferrable=dialect.name == "postgresql" and bool(getattr(unique, "deferrable", None)),
                dialect=dialect,
            )


def _unique_columns(unique: Constraint | Index) -> tuple[Column[Any], ...]:
    """The columns that it makes unique; none for one over expressions, whose values no row gives."""
    if isinstance(unique, PrimaryKeyConstraint | UniqueConstraint):
        return tuple(unique.columns)
    if isinstance(unique, Index) and unique.unique:
        columns = tuple(each for each in unique.expressions if isinstance(each, Column))
        return columns if len(columns) == len(unique.expressions) else ()
    return ()
