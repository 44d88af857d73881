"""`explain`: ask the database for the plan of a statement, with the statement's own parameters bound.

The statement is the one the session would send, with what its hooks add to it (soft delete, for one).  Nothing stays
behind: ANALYZE, which executes, is undone, and the session's objects, transaction and unsaved work are as before.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Insert, event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.result import IteratorResult, SimpleResultMetaData
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import ORMExecuteState, Session
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.ddl import ExecutableDDLElement
from sqlalchemy.sql.elements import ClauseElement
from sqlalchemy.util import await_only

from catalysis.engine.alchemy.adapters import driver_connection, isolation_of, turn_on
from catalysis.engine.drivers import is_driven
from catalysis.errors import ExplainError
from catalysis.events.hooks import fallback_reason
from catalysis.tools.explain_sql import SQLITE_COMMAND, begin_undone, explain_sql, postgresql_command, undo
from catalysis.tools.query_plans.examining import examined
from catalysis.tools.query_plans.findings import Statement
from catalysis.tools.query_plans.reading import read_postgresql, read_sqlite
from catalysis.tools.query_plans.tree import QueryPlan
from catalysis.unsaved import ONLY_EXPLAINED

EXPLAINING = "an EXPLAIN of Catalysis's own"
"""The `reason` in the event of the EXPLAIN that `explain` sends, by which listeners can leave it out."""


@dataclass(frozen=True, slots=True)
class _Dialect:
    """How one database explains."""

    command: Callable[[bool, bool], str]
    """From `analyze` and `buffers`."""
    read: Callable[[Sequence[Any]], QueryPlan]
    needs_undoing: bool
    """A failing or analyzing EXPLAIN leaves traces in the transaction."""


_DIALECTS = {
    "postgresql": _Dialect(postgresql_command, read_postgresql, needs_undoing=True),
    "sqlite": _Dialect(lambda analyze, buffers: SQLITE_COMMAND, read_sqlite, needs_undoing=False),
}


async def explain(
    session: AsyncSession, statement: Executable, *, analyze: bool = False, buffers: bool = False
) -> QueryPlan:
    """The database's plan for `statement`: a select, an insert, update or delete, or `text()`.

    With `analyze` the statement is executed, its actual figures are in the plan, and whatever it changed is rolled
    back (what PostgreSQL never rolls back, such as the values of a sequence, is spent).  SQLite cannot do that: it
    plans only, and `plan.analyzed` is False.  `buffers` adds PostgreSQL's block counts.

    Pending objects are not flushed first.  One EXPLAIN is sent: in the session's transaction if it has one, to see
    what that has written, else on a connection of its own.  Its event has the reason `EXPLAINING`.  Where the plan's
    findings need facts about tables, the catalog is asked on the same connection, and no listener hears of it.

    Raises:
        ExplainError: the database has no EXPLAIN we know, or `statement` is none it explains.
        DBAPIError: the database refused the statement.
    """
    return await session.run_sync(_explain, statement, analyze, buffers)


def _explain(session: Session, statement: Executable, analyze: bool, buffers: bool) -> QueryPlan:
    if not isinstance(statement, ClauseElement) or isinstance(statement, ExecutableDDLElement):
        raise ExplainError(
            f"explain() takes a select, insert, update, delete or text(), not a {type(statement).__name__}.  "
            "Wrap a string in sqlalchemy.text()."
        )
    executing = _as_executed(session, statement)
    bind = session.get_bind(**executing.bind_arguments)
    if (dialect := _DIALECTS.get(bind.dialect.name)) is None:
        raise ExplainError(f"{bind.dialect.name} has no EXPLAIN that Catalysis can read.")
    explained = _Explained(executing.statement, dialect.command(analyze, buffers))
    with _connection(session, executing.bind_arguments, dialect.needs_undoing) as connection:
        answer, sent = _ask(connection, explained, executing)
        return await_only(_examined(connection, dialect.read(answer), sent))


async def _examined(connection: Connection, plan: QueryPlan, statement: Statement) -> QueryPlan:
    if not is_driven(connection.dialect):
        return await examined(None, connection.dialect, plan, statement)
    adapter: Any = connection.connection.dbapi_connection
    async with turn_on(adapter):
        return await examined(driver_connection(adapter), connection.dialect, plan, statement)


def _as_executed(session: Session, statement: Executable) -> ORMExecuteState:
    """The statement after all hooks of the session, which is then not executed."""
    seen: list[ORMExecuteState] = []

    def stop(executing: ORMExecuteState) -> IteratorResult[Any]:
        seen.append(executing)
        return IteratorResult(SimpleResultMetaData([]), iter(()))

    event.listen(session, "do_orm_execute", stop)  # on the instance, so it comes after those on its class
    try:
        session.execute(statement, execution_options={ONLY_EXPLAINED: True})
    finally:
        event.remove(session, "do_orm_execute", stop)
    return seen[0]


class _Explained(Executable, ClauseElement):
    """EXPLAIN before another statement, which keeps its own parameters, types and defaults.

    In all else that SQLAlchemy asks of a statement it executes, it answers for the one inside.
    """

    inherit_cache = False

    def __init__(self, statement: Executable, command: str) -> None:
        # An INSERT that is not "inline" fetches its primary key, and would take EXPLAIN's row for it.
        self.statement: Any = statement.inline() if isinstance(statement, Insert) else statement
        self.command = command

    def __getattr__(self, name: str) -> Any:
        if name == "statement":  # asked before __init__ by copy and pickle
            raise AttributeError(name)
        return getattr(self.statement, name)


@compiles(_Explained)
def _compile_explained(element: _Explained, compiler: Any, **kwargs: Any) -> str:
    return element.command + compiler.process(element.statement, **kwargs)


def _ask(
    connection: Connection, explained: _Explained, executing: ORMExecuteState
) -> tuple[Sequence[Any], Statement]:
    """EXPLAIN's rows, taken from the cursor: the result would fit them to the columns of the statement inside."""
    answer: list[Any] = []
    statement = Statement("", None)

    def take(conn: Any, cursor: Any, sql: str, parameters: Any, context: Any, many: bool) -> None:
        nonlocal statement
        if sql.startswith(explained.command):  # not what fetches a default
            answer.extend(cursor.fetchall())
            statement = Statement(sql.removeprefix(explained.command), parameters)

    options = {k: v for k, v in executing.execution_options.items() if k == "schema_translate_map"}
    event.listen(connection, "after_cursor_execute", take)
    token = fallback_reason.set(EXPLAINING)
    try:
        connection.execute(explained, executing.parameters, execution_options=options)
    finally:
        fallback_reason.reset(token)
        event.remove(connection, "after_cursor_execute", take)
    return answer, statement


