"""`explain_sql`: the plan of a statement as the driver got it, with the values of its parameters or without any.

What is sent here goes to the driver itself, below SQLAlchemy: no listener hears of it, and those who explain what
they heard do not hear themselves.  It runs in a transaction or savepoint of its own, which is always rolled back.
"""

import re
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from catalysis.engine.alchemy.adapters import as_sqlalchemy_error, driver_connection, turn_on
from catalysis.errors import ExplainError
from catalysis.tools.query_plans.examining import examined, fetch_unnamed
from catalysis.tools.query_plans.findings import Statement
from catalysis.tools.query_plans.reading import read_postgresql, read_sqlite
from catalysis.tools.query_plans.tree import QueryPlan


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be explained, and how; without `parameters` for any values."""

    sql: str
    parameters: Sequence[Any] | None
    analyze: bool
    buffers: bool


async def explain_sql(
    where: AsyncEngine | AsyncConnection,
    sql: str,
    parameters: Sequence[Any] | None = None,
    *,
    analyze: bool = False,
    buffers: bool = False,
) -> QueryPlan:
    """The database's plan for SQL in the driver's own words: `$1::UUID` for asyncpg, `?` for SQLite.

    Without `parameters` it is the generic plan, which serves any values, so none are needed.  `parameters` are as
    the driver gets them, after SQLAlchemy has processed them.  With `analyze` the statement is executed and undone,
    which SQLite cannot do: it plans only.  `buffers` adds PostgreSQL's block counts.

    An `AsyncConnection` is used as it is, with what its transaction has written; of an engine a connection is lent.

    Raises:
        DBAPIError: the connection's transaction has failed, and has to be rolled back first.
        ExplainError: the database refuses the statement or has no plan for its kind (BEGIN, DDL, COPY…); it has
            placeholders, and `analyze` would need their values; or the engine has a driver that we do not know.
    """
    refuse_unplanned(sql)
    request = Request(sql.strip().rstrip(";"), parameters, analyze, buffers)
    async with AsyncExitStack() as stack:
        connection = (
            await stack.enter_async_context(where.connect()) if isinstance(where, AsyncEngine) else where
        )
        ask = _ASK.get(connection.dialect.driver)
        if ask is None:
            raise ExplainError(
                f"explain_sql() speaks to {' and '.join(_ASK)} themselves, not to {connection.dialect.driver}.  "
                "explain() takes a statement of SQLAlchemy's on any driver of PostgreSQL and SQLite."
            )
        adapter = (await connection.get_raw_connection()).dbapi_connection
        await stack.enter_async_context(turn_on(adapter))
        try:
            return await ask(driver_connection(adapter), connection.dialect, request)
        except Exception as failure:
            if getattr(failure, "sqlstate", None) != _ABORTED:
                raise
            raise as_sqlalchemy_error(adapter, connection.dialect, failure, request.sql) from failure


_ABORTED = "25P02"
"""PostgreSQL's in_failed_sql_transaction: the caller's transaction failed before, and waits for its rollback."""


_PLANNED = re.compile(
    r"(?>[\s(]|--[^\n]*(?:\n|$)|/\*.*?\*/)*+(?:SELECT|INSERT|UPDATE|DELETE|MERGE|WITH|VALUES|TABLE|REPLACE)\b",
    re.IGNORECASE | re.DOTALL,
)
_FIRST_WORD = re.compile(r"\w+")


def refuse_unplanned(sql: str) -> None:
    """Let pass what a database makes a plan for.

    Raises:
        ExplainError: it makes none for statements that begin so.
    """
    if not _PLANNED.match(sql):
        word = _FIRST_WORD.search(sql)
        raise ExplainError(
            f"There is no plan for {word[0].upper() if word else 'an empty statement'}: "
            "a SELECT, INSERT, UPDATE, DELETE, MERGE or VALUES has one, also after WITH."
        )


# --- PostgreSQL by asyncpg ------------------------------------------------------------------------


def postgresql_command(analyze: bool, buffers: bool) -> str:
    """EXPLAIN with its options."""
    # BUFFERS is said in words: from PostgreSQL 18 ANALYZE implies it, before 13 it could not stand alone.
    options = [
        "FORMAT JSON",
        *["ANALYZE"][:analyze],
        *[f"BUFFERS {str(buffers).upper()}"][: analyze or buffers],
    ]
    return f"EXPLAIN ({', '.join(options)}) "


async def _ask_asyncpg(driver: Any, dialect: Any, request: Request) -> QueryPlan:
    async with undone(driver):
        try:
            plan = read_postgresql(await _answer(driver, request))
            return await examined(driver, dialect, plan, Statement(request.sql, request.parameters))
        except Exception as failure:
            raise _refusal(failure) from None


async def _answer(driver: Any, request: Request) -> list[Any]:
    placeholders = await _placeholders(driver, request.sql)
    if request.parameters is not None or not placeholders:
        command = postgresql_command(request.analyze, request.buffers)
        return await fetch_unnamed(driver, command + request.sql, *(request.parameters or ()))
    if request.analyze:
        raise ExplainError(
            f"The statement has {placeholders} placeholder(s), and cannot be executed without their values: give "
            "`parameters`, or leave `analyze` out."
        )
    make = generic_plan if driver.get_server_version() >= (16,) else generic_plan_by_prepare
    return [[await make(driver, request.sql, placeholders)]]


async def _placeholders(driver: Any, sql: str) -> int:
    """How many the server finds.  It also refuses a text of several statements, which EXPLAIN must not get."""
    return len((await driver.prepare(sql, name="")).get_parameters())


_KEEP_SQL = "SELECT set_config('catalysis.explained', $1, true)"
_EXPLAIN_KEPT = """DO $$
DECLARE answer text;
BEGIN
    EXECUTE 'EXPLAIN (GENERIC_PLAN, FORMAT JSON) ' || current_setting('catalysis.explained') INTO answer;
    PERFORM set_config('catalysis.explained', answer, true);
