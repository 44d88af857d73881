"""Rows by COPY, where it does what an INSERT would: decided once for rows alike, looped per value.

What only an INSERT does, or only perhaps COPY does as well, is left to the INSERT.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Column, Connection, Table, insert
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.schema import CallableColumnDefault, ScalarElementColumnDefault
from sqlalchemy.util.concurrency import greenlet_spawn

from catalysis.engine.alchemy.copying import cast_of, exact_name, maker_of, processor_of
from catalysis.engine.alchemy.pooling import proxy_of
from catalysis.engine.alchemy.sessions import (
    autoflush,
    bind_of,
    has_foreign_hooks,
    must_flush_first,
)
from catalysis.engine.alchemy.sharding import chooses_connections
from catalysis.engine.coverage import refused_by
from catalysis.engine.drivers.copying import CopyTarget, copy_rows, takes_copy
from catalysis.engine.lease import Lease, is_out_of_the_ordinary
from catalysis.engine.telling import tell
from catalysis.events import is_heard
from catalysis.tools.rows import RowReader

FEWEST = 100
"""Rows from which on COPY is quicker than `executemany`, the question to the catalog included; as measured."""

Values = dict[str, Any]
Maker = Callable[[Sequence[Values]], list[Any]]


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """How rows that give the same attributes are sent."""

    target: CopyTarget
    makers: tuple[Maker, ...]
    """What gives the driver's values of one column for all rows."""


class Copier:
    """Sends chunks of completed rows by COPY into a model's table, in the session's transaction."""

    def __init__(self, session: AsyncSession, reader: RowReader, *, fewest: int | None = None) -> None:
        """`fewest`: the rows from which on it is used, if it is not to be what is quickest."""
        self._fewest = FEWEST if fewest is None else fewest
        self._session, self._reader = session, reader
        self._sync: Any = session.sync_session
        self._plans: dict[frozenset[str], CopyPlan | None] = {}
        self._fit: dict[CopyTarget, bool] = {}
        self._off = self._is_out_of_reach()

    def _is_out_of_reach(self) -> bool:
        mapper: Any = self._reader.mapper
        sync, table = self._sync, mapper.local_table
        if chooses_connections(sync) or has_foreign_hooks(sync) or not isinstance(table, Table):
            return True
        several = mapper.inherits is not None or mapper.polymorphic_on is not None or len(mapper.tables) > 1
        self._bind: Any = bind_of(sync, mapper, insert(cast("Table[Any]", table)))
        dialect = self._bind.dialect
        return (
            several
            or mapper.version_id_col is not None
            or dialect.name != "postgresql"
            or refused_by(sync, self._bind) is not None
        )

    async def write(self, rows: Sequence[Values]) -> bool:
        """Send them all; False if an INSERT has to do it, and nothing was sent.

        Raises:
            DBAPIError: the database refused; see `copied_line`.
        """
        if self._off or len(rows) < self._fewest:
            return False
        plan = self._plan(rows)
        if plan is None:
            return False
        try:
            columns = [make(rows) for make in plan.makers]
        except Exception:  # the INSERT meets it too, and raises it as SQLAlchemy's own
            return False
        if any(_holds_sql(column) for column in columns):
            return False
        async with self._turn():
            if must_flush_first(self._sync):
                await greenlet_spawn(autoflush, self._sync)
            connection = await self._session.connection(bind_arguments={"bind": self._bind})
        held: Any = connection.sync_connection
        proxy = proxy_of(held)
        if proxy is None or is_out_of_the_ordinary(held):
            return False
        return await self._send(
            plan.target, list(zip(*columns, strict=True)), Lease.of(self._bind.engine, proxy, held)
        )

    def _turn(self) -> Any:
        return getattr(self._sync, "turn", None) or nullcontext()

    async def _send(self, target: CopyTarget, rows: Sequence[Sequence[Any]], lent: Lease) -> bool:
        held = cast("Connection", lent.held)
        sql = target.sql
        ended = tell(lent, sql, rows, self._reader.mapper) if is_heard() else None
        try:
            if target not in self._fit:
                self._fit[target] = await takes_copy(lent.connection, target, held.info)
            if not self._fit[target]:
                return False
            count = await copy_rows(lent.connection, target, rows)
        except Exception as error:
            if ended is not None:
                ended(None, type(error).__name__)
            await lent.fail(error, sql, ())
        except BaseException as cancelled:
            if ended is not None:
                ended(None, type(cancelled).__name__)
            lent.give_up(cancelled, survives=False)
            raise
        if ended is not None:
            ended(count, None)
        if (unsaved := getattr(self._sync, "unsaved", None)) is not None:
            unsaved.note(f"INSERT of {target.table}")
        return True

    def _plan(self, rows: Sequence[Values]) -> CopyPlan | None:
        given = frozenset(rows[0])
        if not all(len(row) == len(given) and row.keys() == given for row in rows):
            shapes = set(map(frozenset, rows))
            given = frozenset[str]().union(*shapes)
            some = given.difference(*(given - shape for shape in shapes))
            if any(not self._may_be_left_out(key) for key in given - some):
                return None
        if given not in self._plans:
            self._plans[given] = _plan_copy(self._reader, given, self._bind.dialect)
        return self._plans[given]

    def _may_be_left_out(self, key: str) -> bool:
        """Whether some rows may do without it: the value is ours to make for them, or it is NULL."""
        column = self._reader.columns[key][0]
        counts_up = column.table.autoincrement_column is column
        return not (counts_up or column.server_default is not None)


