"""SQLite by aiosqlite: an embedded file that several tasks and processes may use at once.

WAL lets readers go on beside the one writer.  A writing transaction takes its lock at once (BEGIN IMMEDIATE),
since one that read first cannot wait: SQLite fails it immediately when another has written meanwhile, whatever
the busy timeout (SQLite documentation, "Isolation in SQLite", and SQLITE_BUSY_SNAPSHOT).  A transaction that
only reads takes none.  SAVEPOINT takes it too, although only reads may follow: outside a transaction it would
begin one that cannot wait either, and `begin_nested()` is there for writes.
"""

import asyncio
import logging
import re
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, ExceptionContext

from catalysis.engine.alchemy.adapters import driver_connection, turn_on
from catalysis.engine.alchemy.owning import LocalSetting
from catalysis.engine.alchemy.spoiling import note_end
from catalysis.engine.drivers.base import Answer
from catalysis.settings import DatabaseSettings

T = TypeVar("T")

_START = r"(?:[\s(]|--[^\n]*\n|/\*.*?\*/)*"
_READS = re.compile(
    rf"{_START}(?:SELECT|VALUES|EXPLAIN|PRAGMA|VACUUM|ATTACH|DETACH|BEGIN|COMMIT|END|ROLLBACK|RELEASE)\b",
    re.IGNORECASE | re.DOTALL,
)
_WITH = re.compile(rf"{_START}WITH\b", re.IGNORECASE | re.DOTALL)
_WRITES = re.compile(r"\b(?:INSERT|UPDATE|DELETE|REPLACE\s+INTO)\b", re.IGNORECASE)
_NOT_CODE = re.compile(r"""'[^']*'|"[^"]*"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?\*/""", re.DOTALL)


def connect_args(settings: DatabaseSettings) -> dict[str, Any]:
    """What the driver is told; it begins no transaction by itself, `_begin_immediate` does."""
    return {"timeout": settings.busy_timeout, "isolation_level": None}


def prepare(engine: Engine, isolation_level: str | None) -> None:
    """Set up every connection the engine will open, and how its transactions begin (`retval`: SQLAlchemy wraps others).

    `isolation_level` is the one the engine was made with, which SQLAlchemy keeps to itself.
    """

    event.listen(engine, "connect", _on_connect)
    hook = _before_statement_in_autocommit if isolation_level == "AUTOCOMMIT" else _before_statement
    event.listen(engine, "before_cursor_execute", hook, retval=True)
    event.listen(engine, "handle_error", _interrupt_cancelled)
    event.listen(engine, "handle_error", note_end)
    event.listen(engine, "invalidate", _roll_back_first)


def _roll_back_first(connection: Any, record: Any, error: BaseException | None) -> None:
    """Roll back what is to be closed: a cursor that some error's frames hold would keep it open, write lock and all.

    Source: SQLite documentation, "sqlite3_close_v2": it becomes a zombie until its last statement is gone.
    """
    try:
        raw = driver_connection(connection)
        roll_back = raw._conn.rollback
    except (AttributeError, ValueError):  # it is closed
        return
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.add_done_callback(_ignored)
    raw._tx.put_nowait((future, roll_back))  # the thread takes it before the closing


def _ignored(future: "asyncio.Future[None]") -> None:
    if not future.cancelled():
        future.exception()


def quieten() -> None:
    """Keep parameters out of aiosqlite's debug log, unless somebody has set that logger's level on purpose."""
    logger = logging.getLogger("aiosqlite")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)


AGAIN = (0.02, 0.2)
"""Seconds after which a cancelled statement is interrupted once more: it may not have begun when it was cancelled."""


def _interrupt_cancelled(failed: ExceptionContext) -> None:
    """For the statements that SQLAlchemy runs: its cancelled ones would go on in the thread, and closing wait for them.

    SQLAlchemy throws the connection away, so nobody else's statement can be met.
    """
    if failed.connection is None or not isinstance(failed.original_exception, asyncio.CancelledError):
        return
    if failed.connection.closed or failed.connection.invalidated:
        return
    raw: Any = failed.connection.connection.driver_connection

    def interrupt() -> None:
        with suppress(ValueError, sqlite3.Error):  # it is closed
            raw._conn.interrupt()

    interrupt()
    for seconds in AGAIN:
        asyncio.get_running_loop().call_later(seconds, interrupt)


