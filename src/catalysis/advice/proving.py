"""Trials: what statements cost with indexes that are not there.  Nothing of a trial stays in the database.

With hypopg the server pretends.  Otherwise the indexes are really made, in a transaction that is rolled back: its
locks keep writers (and, while an index is left out, readers) waiting, so it is for development databases.
"""

from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from catalysis.advice.choosing import Question
from catalysis.advice.definitions import IndexDefinition, TableName
from catalysis.advice.figures import figure_of, with_assumed_limit
from catalysis.advice.workload import Statement
from catalysis.errors import ExplainError
from catalysis.tools.explain_sql import explain_sql
from catalysis.tools.query_plans.tree import QueryPlan

LOCK_SECONDS = 2
"""How long a trial waits for a lock on a table, at most."""
STATEMENT_SECONDS = 120
"""How long making one index may take, at most."""
_TRIAL_NAME = "catalysis_trial_"
"""Before the number of a candidate that is really made."""


@dataclass(slots=True)
class Pretended:
    """hypopg: hypothetical indexes, which only this connection's EXPLAIN sees.  It has B-trees and no GIN."""

    connection: AsyncConnection
    proved_by: str = "hypopg"
    refused: dict[int, str] = field(default_factory=dict[int, str])
    names: dict[int, str] = field(default_factory=dict[int, str])
    _candidates: Sequence[IndexDefinition] = ()
    _there: dict[int, int] = field(default_factory=dict[int, int])

    async def make(self, candidates: Sequence[IndexDefinition]) -> None:
        """Try each once."""
        self._candidates = candidates
        for number in range(len(candidates)):
            try:
                await self._add(number)
            except DBAPIError as failure:
                self.refused[number] = f"hypopg cannot pretend it: {_said(failure)}"

    async def _add(self, number: int) -> None:
        ddl = self._candidates[number].ddl(self.connection.dialect)
        made = text("SELECT indexrelid, indexname FROM hypopg_create_index(:ddl)")
        self._there[number], self.names[number] = (await self.connection.execute(made, {"ddl": ddl})).one()

    @asynccontextmanager
    async def only(self, numbers: frozenset[int]) -> AsyncGenerator[None]:
        """Add and take away what differs from the last time."""
        for number in self._there.keys() - numbers:
            await self.connection.execute(
                text("SELECT hypopg_drop_index(:oid)"), {"oid": self._there.pop(number)}
            )
        for number in sorted(numbers - self._there.keys() - self.refused.keys()):
            await self._add(number)
        yield

    async def size(self, number: int) -> int | None:
        """As hypopg estimates it."""
        async with self.only(frozenset({number})):
            oid = self._there[number]
            return await self.connection.scalar(text("SELECT hypopg_relation_size(:oid)"), {"oid": oid})


@dataclass(slots=True)
class Made:
    """Real indexes in the connection's transaction, each dropped in a savepoint where it is to be left out."""

    connection: AsyncConnection
    proved_by: str = "transaction"
    refused: dict[int, str] = field(default_factory=dict[int, str])
    names: dict[int, str] = field(default_factory=dict[int, str])
    _candidates: Sequence[IndexDefinition] = ()

    async def make(self, candidates: Sequence[IndexDefinition]) -> None:
        """Make each in a savepoint of its own, so that one that cannot be made costs only itself."""
        self._candidates = candidates
        for number, candidate in enumerate(candidates):
            name = f"{_TRIAL_NAME}{number}"
            try:
                async with self.connection.begin_nested():
                    await self.connection.exec_driver_sql(candidate.ddl(self.connection.dialect, name=name))
                    if any(key.is_expression for key in candidate.keys):
                        await self._analyze(candidate)
            except DBAPIError as failure:
                self.refused[number] = f"it cannot be made: {_said(failure)}"
                continue
            self.names[number] = name
        await self._leave_out_unusable()

    async def _analyze(self, candidate: IndexDefinition) -> None:
        """Without statistics of its expression an index looks as if it selected one row in 200."""
        await self.connection.exec_driver_sql(f"ANALYZE {self._quoted(candidate.table)}")

    def _quoted(self, name: TableName) -> str:
        quote = self.connection.dialect.identifier_preparer.quote
        return ".".join(quote(part) for part in (name.schema, name.name) if part)

    def _found_as(self, number: int) -> str:
        """The name by which an index is dropped: it is in the schema of its table."""
        return self._quoted(TableName(self.names[number], self._candidates[number].table.schema))

    async def _leave_out_unusable(self) -> None:
        """Where rows were changed a moment ago, their old versions may not be in a new index, which then waits.

        Source: PostgreSQL, `indcheckxmin` in `pg_index.h` and README.HOT.
        """
        if self.connection.dialect.name != "postgresql":
            return
        asked = text(
            "SELECT c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
            "WHERE i.indcheckxmin AND c.relname LIKE 'catalysis\\_trial\\_%'"
        )
        waiting = set((await self.connection.execute(asked)).scalars())
        for number, name in list(self.names.items()):
            if name in waiting:
                await self.connection.exec_driver_sql(f"DROP INDEX {self._found_as(number)}")
                del self.names[number]
                self.refused[number] = (
                    "rows of its table were changed a moment ago, and it can be used only once nobody sees their old "
                    "versions: try again after VACUUM"
                )

    @asynccontextmanager
    async def only(self, numbers: frozenset[int]) -> AsyncGenerator[None]:
        """Drop the others, and have them back afterwards."""
        others = [self._found_as(number) for number in self.names if number not in numbers]
        savepoint = await self.connection.begin_nested()
        async with _finally(savepoint.rollback):
            together = [", ".join(others)] if self.connection.dialect.name == "postgresql" else others
            for names in filter(None, together):
                await self.connection.exec_driver_sql(f"DROP INDEX {names}")
            yield

    async def size(self, number: int) -> int | None:
        """As PostgreSQL made it."""
        if self.connection.dialect.name != "postgresql":
            return None
        asked = text("SELECT pg_relation_size(CAST(:name AS regclass))")
        return await self.connection.scalar(asked, {"name": self._found_as(number)})