END $$"""
_READ_KEPT = "SELECT current_setting('catalysis.explained')"


async def generic_plan(driver: Any, sql: str, placeholders: int) -> str:
    """EXPLAIN's JSON for any values, by GENERIC_PLAN, which PostgreSQL has from version 16 on.

    The server takes it for what it is only where the client binds nothing.  asyncpg binds a value to each
    placeholder, and the plan would be the one for NULLs; so PL/pgSQL sends it, and a setting of this transaction
    carries SQL and answer.
    """
    await fetch_unnamed(driver, _KEEP_SQL, sql)
    await driver.execute(_EXPLAIN_KEPT)
    return (await fetch_unnamed(driver, _READ_KEPT))[0][0]


async def generic_plan_by_prepare(driver: Any, sql: str, placeholders: int) -> Any:
    """EXPLAIN's JSON for any values, before PostgreSQL 16: by a prepared statement told to use its generic plan.

    The NULLs are not looked at by the planner, but partitions are left out for them when the executor starts.
    """
    # By the extended protocol, which takes one statement only.
    await fetch_unnamed(driver, f"PREPARE {_PREPARED} AS {sql}")
    try:
        await driver.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        nulls = ", ".join(["NULL"] * placeholders)
        return (await fetch_unnamed(driver, f"EXPLAIN (FORMAT JSON) EXECUTE {_PREPARED} ({nulls})"))[0][0]
    except BaseException:
        await driver.execute(f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}")  # nothing else is heard after an error
        raise
    finally:
        await driver.execute(f"DEALLOCATE {_PREPARED}")  # no rollback does it


_SAVEPOINT = "catalysis_explain"
_PREPARED = "catalysis_explained"


@asynccontextmanager
async def undone(driver: Any) -> AsyncGenerator[None]:
    """A savepoint that is rolled back, in a transaction of its own if there is none.

    The driver's own BEGIN is sent: SQLAlchemy's adapter sends none in autocommit, and else would take it for its own.
    """
    joined = await begin_undone(driver)
    try:
        yield
    finally:
        await undo(driver, joined)


async def begin_undone(driver: Any) -> bool:
    """Begin what `undo` takes back; whether it is a part of a transaction that was there."""
    joined = driver.is_in_transaction()
    try:
        await driver.execute(f"SAVEPOINT {_SAVEPOINT}" if joined else f"BEGIN; SAVEPOINT {_SAVEPOINT}")
    except BaseException:
        if not joined:
            driver.terminate()  # nobody knows whether it has begun
        raise
    return joined


async def undo(driver: Any, joined: bool) -> None:
    """Roll back; where that fails the connection is closed, since a pool would lend it with its transaction open."""
    if driver.is_closed():
        return  # what ended it is told, not that there is nothing left to take back
    try:
        if joined:
            await driver.execute(f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}; RELEASE SAVEPOINT {_SAVEPOINT}")
        elif driver.is_in_transaction():
            await driver.execute("ROLLBACK")
    except BaseException:
        driver.terminate()
        raise


# --- SQLite by aiosqlite --------------------------------------------------------------------------

SQLITE_COMMAND = "EXPLAIN QUERY PLAN "
_WANTED = re.compile(r"The current statement uses (\d+)")


async def _ask_aiosqlite(driver: Any, dialect: Any, request: Request) -> QueryPlan:
    try:
        plan = read_sqlite(await _steps(driver, SQLITE_COMMAND + request.sql, request.parameters))
        return await examined(driver, dialect, plan, Statement(request.sql, request.parameters))
    except Exception as failure:
        raise _refusal(failure) from None


async def _steps(driver: Any, sql: str, parameters: Sequence[Any] | None) -> Any:
    try:
        return await driver.execute_fetchall(sql, tuple(parameters or ()))
    except sqlite3.ProgrammingError as failure:
        wanted = _WANTED.search(str(failure))
        if parameters is not None or wanted is None:
            raise
        # The plan is made when the statement is prepared, before values are bound.
        return await driver.execute_fetchall(sql, (None,) * int(wanted[1]))


# --- Both -----------------------------------------------------------------------------------------

_ASK: dict[str, Callable[[Any, Any, Request], Awaitable[QueryPlan]]] = {
    "asyncpg": _ask_asyncpg,
    "aiosqlite": _ask_aiosqlite,
}
_ABOUT_THE_STATEMENT = ("42", "0A")
"""SQLSTATE classes whose messages quote the statement and never a value: syntax and access, not supported.

Source: PostgreSQL documentation, "PostgreSQL Error Codes".
"""


def _refusal(failure: Exception) -> Exception:
    """The database's refusal as an error of ours, which shows no parameter's value; a lost connection as it is."""
    if isinstance(failure, ExplainError | OSError):
        return failure
    state: str | None = getattr(failure, "sqlstate", None)
    if isinstance(failure, sqlite3.OperationalError) or (state or "")[:2] in _ABOUT_THE_STATEMENT:
        return ExplainError(f"The database cannot explain the statement: {failure}.")
    if state is not None and state[:2] in ("08", "57"):
        return failure
    code = f" ({state})" if state else ""
    return ExplainError(
        f"The database cannot explain the statement with these values: {type(failure).__name__}{code}."
    )