def _on_connect(connection: Any, record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys=ON")
    try:
        cursor.execute("PRAGMA journal_mode=WAL")
    except sqlite3.OperationalError as refused:
        if refused.sqlite_errorcode & 0xFF != sqlite3.SQLITE_READONLY:
            raise
    cursor.close()


def _before_statement(
    conn: Connection, cursor: Any, sql: str, parameters: Any, context: Any, many: bool
) -> tuple[str, Any]:
    if conn.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        _begin_immediate(conn, cursor, sql)
    return sql, parameters


def _before_statement_in_autocommit(
    conn: Connection, cursor: Any, sql: str, parameters: Any, context: Any, many: bool
) -> tuple[str, Any]:
    if conn.get_execution_options().get("isolation_level", "AUTOCOMMIT") != "AUTOCOMMIT":
        _begin_immediate(conn, cursor, sql)
    return sql, parameters


def _begin_immediate(conn: Connection, cursor: Any, sql: str) -> None:
    driver_connection: Any = conn.connection.driver_connection
    if not driver_connection.in_transaction and not _only_reads(sql):
        cursor.execute("BEGIN IMMEDIATE")


def _begins(engine: Engine) -> bool:
    """Whether transactions that write begin with BEGIN IMMEDIATE, by our listener."""
    heard: Any = engine.dispatch
    return _before_statement in heard.before_cursor_execute


OWN_HOOKS = frozenset({_before_statement, _before_statement_in_autocommit})


def _only_reads(sql: str) -> bool:
    if _WITH.match(sql):
        return not _WRITES.search(_NOT_CODE.sub(" ", sql))
    return bool(_READS.match(sql))


class SqliteDriver:
    """Reads in one hop to the connection's thread; see `Driver`."""

    plans_by_limit = False
    gives_text = True
    survives_cancellation = True

    def reads_outside(self, connection: Any, dialect: Any) -> bool:
        """See `Driver`: Python's driver begins no transaction before a SELECT, so that there is none to miss."""
        return True

    async def fetch(
        self,
        connection: Any,
        sql: str,
        parameters: Sequence[Any],
        *,
        dialect: Any,
        in_transaction: bool,
        setting: LocalSetting | None = None,
    ) -> Answer:
        """See `Driver`; there are no settings."""
        if in_transaction:
            async with turn_on(connection):
                return await _fetch(driver_connection(connection), sql, parameters)
        return await _fetch(driver_connection(connection), sql, parameters)

    async def open(
        self, connection: Any, sql: str, parameters: Sequence[Any], *, dialect: Any
    ) -> "SqliteCursor":
        """See `Driver`."""
        raw = driver_connection(connection)
        return SqliteCursor(raw, await _in_thread(raw, lambda database: database.execute(sql, parameters)))

    def can_write(self, connection: Any, engine: Engine) -> bool:
        """See `Driver`: an engine that is ours and not in autocommit, or one where Python's driver begins by itself."""
        return _begins(engine) or driver_connection(connection).isolation_level is not None

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
        """See `Driver`."""
        database = driver_connection(connection)
        if in_transaction:
            async with turn_on(connection):
                return await _write(database, sql, rows, in_transaction=True, returns=returns)
        return await _write(database, sql, rows, in_transaction=False, returns=returns)

    async def position(self, connection: Any) -> None:
        """See `Driver`: a file has no replicas."""

    def was_stale(self, error: Exception) -> bool:
        """See `Driver`: SQLite prepares anew by itself."""
        return False


class SqliteCursor:
    """A cursor of SQLite's, which reads on as rows are asked for."""

    def __init__(self, connection: Any, cursor: sqlite3.Cursor) -> None:
        self._connection, self._cursor = connection, cursor
        self.describe = lambda: cursor.description

    async def fetch(self, most: int) -> Sequence[Any]:
        """See `Cursor`."""
        return await _in_thread(self._connection, lambda _: self._cursor.fetchmany(most))

    async def close(self) -> None:
        """See `Cursor`."""
        await _in_thread(self._connection, lambda _: self._cursor.close())


async def _fetch(connection: Any, sql: str, parameters: Sequence[Any]) -> Answer:
    def work(database: sqlite3.Connection) -> Answer:
        cursor = database.execute(sql, parameters)
        described = cursor.description
        return Answer(lambda: described, cursor.fetchall(), -1)

    return await _in_thread(connection, work)


async def _write(
    connection: Any, sql: str, rows: Sequence[Sequence[Any]], *, in_transaction: bool, returns: bool
) -> Answer:
    def work(database: sqlite3.Connection) -> Answer:
        if database.isolation_level is None and in_transaction and not database.in_transaction:
            database.execute("BEGIN IMMEDIATE")
        if database.isolation_level is None or in_transaction:
            return write(database)
        with database:  # Python's driver begins by itself, and leaves it to us to commit
            return write(database)

    def write(database: sqlite3.Connection) -> Answer:
        if len(rows) > 1 and not returns:
            cursor = database.executemany(sql, rows)
            return Answer(lambda: None, (), cursor.rowcount, cursor.lastrowid)
        returned, cursor = list[Any](), database.cursor()
        for row in rows:
            returned += cursor.execute(sql, row).fetchall()
        described, count = cursor.description, len(returned) if returns else cursor.rowcount
        return Answer(lambda: described, returned, count, cursor.lastrowid)

    return await _in_thread(connection, work)


async def _in_thread(connection: Any, work: Callable[[sqlite3.Connection], T]) -> T:
    """Do it all in one hop to the connection's thread; cancelled, it is interrupted."""
    database: sqlite3.Connection = (
        connection._conn
    )  # raises ValueError if it is closed, as everything of aiosqlite
    is_wanted, is_running = True, False
    answers = list[T]()  # the thread keeps what it returned last, so it returns nothing

    def work_if_wanted() -> None:
        nonlocal is_running
        if not is_wanted:
            return
        is_running = True
        try:
            answers.append(work(database))
        finally:
            is_running = False

    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    connection._tx.put_nowait((future, work_if_wanted))
    try:
        await future
    except asyncio.CancelledError:
        is_wanted = False
        if is_running:  # ours, since the thread does one thing after another
            database.interrupt()
        raise
    return answers.pop()
