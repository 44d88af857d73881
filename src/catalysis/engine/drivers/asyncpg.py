"""PostgreSQL by asyncpg."""

import socket
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from math import inf
from typing import Any

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none
from sqlalchemy import event
from sqlalchemy.engine import Engine, ExceptionContext
from sqlalchemy.exc import ResourceClosedError

from catalysis.engine.alchemy.adapters import (
    begin,
    driver_connection,
    execute,
    is_begun,
    isolation_of,
    kept_statement,
    prepared,
    transaction_on,
    turn_on,
)
from catalysis.engine.alchemy.leaving import closes_in_time, resets_session, run
from catalysis.engine.alchemy.owning import LocalSetting
from catalysis.engine.alchemy.spoiling import note_failure
from catalysis.engine.drivers.base import Answer, Position
from catalysis.engine.drivers.connecting import connect
from catalysis.engine.drivers.settings import SET_LOCALLY
from catalysis.engine.leftovers import leaves_state
from catalysis.errors import NoAnswer
from catalysis.events import address_of
from catalysis.settings import DatabaseSettings

_SAME_OUTSIDE = frozenset({"autocommit", "read_committed", "read_uncommitted"})
"""Isolation levels at which each statement of a transaction sees what is committed when it begins.

Source: PostgreSQL documentation, "Transaction Isolation".
"""


def connect_args(settings: DatabaseSettings) -> dict[str, Any]:
    """What asyncpg is told when it connects."""
    given: dict[str, Any] = {
        "async_creator_fn": connect,
        "timeout": settings.connect_timeout,
        "command_timeout": settings.longest_answer,
    }
    if settings.pooler == "transaction":
        # A statement prepared by name would be on one of the pooler's connections, and its next use on another.
        given |= {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
        given["prepared_statement_name_func"] = _unnamed
        return given  # a pooler refuses settings that it does not know, and gives the session to others
    bounds = {
        "statement_timeout": settings.statement_timeout,
        "lock_timeout": settings.lock_timeout,
        "idle_in_transaction_session_timeout": settings.idle_transaction_timeout,
    }
    given["server_settings"] = {
        name: _milliseconds(seconds) for name, seconds in bounds.items() if seconds is not None
    }
    return given


def _milliseconds(seconds: float) -> str:
    """For a setting of the server's, where 0 is no bound."""
    return "0" if seconds == inf else str(max(round(seconds * 1000), 1))


def prepare(engine: Engine, settings: DatabaseSettings) -> None:
    """Set up every connection the engine will open, what is an answer that does not come, and what a lease leaves."""
    after_connect = ""
    if settings.transaction_timeout is not None and settings.pooler is None:
        after_connect = f"SET transaction_timeout = {_milliseconds(settings.transaction_timeout)}"

    def on_connect(connection: Any, record: Any) -> None:
        raw = driver_connection(connection)
        keep_alive(raw, settings.keepalive)
        if after_connect and raw.get_server_version() >= TRANSACTION_TIMEOUT_SINCE:
            run(connection, after_connect)

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "handle_error", _no_answer, retval=True)
    event.listen(engine, "handle_error", _has_moved)
    event.listen(engine, "handle_error", note_failure)
    closes_in_time(engine)
    if settings.pooler is None:  # behind a pooler the session is not ours to reset
        resets_session(engine, leaves_state, ";".join(filter(None, (RESET, after_connect))))


TRANSACTION_TIMEOUT_SINCE = (17,)

RESET = (
    "SET SESSION AUTHORIZATION DEFAULT; RESET ROLE; RESET ALL; SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; "
    "DISCARD TEMP"
)
"""Takes back what a session can have left behind, but prepared statements, which are ours.

RESET ALL leaves the role as it is (PostgreSQL documentation, "DISCARD": what DISCARD ALL does).
"""


def keep_alive(raw: Any, seconds: float) -> None:
    """Have TCP find out within these seconds that the server cannot be reached, where the system can do that.

    It asks while nothing is under way, and gives up on what was sent and not received: so a statement may take its
    time as long as the server is there.
    """
    transport = getattr(raw, "_transport", None)
    sock = transport and transport.get_extra_info("socket")
    if sock is None or seconds == inf or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    idle = max(round(seconds / 2), 1)
    interval = max(round(seconds / 2 / PROBES), 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", idle),
        ("TCP_KEEPALIVE", idle),  # macOS's name for it
        ("TCP_KEEPINTVL", interval),
        ("TCP_KEEPCNT", PROBES),
        ("TCP_USER_TIMEOUT", round(seconds * 1000)),
    ):
        if (option := getattr(socket, name, None)) is not None:
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