@dataclass(slots=True)
class Untried:
    """No trial is possible: candidates are refused, and statements cost what they cost."""

    connection: AsyncConnection
    proved_by: str = ""
    refused: dict[int, str] = field(default_factory=dict[int, str])
    names: dict[int, str] = field(default_factory=dict[int, str])

    async def make(self, candidates: Sequence[IndexDefinition]) -> None:
        """Refuse all."""
        hint = "the server has no hypopg, and " if self.connection.dialect.name == "postgresql" else ""
        why = f"{hint}it was not to be made in a transaction (in_transaction=True, --prove-here)"
        self.refused.update(dict.fromkeys(range(len(candidates)), why))

    @asynccontextmanager
    async def only(self, numbers: frozenset[int]) -> AsyncGenerator[None]:
        """Nothing is there."""
        yield

    async def size(self, number: int) -> int | None:
        """Unknown."""
        return None


Trial = Pretended | Made | Untried
"""A connection on which `only` certain candidates are there, after `make` has tried them all.

`refused` are those that could not be tried, by number, with the reason; `names` those that plans show for the others.
"""


@asynccontextmanager
async def trial_on(
    engine: AsyncEngine, extensions: frozenset[str], *, in_transaction: bool
) -> AsyncGenerator[Trial]:
    """A trial on a connection of its own: hypopg if it is there, else as is asked.  Nothing of it stays."""
    async with engine.connect() as connection:
        if "hypopg" in extensions and not in_transaction:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            async with _finally(lambda: _forget(connection)):
                await connection.exec_driver_sql(f"SET lock_timeout = '{LOCK_SECONDS}s'")
                yield Pretended(connection)
        elif in_transaction:
            async with _finally(connection.rollback):
                await _begin(connection)
                yield Made(connection)
        else:
            await limit_waiting(connection)
            yield Untried(connection)


async def limit_waiting(connection: AsyncConnection) -> None:
    """Until the end of its transaction the connection waits for no lock for long; SQLite's driver sees to that."""
    if connection.dialect.name == "postgresql":
        await connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")


async def _begin(connection: AsyncConnection) -> None:
    if connection.dialect.name == "postgresql":
        await limit_waiting(connection)
        await connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s'")
    else:  # the driver begins no transaction for DDL
        await connection.exec_driver_sql("BEGIN IMMEDIATE")


async def _forget(connection: AsyncConnection) -> None:
    await connection.exec_driver_sql("SELECT hypopg_reset()")
    await connection.exec_driver_sql("RESET lock_timeout")


@asynccontextmanager
async def _finally(undo: Callable[[], Awaitable[None]]) -> AsyncGenerator[None]:
    """Undo afterwards.  Of a block that failed or was cancelled that is told: its connection may be closed already."""
    try:
        yield
    except BaseException:
        with suppress(SQLAlchemyError):
            await undo()
        raise
    await undo()


@dataclass(slots=True)
class Answers:
    """Answers questions of a choice on one trial."""

    trial: Trial
    statements: Sequence[Statement]
    unexplained: dict[int, str] = field(default_factory=dict[int, str])

    async def to(self, questions: Sequence[Question]) -> Mapping[Question, float]:
        """The figure for each; statements that cannot be explained are noted, and cost the same whatever is there."""
        by_set: dict[frozenset[int], list[int]] = defaultdict(list)
        for statement, there in questions:
            by_set[there].append(statement)
        answers: dict[Question, float] = {}
        for there, wanted in by_set.items():
            async with self.trial.only(there):
                for statement in wanted:
                    answers[statement, there] = await self._figure(statement)
        return answers

    async def _figure(self, number: int) -> float:
        if number in self.unexplained:
            return 1.0
        try:
            return figure_of(await self.plan(number), limited=self._is_limited(number))
        except (ExplainError, DBAPIError) as failure:
            self.unexplained[number] = str(failure) if isinstance(failure, ExplainError) else _said(failure)
            return 1.0

    def _is_limited(self, number: int) -> bool:
        return "LIMIT" in self.statements[number].sql.upper().split()

    async def plan(self, number: int) -> QueryPlan:
        """The plan of a statement with what is there now."""
        statement = self.statements[number]
        sql, parameters = statement.sql, statement.parameters
        if parameters is None and self.trial.connection.dialect.name == "postgresql":
            sql = with_assumed_limit(sql)
        return await explain_sql(self.trial.connection, sql, parameters)


_WITHOUT_VALUES = ("42", "0A", "25", "54", "55", "57")
"""SQLSTATE classes whose messages quote no row: access and syntax, limits, locks, cancelled statements.

Source: PostgreSQL documentation, "PostgreSQL Error Codes".
"""


def _said(failure: DBAPIError) -> str:
    """The database's words where they hold no value of a row, else the kind of the error."""
    state = str(getattr(failure.orig, "sqlstate", None) or "")
    if state and not state.startswith(_WITHOUT_VALUES):
        return f"{type(failure.orig).__name__} ({state})"
    return str(failure.orig).split("\n")[0].rpartition(">: ")[2][:200]
