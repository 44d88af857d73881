"""SQLite by aiosqlite: an embedded file that several tasks and processes may use at once.

WAL lets readers go on beside the one writer.  A writing transaction takes its lock at once (BEGIN IMMEDIATE),
since one that read first cannot wait: SQLite fails it immediately when another has written meanwhile, whatever
the busy timeout (SQLite documentation, "Isolation in SQLite", and SQLITE_BUSY_SNAPSHOT).  A transaction that
only reads takes none.  SAVEPOINT takes it too, although only reads may follow: outside a transaction it would
begin one that cannot wait either, and `begin_nested()` is there for writes.
"""

import re
import sqlite3
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from catalysis.settings import DatabaseSettings

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
    """Set up every connection the engine will open, and how its transactions begin.

    `isolation_level` is the one the engine was made with, which SQLAlchemy keeps to itself.
    """

    def before_statement(
        conn: Connection, cursor: Any, sql: str, parameters: Any, context: Any, many: bool
    ) -> None:
        if conn.get_execution_options().get("isolation_level", isolation_level) != "AUTOCOMMIT":
            _begin_immediate(conn, cursor, sql)

    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "before_cursor_execute", before_statement)


def _on_connect(connection: Any, record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys=ON")
    try:
        cursor.execute("PRAGMA journal_mode=WAL")
    except sqlite3.OperationalError as refused:
        if refused.sqlite_errorcode & 0xFF != sqlite3.SQLITE_READONLY:
            raise
    cursor.close()


def _begin_immediate(conn: Connection, cursor: Any, sql: str) -> None:
    driver_connection: Any = conn.connection.driver_connection
    if not driver_connection.in_transaction and not _only_reads(sql):
        cursor.execute("BEGIN IMMEDIATE")


def _only_reads(sql: str) -> bool:
    if _WITH.match(sql):
        return not _WRITES.search(_NOT_CODE.sub(" ", sql))
    return bool(_READS.match(sql))
