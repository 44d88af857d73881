"""Soft delete: a deleted row stays, marked, and no statement sees it unless told to.

A model opts in by inheriting `SoftDelete`.  What a session does with that (filtering statements, turning a
delete into a mark) is decided here in plain functions; `session.py` calls them.  Nothing here executes SQL.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import blake2s
from typing import Any, cast
from weakref import WeakSet

from sqlalchemy import (
    BinaryExpression,
    BindParameter,
    ColumnElement,
    Delete,
    Engine,
    Index,
    Null,
    Table,
    UniqueConstraint,
    Update,
    bindparam,
    column,
    event,
    update,
)
from sqlalchemy.orm import (
    Mapper,
    ORMExecuteState,
    UserDefinedOption,
    class_mapper,
    registry,
    with_loader_criteria,
)
from sqlalchemy.sql.operators import is_
from sqlalchemy.sql.selectable import SelectBase
from sqlalchemy.sql.visitors import iterate, replacement_traverse

from catalysis.engine.alchemy.checking import Guarded, check
from catalysis.engine.alchemy.statements import (
    add_option,
    has_extras,
    is_column_load,
    is_of_class,
    is_orm,
    mappers_in,
    options_of,
    registries_in,
    returning_of,
    with_option,
    without_option,
)
from catalysis.errors import ModelError, UnsupportedStatement

MARK = "deleted_at"


class SoftDelete:
    """Mixin for a mapped class with a nullable `deleted_at` column: rows of it are marked, not removed.

    `class Task(SoftDelete, ModelWithIdAndTimestamps, table=True)`, or beside a declarative base.  SELECTs,
    joins, relationships, `any()/has()`, `get`, counts and bulk statements leave marked rows out; deleting an
    instance or by statement marks them; unique constraints become unique indexes over the unmarked rows.
    A foreign key must refer to the primary key, since a unique column of such a model has an index alone.
    Statements over the bare `Table` alone, textual SQL, and updates that name each row by its primary key are left
    alone.  A statement over mapped classes that would show marked rows all the same raises `UnsupportedStatement`.
    """


class IncludeDeleted(UserDefinedOption):
    """See `include_deleted`."""

    propagate_to_loaders = True


class MeetDeleted(IncludeDeleted):
    """The same for one statement, without a word to the objects that it loads."""

    propagate_to_loaders = False


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


def may_be_marked(instance: object) -> bool:
    """Whether the instance is deleted, or only the database knows; never loads anything."""
    return isinstance(instance, SoftDelete) and instance.__dict__.get(MARK, _UNKNOWN) is not None


_UNKNOWN = object()


def marking_statement(executing: ORMExecuteState) -> Update | None:
    """The UPDATE to run in the place of a DELETE of a `SoftDelete` model; None for every other statement.

    Raises:
        UnsupportedStatement: the DELETE has what an UPDATE would not do.
    """
    mapper = executing.bind_mapper
    if not (executing.is_delete and executing.is_orm_statement and mapper is not None):
        return None
    if not issubclass(mapper.class_, SoftDelete) or _has_option(executing, HardDelete):
        return None
    statement = executing.statement
    if isinstance(statement, Delete) and not is_of_class(statement):  # its WHERE alone names the class
        return None
    if not isinstance(statement, Delete) or _cannot_be_an_update(executing, statement, mapper):
        raise UnsupportedStatement(
            f"This delete() of {mapper.class_.__name__} cannot be turned into marking its rows: it is of an alias, a "
            "joined subclass or a lambda, or has CTEs, prefixes, hints or several sets of parameters.  Write the "
            f"update() of {MARK!r}, or add .options(hard_delete()) to remove the rows."
        )
    marking: Any = update(mapper.class_).values({MARK: mark_of(mapper.class_)})
    if (where := statement.whereclause) is not None:
        # Parameters given beside an UPDATE would be taken for columns to set.
        parameters = executing.parameters
        marking = marking.where(_with_values(where, parameters) if isinstance(parameters, Mapping) else where)
    if returning := returning_of(statement):
        marking = marking.returning(*returning)
    return marking.options(*options_of(statement)).execution_options(**statement.get_execution_options())


def _with_values(where: ColumnElement[Any], values: Mapping[str, Any]) -> ColumnElement[Any]:
    def given(element: Any, **_: Any) -> Any:
        bound = cast("BindParameter[Any]", element) if isinstance(element, BindParameter) else None
        if bound is None or bound.key not in values:
            return None
        return bindparam(None, values[bound.key], type_=bound.type, expanding=bound.expanding)

    return replacement_traverse(where, {}, given)


def _cannot_be_an_update(executing: ORMExecuteState, statement: Delete, mapper: Mapper[Any]) -> bool:
    return (
        statement.entity_description["entity"] is not mapper.class_
        or mapper.columns[MARK].table is not mapper.local_table
        or has_extras(statement)
        or isinstance(executing.parameters, list)
    )


def leave_out_marked(executing: ORMExecuteState) -> None:
    """Add to the statement about to run what leaves marked rows out, unless it asks for them."""
    if executing.is_column_load:  # by primary key, of a row that the session holds already
        return
    if _has_option(executing, IncludeDeleted, HardDelete):
        return
    if not _concerns(executing.statement):
        return
    # A plain SELECT may hold subqueries and CTEs over mapped classes, and the option reaches those.
    if executing.is_orm_statement or executing.is_select:
        add_option(executing, ONLY_UNMARKED)
    if executing.is_update or executing.is_delete:
        executing.statement = _without_marked_sources(executing)
    if _may_show_marked(executing):
        given = cast("Mapping[str, Any] | None", executing.parameters)
        columns = sorted(given) if given and not executing.is_select else ()
        engine = executing.session.get_bind(**executing.bind_arguments).engine
        check(executing.statement, engine, guarded(), columns)


def _may_show_marked(executing: ORMExecuteState) -> bool:
    """Whether it reads at all: rows given as values do not, nor do those that are updated by their keys."""
    if executing.is_insert:
        statement: Any = executing.statement
        return any(isinstance(each, SelectBase) for each in iterate(statement))
    return executing.is_select or not isinstance(executing.parameters, list)


def check_unmarked(statement: Any, engine: Engine) -> None:
    """Refuse a statement that `without_marked` gave, and that would show marked rows all the same.

    Raises:
        UnsupportedStatement: it would.
    """
    if ONLY_UNMARKED in options_of(statement) and not is_column_load(statement):
        check(statement, engine, guarded())


def without_marked(statement: Any, *, sees_deleted: bool) -> Any:
    """The same for a SELECT that has not met SQLAlchemy yet; `sees_deleted` takes away what an object brought along."""
    if is_column_load(statement) or not _concerns(statement):
        return statement
    if sees_deleted:
        return without_option(statement, ONLY_UNMARKED)
    if any(isinstance(each, (IncludeDeleted, HardDelete)) for each in options_of(statement)):
        return statement
    return with_option(statement, ONLY_UNMARKED, is_orm=is_orm(statement))


_registries: WeakSet[registry] = WeakSet()
"""Those with a `SoftDelete` model."""
_mappers: WeakSet[Mapper[Any]] = WeakSet()
_guarded: list[Guarded] = []
"""What is guarded, once it has been asked for."""


def guarded() -> Guarded:
    """The tables of `SoftDelete` models, which a statement over mapped classes may meet only without marked rows."""
    if not _guarded:
        marks = {column.table: column.name for column in map(_mark_column, list(_mappers))}
        relations = [
            relation for each in _registries for mapper in each.mappers for relation in mapper.relationships
        ]
        _guarded.append(
            Guarded(
                "deleted",
                marks.get,
                _says_unmarked,
                _unfiltered,
                looked_through=frozenset(each.secondary for each in relations if each.secondary is not None),
                allows_textual=True,
                keeps_outer_rows=True,
            )
        )
    return _guarded[0]


def _mark_column(mapper: Mapper[Any]) -> Any:
    return mapper.columns[MARK]


def _says_unmarked(condition: BinaryExpression[Any]) -> bool:
    compared: Any = condition
    return compared.operator is is_ and isinstance(compared.right, Null)


def _unfiltered(what: str) -> UnsupportedStatement:
    return UnsupportedStatement(
        f"A statement {what}, and would show deleted rows.  Let it name the mapped classes one by one, as "
        "`select_from(A).join(B)` and not `select_from(join(A, B))`; in the place of a FULL JOIN's class give "
        f"`aliased(B, select(B).subquery())`; write `{MARK} IS NULL` yourself beside a bare table; or add "
        "`.options(include_deleted())` and write every condition yourself."
    )


def _concerns(statement: Any) -> bool:
    """Whether a statement can meet a marked row, itself or by what its instances load later."""
    return len(_registries) > 0 and any(each in _registries for each in registries_in(statement))


def _without_marked_sources(executing: ORMExecuteState) -> Any:
    """The option reaches the target alone; UPDATE … FROM and DELETE … USING have more tables."""
    statement: Any = executing.statement
    if not isinstance(statement, Update | Delete) or statement.whereclause is None:
        return statement
    others = {each for each in mappers_in(statement.whereclause) if each is not executing.bind_mapper}
    models: list[Any] = [each.class_ for each in others if issubclass(each.class_, SoftDelete)]
    return statement.where(*[model.deleted_at.is_(None) for model in models]) if models else statement


def _has_option(executing: ORMExecuteState, *kinds: type[UserDefinedOption]) -> bool:
    return any(isinstance(each, kinds) for each in executing.user_defined_options)


def _is_unmarked(cls: Any) -> ColumnElement[bool]:
    # SQLAlchemy tries it on the mixin itself first, which has no such column; and it would wrap a global constant.
    mark: ColumnElement[Any] = getattr(cls, "deleted_at", column("deleted_at"))
    return mark.is_(None)


ONLY_UNMARKED = with_loader_criteria(
    SoftDelete, _is_unmarked, include_aliases=True, track_closure_variables=False
)
"""The option that leaves marked rows out of everything a statement touches, eager and later lazy loads included."""


@event.listens_for(Mapper, "after_mapper_constructed")
def _opt_in(mapper: Mapper[Any], cls: type[Any]) -> None:
    _guarded.clear()
    if not issubclass(cls, SoftDelete):
        return
    if MARK not in mapper.columns:
        raise ModelError(
            f"{cls.__name__} inherits SoftDelete but has no column {MARK!r}.  Inherit ModelWithIdAndTimestamps "
            f"too, or add `{MARK}: Mapped[datetime | None]`."
        )
    if mapper.inherits is not None and not issubclass(mapper.inherits.class_, SoftDelete):
        raise ModelError(
            f"{cls.__name__} inherits SoftDelete, but the mapped class above it, {mapper.inherits.class_.__name__}, "
            "does not: a query of that one would show deleted rows.  Let the topmost mapped class inherit SoftDelete."
        )
    _registries.add(mapper.registry)
    _mappers.add(mapper)
    mark, table = mapper.columns[MARK], cast("Any", mapper.local_table)
    if isinstance(table, Table) and mark.table is table:
        _let_keys_be_reused(cast("Table[Any]", table), mark.is_(None))


def _let_keys_be_reused(table: "Table[Any]", unmarked: ColumnElement[bool]) -> None:
    """Turn unique constraints into unique indexes over unmarked rows, so that a deleted row frees its key.

    A deferrable constraint stays: an index cannot wait for the end of the transaction.
    """
    for constraint in [c for c in table.constraints if isinstance(c, UniqueConstraint)]:
        if constraint.deferrable or constraint.initially:
            continue
        table.constraints.discard(constraint)
        for unique in (columns := list(constraint.columns)):
            unique.unique = None
        name = str(constraint.name) if constraint.name else _index_name(table, [c.name for c in columns])
        only_unmarked: dict[str, Any] = {"postgresql_where": unmarked, "sqlite_where": unmarked}
        Index(name, *columns, unique=True, **{**constraint.dialect_kwargs, **only_unmarked})
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
