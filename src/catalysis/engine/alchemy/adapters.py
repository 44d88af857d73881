"""SQLAlchemy's adapters of the drivers' connections: what is below them, and the BEGIN that they send by themselves."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from asyncpg import (  # pyright: ignore[reportMissingTypeStubs] - it has none
    DataError,
    InterfaceError,
    OutdatedSchemaCacheError,
)
from sqlalchemy.exc import DBAPIError


def driver_connection(connection: Any) -> Any:
    """The driver's own connection."""
    return connection._connection


def turn_on(connection: Any) -> asyncio.Lock:
    """The lock under which statements of several tasks queue on one connection."""
    return connection._execute_mutex


def is_begun(connection: Any) -> bool:
    """Whether the adapter has sent its BEGIN (asyncpg's)."""
    return connection._transaction is not None


def transaction_on(connection: Any) -> object:
    """The transaction that the adapter has begun; None for none (asyncpg's)."""
    return connection._transaction


async def begin(connection: Any) -> None:
    """Send the BEGIN that the adapter owes before its first statement (asyncpg's)."""
    await connection._start_transaction()


def isolation_of(connection: Any) -> str | None:
    """The isolation level set on the connection; None for the server's default (asyncpg's)."""
    return connection.isolation_level


def kept_statement(connection: Any, sql: str, dialect: Any) -> Any:
    """The statement as it was prepared on the connection before; None if it has to be `prepared` (asyncpg's)."""
    cache, changed = connection._prepared_statement_cache, dialect._invalidate_schema_cache_asof
    if cache is None or changed > connection._invalidate_schema_cache_asof:
        return None
    found = cache.get(sql)
    return None if found is None or found[2] <= changed else found


async def prepared(connection: Any, sql: str, dialect: Any) -> tuple[Any, Sequence[Any]]:
    """The statement prepared on the connection, and its columns: from SQLAlchemy's bounded cache where it can be.

    What was prepared before the last schema change that SQLAlchemy knows of is prepared anew (asyncpg's).
    """
    return await connection._prepare(sql, dialect._invalidate_schema_cache_asof)


async def execute(statement: Any, parameters: Sequence[Any]) -> tuple[Sequence[Any], Any]:
    """All rows of a prepared statement and its status, as its `fetch` gets them through four calls of its own.

    Raises:
        asyncpg.PostgresError, asyncpg.InterfaceError: as `fetch`.
    """
    state, raw = statement._state, statement._connection
    if state.closed or raw.is_closed():
        return await statement.fetch(*parameters), statement._last_status  # or rather says what is wrong
    try:
        rows, status, _ = await raw._protocol.bind_execute(state, parameters, "", 0, True, None)
    except OutdatedSchemaCacheError:
        await raw.reload_schema_state()
        state.mark_closed()
        raise
    except (InterfaceError, DataError) as error:
        if getattr(error, "severity", None) is None:  # it is not the server's
            await _end_preparing(raw)
        raise
    return rows, status


async def _end_preparing(raw: Any) -> None:
    """A value could not be sent: end what preparing has begun, with a lock on each table, if nobody else will.

    asyncpg sends Flush after it, and the Sync that ends it with the execution (PostgreSQL documentation, "Extended
    Query").
    """
    if not raw.is_in_transaction():
        with suppress(InterfaceError):  # it is closed
            await raw.execute("SELECT")


def as_sqlalchemy_error(connection: Any, dialect: Any, error: Exception, sql: str) -> Exception:
    """The driver's error as SQLAlchemy would raise it for this statement; any other as it is."""
    kind: Any = dialect.loaded_dbapi.Error
    try:
        connection._handle_exception(error)
    except kind as translated:
        made: Any = DBAPIError
        return made.instance(sql, None, translated, kind, hide_parameters=True, dialect=dialect)
    except Exception as other:
        return other
    return error
