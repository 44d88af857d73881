"""Statements of a session that has a tenant: limited, checked, or refused before anything is sent.

Two things guard each: a criterion, which SQLAlchemy adds wherever it sees the class, and a check that it stands beside
every table of a tenant's that is about to be read or written (`engine/alchemy/checking.py`).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from sqlalchemy import Engine, false, select, tuple_, update
from sqlalchemy.orm import Mapper, ORMExecuteState

from catalysis.engine.alchemy.checking import check
from catalysis.engine.alchemy.compiling import subject_of
from catalysis.engine.alchemy.criteria import with_criterion, with_own
from catalysis.engine.alchemy.owning import Owned, check_set, filled_insert
from catalysis.engine.alchemy.statements import (
    is_column_load,
    is_orm,
    mappers_in,
    registries_in,
    with_option,
)
from catalysis.errors import TenantError
from catalysis.tenancy.models import (
    UNFILTERED_SQL,
    Tenancy,
    guarded,
    has_scoped,
    is_scoped,
    required,
    unfiltered,
)


def of_tenant(statement: Any, tenancy: Tenancy) -> Any:
    """The statement limited to the session's tenant, whatever another session has added to it."""
    if not has_scoped():
        return statement
    own = tenancy.criterion
    if is_column_load(
        statement
    ):  # SQLAlchemy adds no criteria to it: it trusts that the session holds the row
        limited, mapper = with_criterion(statement, own), subject_of(statement)
        if mapper is None or own is None or not is_scoped(mapper):
            return limited
        return limited.where(own.condition(mapper, mapper.class_))
    if own is None or not has_scoped(registries_in(statement)):
        return with_criterion(statement, None)
    return with_option(with_criterion(statement, own), own, is_orm=is_orm(statement))


def of_tenant_options(options: tuple[Any, ...], tenancy: Tenancy) -> tuple[Any, ...]:
    """Options that go on with instances, as a plan has kept them from another session."""
    return with_own(options, tenancy.criterion) if has_scoped() else options


def check_statement(
    statement: Any, tenancy: Tenancy, engine: Engine, columns: Iterable[str] = (), *, many: bool = False
) -> None:
    """Whether every table of a tenant's in it is limited.

    Raises:
        TenantError: one is not, or it has SQL in it that nobody can look into.
    """
    if tenancy.is_limited and has_scoped():
        check(statement, engine, guarded(), sorted(columns), many=many)


def limit_statement(executing: ORMExecuteState, tenancy: Tenancy) -> None:
    """Limit the statement that is about to run through SQLAlchemy.

    Raises:
        TenantRequired: it is about tenants' rows, and the session has no tenant.
        TenantError: it cannot be limited, or writes rows of another.
    """
    if not has_scoped():
        return
    given = executing.parameters
    if executing.is_insert or executing.is_update or executing.is_delete:
        _limit_writing(executing, tenancy)
    executing.statement = of_tenant(executing.statement, tenancy)
    if executing.execution_options.get(UNFILTERED_SQL) or not tenancy.is_limited:
        return
    if executing.is_insert or (executing.is_update and isinstance(given, list)):
        return  # looked at above: an INSERT reads nothing, and rows are updated by keys that were looked for
    columns = given.keys() if isinstance(given, Mapping) and executing.is_update else ()
    engine = executing.session.get_bind(**executing.bind_arguments).engine
    check_statement(executing.statement, tenancy, engine, columns)


def _limit_writing(executing: ORMExecuteState, tenancy: Tenancy) -> None:
    statement: Any = executing.statement
    mapper = executing.bind_mapper if executing.is_orm_statement else None
    if mapper is None or not is_scoped(mapper):
        if tenancy.is_limited and executing.is_insert and not executing.execution_options.get(UNFILTERED_SQL):
            table, known = statement.table, guarded()
            if known.column_of(table) is not None or table.name in known.attached:
                raise unfiltered(f"inserts into table {table.name!r} by itself")
        return
    required(mapper, tenancy)
    if not tenancy.is_limited:
        return
    if executing.execution_options.get("dml_strategy", "auto") in ("raw", "core_only"):
        raise unfiltered(f"writes {mapper.class_.__name__} past the ORM (dml_strategy)")
    owned = owned_by(mapper, tenancy)
    if executing.is_insert:
        executing.statement, executing.parameters = filled_insert(owned, statement, executing.parameters)
    elif executing.is_update:
        check_set(owned, statement, executing.parameters)
        _limit_sources(executing, tenancy)
    else:
        _limit_sources(executing, tenancy)


def owned_by(mapper: Mapper[Any], tenancy: Tenancy) -> Owned:
    """A class as its rows are written in a session of one tenant."""
    return Owned(mapper, mapper.class_.__tenant__, tenancy.tenant, _refused)


def _refused(what: str) -> TenantError:
    return TenantError(f"A statement in a session of one tenant {what}.  Nothing was sent.")


def _limit_sources(executing: ORMExecuteState, tenancy: Tenancy) -> None:
    """The criterion reaches the target alone; UPDATE … FROM and DELETE … USING have more tables."""
    statement: Any = executing.statement
    if isinstance(executing.parameters, list) or getattr(statement, "whereclause", None) is None:
        return
    assert tenancy.criterion is not None
    others = {each for each in mappers_in(statement.whereclause) if each is not executing.bind_mapper}
    for mapper in others:
        if is_scoped(mapper):
            statement = statement.where(tenancy.criterion.condition(mapper, mapper.class_))
    executing.statement = statement


ASKED = 5_000
"""The most keys that one statement asks for."""


def own_rows(
    rows: list[Mapping[str, Any]], mapper: Mapper[Any], ask: Callable[[Any], Iterable[Any]]
) -> list[Mapping[str, Any]]:
    """Those of the rows whose keys `ask` finds, locked until the end of the transaction where the database can.

    `ask` executes a SELECT of keys in the session, and so finds the tenant's alone.
    """
    names = [mapper.get_property_by_column(cast("Any", each)).key for each in mapper.primary_key]
    columns = [getattr(mapper.class_, name) for name in names]
    found: set[tuple[str, ...]] = set()
    keys = [tuple(row[name] for name in names) for row in rows if row.keys() >= set(names)]
    for start in range(0, len(keys), ASKED):
        part = keys[start : start + ASKED]
        wanted = tuple_(*columns).in_(part) if len(names) > 1 else columns[0].in_([key[0] for key in part])
        asked = select(*columns).where(wanted).with_for_update()
        found |= {tuple(map(str, key)) for key in ask(asked)}  # a key may be given as text
    return [
        row
        for row in rows
        if not row.keys() >= set(names) or tuple(str(row[name]) for name in names) in found
    ]


def update_nothing(mapper: Mapper[Any]) -> Any:
    """An UPDATE that finds no row."""
    name = next(each.key for each in mapper.column_attrs if each.key != mapper.class_.__tenant__)
    return update(mapper.class_).values({name: getattr(mapper.class_, name)}).where(false())