@contextmanager
def _connection(session: Session, bind_arguments: Any, needs_undoing: bool) -> Generator[Connection]:
    """Where the session's transaction is, or a connection of its own; what happens on it is undone afterwards."""
    with ExitStack() as stack:
        if session.in_transaction():
            connection = session.connection(bind_arguments=bind_arguments)
        elif isinstance(bind := session.get_bind(**bind_arguments), Engine):
            connection = stack.enter_context(bind.connect())
        else:
            connection = bind
        if needs_undoing:
            stack.enter_context(_undone(connection))
        yield connection


@contextmanager
def _undone(connection: Connection) -> Generator[None]:
    adapter: Any = connection.connection.dbapi_connection
    if is_driven(connection.dialect) and isolation_of(adapter) == "autocommit":
        # SQLAlchemy's transactions are none of the database's then, and what ANALYZE does would stay.
        driver = driver_connection(adapter)
        joined = await_only(begin_undone(driver))
        try:
            yield
        finally:
            await_only(undo(driver, joined))
        return
    if not is_driven(connection.dialect) and connection.get_isolation_level() == "AUTOCOMMIT":
        raise ExplainError(
            f"{connection.dialect.driver} is in autocommit here, and what ANALYZE does could not be undone.  Use a "
            "connection with another isolation level."
        )
    with connection.begin_nested() if connection.in_transaction() else connection.begin() as transaction:
        yield
        transaction.rollback()


__all__ = ["EXPLAINING", "explain", "explain_sql"]