def _plan_copy(reader: RowReader, given: frozenset[str], dialect: Dialect) -> CopyPlan | None:
    """The plan for rows that give (most of) these attributes; None if only an INSERT will do."""
    table = cast("Table[Any]", reader.mapper.local_table)
    attribute_of = {columns[0]: key for key, columns in reader.columns.items()}
    names: list[str] = []
    casts: list[str] = []
    makers: list[Maker] = []
    for column in table.columns:
        key = attribute_of.get(column)
        if key not in given:
            if column.default is None:
                continue
            key = None
        maker = _maker(column, key, dialect)
        cast_to, name = cast_of(column, dialect), exact_name(column.name, dialect)
        if maker is None or cast_to is None or name is None:
            return None
        names.append(name)
        casts.append(cast_to)
        makers.append(maker)
    schema, name = table.schema, exact_name(table.name, dialect)
    if name is None or (schema is not None and (exact_name(schema, dialect) is None or "." in schema)):
        return None
    return CopyPlan(CopyTarget(schema, name, tuple(names), tuple(casts)), tuple(makers)) if names else None


def _maker(column: Column[Any], key: str | None, dialect: Dialect) -> Maker | None:
    """What gives a column's values for rows, from their attribute `key` or, without one, from its default."""
    process = processor_of(column, dialect)
    default: Any = column.default
    make: Callable[[], Any] | None = None
    if isinstance(default, ScalarElementColumnDefault):
        scalar: Any = default.arg

        def make_scalar() -> Any:
            return scalar

        make = make_scalar
    elif isinstance(default, CallableColumnDefault):
        make = maker_of(default)
    if default is not None and make is None:
        return None if key is None else _required(key, process)
    absent = make if process is None or make is None else _processed(make, process)

    def values(rows: Sequence[Values]) -> list[Any]:
        if key is None:
            return [] if absent is None else [absent() for _ in rows]
        found: list[Any] = []
        for row in rows:
            if key in row:
                value = row[key]
                found.append(value if process is None else process(value))
            else:
                found.append(None if absent is None else absent())
        return found

    return values


def _required(key: str, process: Callable[[Any], Any] | None) -> Maker:
    def values(rows: Sequence[Values]) -> list[Any]:
        given = [row[key] for row in rows]  # a KeyError where the server would have to make it
        return given if process is None else list(map(process, given))

    return values


def _processed(make: Callable[[], Any], process: Callable[[Any], Any]) -> Callable[[], Any]:
    return lambda: process(make())


def _holds_sql(values: Iterable[Any]) -> bool:
    return any(
        hasattr(kind, "__clause_element__") or hasattr(kind, "compile") for kind in set(map(type, values))
    )
