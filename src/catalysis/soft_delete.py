"""Soft delete: a deleted row stays, marked, and no statement sees it unless told to.

A model opts in by inheriting `SoftDelete`.  What a session does with that (filtering statements, turning a
delete into a mark) is decided here in plain functions; `session.py` calls them.  Nothing here executes SQL.
"""

from datetime import UTC, datetime
from hashlib import blake2s
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import ColumnElement, Delete, Index, Table, UniqueConstraint, Update, column, event, update
from sqlalchemy.orm import Mapper, ORMExecuteState, UserDefinedOption, class_mapper, with_loader_criteria

from catalysis.errors import ModelError

MARK = "deleted_at"


class _MarkForCriteria:
    """`SoftDelete.deleted_at`, for SQLAlchemy alone.

    `with_loader_criteria` tries its lambda on the mixin itself before any model; a real attribute there would
    shadow the column's default in pydantic models, so subclasses see none.
    """

    def __get__(self, instance: object, owner: type) -> ColumnElement[Any]:
        if owner is SoftDelete:
            return column(MARK)
        raise AttributeError(MARK)


class SoftDelete:
    """Mixin for a mapped class with a nullable `deleted_at` column: rows of it are marked, not removed.

    `class Task(SoftDelete, ModelWithIdAndTimestamps, table=True)`, or beside a declarative base.  SELECTs,
    joins, relationships, `any()/has()`, `get`, counts and bulk statements leave marked rows out; deleting an
    instance or by statement marks them; unique constraints become unique indexes over the unmarked rows.
    Statements over the bare `Table` and textual SQL are left alone.
    """

    if not TYPE_CHECKING:
        deleted_at = _MarkForCriteria()


class IncludeDeleted(UserDefinedOption):
    """See `include_deleted`."""

    propagate_to_loaders = True


class HardDelete(UserDefinedOption):
    """See `hard_delete`."""


def include_deleted() -> IncludeDeleted:
    """An option (`select(Task).options(include_deleted())`, `get(…, options=[…])`) to see marked rows too.

    It goes for the statement's eager loads and for what its objects load later.
    """
    return IncludeDeleted()


def hard_delete() -> HardDelete:
    """An option for `delete(Task)`: remove the rows, marked ones included, instead of marking them."""
    return HardDelete()


def mark_of(entity: type[Any]) -> datetime:
    """The value that marks a row of `entity` now, aware or naive as its column is (naive means UTC)."""
    kind: Any = class_mapper(entity).columns[MARK].type
    aware = getattr(kind, "timezone", False) or getattr(getattr(kind, "impl", None), "timezone", False)
    now = datetime.now(UTC)
    return now if aware else now.replace(tzinfo=None)


def is_marked(instance: object) -> bool:
    """Whether the instance, as loaded, is deleted; never loads anything."""
    return isinstance(instance, SoftDelete) and instance.__dict__.get(MARK) is not None


def marking_statement(executing: ORMExecuteState) -> Update | None:
    """The UPDATE to run in the place of a DELETE of a `SoftDelete` model; None for every other statement."""
    statement, mapper = executing.statement, executing.bind_mapper
    if not isinstance(statement, Delete) or mapper is None or not issubclass(mapper.class_, SoftDelete):
        return None
    if not executing.is_orm_statement or any(
        isinstance(each, HardDelete) for each in executing.user_defined_options
    ):
        return None
    entity = statement.entity_description["entity"]
    marking: Any = update(entity).values({MARK: mark_of(mapper.class_)})
    if statement.whereclause is not None:
        marking = marking.where(statement.whereclause)
    if returning := [described["expr"] for described in statement.returning_column_descriptions]:
        marking = marking.returning(*returning)
    if any(isinstance(each, IncludeDeleted) for each in executing.user_defined_options):
        marking = marking.options(include_deleted())
    return marking.execution_options(**statement.get_execution_options())


def wants_filter(executing: ORMExecuteState) -> bool:
    """Whether marked rows are to be left out of the statement about to run."""
    if executing.is_column_load:  # by primary key, of a row that the session holds already
        return False
    seen = any(isinstance(each, IncludeDeleted | HardDelete) for each in executing.user_defined_options)
    # A plain SELECT may hold subqueries and CTEs over mapped classes, and the option reaches those.
    return not seen and (executing.is_orm_statement or executing.is_select)


ONLY_UNMARKED = with_loader_criteria(SoftDelete, lambda cls: cls.deleted_at.is_(None), include_aliases=True)
"""The option that leaves marked rows out of everything a statement touches, eager and later lazy loads included."""


@event.listens_for(Mapper, "after_mapper_constructed")
def _opt_in(mapper: Mapper[Any], cls: type[Any]) -> None:
    if not issubclass(cls, SoftDelete):
        return
    if MARK not in mapper.columns:
        raise ModelError(
            f"{cls.__name__} inherits SoftDelete but has no column {MARK!r}.  Inherit ModelWithIdAndTimestamps "
            f"too, or add `{MARK}: Mapped[datetime | None]`."
        )
    table = cast("Table[Any]", mapper.local_table)
    if isinstance(mapper.local_table, Table) and MARK in table.columns:
        _let_keys_be_reused(table)


def _let_keys_be_reused(table: "Table[Any]") -> None:
    """Turn unique constraints into unique indexes over unmarked rows, so that a deleted row frees its key."""
    unmarked = table.columns[MARK].is_(None)
    for constraint in [c for c in table.constraints if isinstance(c, UniqueConstraint)]:
        table.constraints.discard(constraint)
        for unique in (columns := list(constraint.columns)):
            unique.unique = None
        name = str(constraint.name) if constraint.name else _index_name(table, [c.name for c in columns])
        Index(name, *columns, unique=True, postgresql_where=unmarked, sqlite_where=unmarked)
    for index in table.indexes:
        if index.unique:
            for dialect in ("postgresql", "sqlite"):
                if index.dialect_options[dialect]["where"] is None:
                    index.dialect_options[dialect]["where"] = unmarked


def _index_name(table: "Table[Any]", columns: list[str]) -> str:
    name = "_".join(["uq", table.name, *columns])
    if len(name) <= 63:  # PostgreSQL cuts longer identifiers, and two of them could become one
        return name
    return f"{name[:54]}_{blake2s(name.encode(), digest_size=4).hexdigest()}"