PROBES = 3


def _no_answer(failed: ExceptionContext) -> BaseException | None:
    """For the statements that SQLAlchemy runs: the connection is given up, and so are the others of the pool."""
    if not isinstance(failed.original_exception, TimeoutError) or failed.connection is None:
        return None
    failed.is_disconnect = True
    return NoAnswer(failed.statement, None, failed.original_exception)


READ_ONLY = "25006"
GOING_DOWN = frozenset({"57P01", "57P02", "57P03"})
"""SQLSTATEs of a server that shuts down, has crashed, or starts.

Source: PostgreSQL documentation, "PostgreSQL Error Codes".
"""


def _has_moved(failed: ExceptionContext) -> None:
    """A server that goes down, or may not be written to any more: its connections are of no use, nor are the others.

    What a transaction may not write that was begun READ ONLY is not meant: the server itself says what it is.
    """
    state = getattr(failed.original_exception, "sqlstate", None)
    if failed.connection is None or failed.connection.closed or failed.connection.invalidated:
        return
    read_only = state == READ_ONLY and address_of(failed.connection.engine).role == "primary"
    if state in GOING_DOWN or (read_only and _is_read_only(failed.connection.connection)):
        failed.is_disconnect = True


def _is_read_only(proxy: Any) -> bool:
    """Whether the server is a replica or takes no writes by default; so too where it is too old to say (before 14)."""
    said = proxy.driver_connection.get_settings()
    return (
        getattr(said, "in_hot_standby", "on") == "on"
        or getattr(said, "default_transaction_read_only", "off") == "on"
    )


def _unnamed() -> str:
    return ""


POSITION = """
SELECT (found.end_ - pg_lsn '0/0')::bigint, (found.flushed - pg_lsn '0/0')::bigint,
    pg_is_in_recovery(), current_setting('transaction_read_only') = 'off'
FROM (SELECT CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_replay_lsn(), '0/0')
                  ELSE pg_current_wal_insert_lsn() END AS end_,
             CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_replay_lsn(), '0/0')
                  ELSE pg_current_wal_flush_lsn() END AS flushed) AS found
"""
"""A commit with `synchronous_commit` off returns before its part of the log is flushed, so that the end counts; and
what is no commit may lie in memory for long on an idle server, for which no replica can be blamed.
"""


class AsyncpgDriver:
    """Reads by prepared statements, one round trip each; see `Driver`."""

    plans_by_limit = True
    gives_text = False
    survives_cancellation = False

    def reads_outside(self, connection: Any, dialect: Any) -> bool:
        """See `Driver`."""
        level = isolation_of(connection)
        if level is not None:
            return level in _SAME_OUTSIDE
        # Not known while the engine's very first connection still asks for it, beside this one.
        default = getattr(dialect, "default_isolation_level", None)
        return default in ("READ COMMITTED", "READ UNCOMMITTED")

    def fetch(
        self,
        connection: Any,
        sql: str,
        parameters: Sequence[Any],
        *,
        dialect: Any,
        in_transaction: bool,
        setting: LocalSetting | None = None,
    ) -> Awaitable[Answer]:
        """See `Driver`."""
        if in_transaction:
            return _fetch_in_turn(connection, sql, parameters, dialect)
        # Behind a pooler too: asyncpg ends preparing with Flush, and the pooler keeps the server until the Sync of the
        # execution, before which nothing else is sent.
        if setting is None:
            return _fetch(connection, sql, parameters, dialect)
        return _fetch_in_own(connection, sql, parameters, dialect, setting)

    async def open(
        self, connection: Any, sql: str, parameters: Sequence[Any], *, dialect: Any
    ) -> "AsyncpgCursor":
        """See `Driver`."""
        async with turn_on(connection):
            if not is_begun(connection):
                await begin(connection)
            statement, columns = await prepared(connection, sql, dialect)
            return AsyncpgCursor(connection, await statement.cursor(*parameters), columns)

    def can_write(self, connection: Any, engine: Any) -> bool:
        """See `Driver`."""
        return True

    async def write(
        self,
        connection: Any,
        sql: str,
        rows: Sequence[Sequence[Any]],
        *,
        dialect: Any,
        in_transaction: bool,
        returns: bool,
        counts: bool,
    ) -> Answer:
        """See `Driver`; what goes for many rows is pipelined."""
        counted = counts and len(rows) > 1 and not returns
        if counted:
            sql += " RETURNING 1"
        if in_transaction:
            async with turn_on(connection):
                if not is_begun(connection):
                    await begin(connection)
                answer = await _write(connection, sql, rows, dialect, returns=returns or counted)
        elif len(rows) == 1:
            answer = await _write(connection, sql, rows, dialect, returns=returns)
        else:
            async with driver_connection(connection).transaction():
                answer = await _write(connection, sql, rows, dialect, returns=returns or counted)
        return Answer(answer.describe, (), len(answer.rows)) if counted else answer

    async def position(self, connection: Any) -> Position:
        """See `Driver`; in a transaction, so that a pooler sends both messages to one server."""
        raw = driver_connection(connection)
        async with raw.transaction():
            return Position(*await raw.fetchrow(POSITION))

    def was_stale(self, error: Exception) -> bool:
        """See `Driver`."""
        return isinstance(error, asyncpg.InvalidCachedStatementError | asyncpg.OutdatedSchemaCacheError)


class AsyncpgCursor:
    """A portal; it ends with its transaction."""

    def __init__(self, connection: Any, portal: Any, columns: Sequence[Any]) -> None:
        self._connection, self._portal = connection, portal
        self._transaction = transaction_on(connection)
        self.describe = lambda: description(columns)

    async def fetch(self, most: int) -> Sequence[Any]:
        """See `Cursor`."""
        async with turn_on(self._connection):
            if transaction_on(self._connection) is not self._transaction:
                # The connection may be somebody else's by now, whose transaction an unknown portal would abort.
                raise ResourceClosedError(
                    "The transaction of this stream has ended, and its cursor with it.  Read the stream to its end "
                    "before commit(), rollback() or close(), or write in a session of its own meanwhile."
                )
            return await self._portal.fetch(most)

    async def close(self) -> None:
        """See `Cursor`: there is no message for it that asyncpg would send."""


async def _fetch(connection: Any, sql: str, parameters: Sequence[Any], dialect: Any) -> Answer:
    kept = kept_statement(connection, sql, dialect) or await prepared(connection, sql, dialect)
    statement, columns = kept[0], kept[1]
    rows, _ = await execute(statement, parameters)
    return Answer(lambda: description(columns), rows, len(rows))


async def _fetch_in_turn(connection: Any, sql: str, parameters: Sequence[Any], dialect: Any) -> Answer:
    """In the transaction that the adapter has begun, or begins."""
    async with turn_on(connection):
        if not is_begun(connection):
            await begin(connection)
        return await _fetch(connection, sql, parameters, dialect)


async def _fetch_in_own(
    connection: Any, sql: str, parameters: Sequence[Any], dialect: Any, setting: LocalSetting
) -> Answer:
    """In a transaction of its own, whose end takes the setting back, whatever happens to the read."""
    async with driver_connection(connection).transaction():
        await _fetch(connection, SET_LOCALLY, setting, dialect)
        return await _fetch(connection, sql, parameters, dialect)


async def _write(
    connection: Any, sql: str, rows: Sequence[Sequence[Any]], dialect: Any, *, returns: bool
) -> Answer:
    kept = kept_statement(connection, sql, dialect) or await prepared(connection, sql, dialect)
    statement, columns = kept[0], kept[1]
    if len(rows) == 1:
        returned, status = await execute(statement, rows[0])
        return Answer(lambda: description(columns), returned, _counted(status.decode()))
    if not returns:
        await statement.executemany(rows)
        return Answer(lambda: None, (), -1)
    returned = await statement.fetchmany(rows)
    return Answer(lambda: description(columns), returned, len(returned))


def _counted(status: str) -> int:
    """The number in `UPDATE 3`, `INSERT 0 3`."""
    number = status.rpartition(" ")[2]
    return int(number) if number.isdigit() else -1


def description(columns: Sequence[Any]) -> list[tuple[Any, ...]]:
    """asyncpg's columns as DB-API has them: name and type."""
    return [(column.name, column.type.oid, None, None, None, None, None) for column in columns]
