"""SQLite by aiosqlite: an embedded file that several tasks and processes may use at once.

WAL lets readers go on beside the one writer.  A writing transaction takes its lock at once (BEGIN IMMEDIATE),
since one that read first cannot wait: SQLite fails it immediately when another has written meanwhile, whatever
the busy timeout (SQLite documentation, "Isolation in SQLite", and SQLITE_BUSY_SNAPSHOT).  A transaction that
only reads takes none.
"""

import re
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.pool import StaticPool

from catalysis.settings import DatabaseSettings

_START = r"(?:[\s(]|--[^\n]*\n|/\*.*?\*/)*"
_READS = "SELECT|VALUES|EXPLAIN|PRAGMA|VACUUM|ATTACH|DETACH|BEGIN|COMMIT|END|ROLLBACK|RELEASE"
_NEEDS_NO_LOCK = re.compile(
    rf"{_START}(?:(?:{_READS})\b|WITH\b(?!.*\b(?:INSERT|UPDATE|DELETE|REPLACE)\b))", re.IGNORECASE | re.DOTALL
)


def engine_options(url: URL, settings: DatabaseSettings) -> dict[str, Any]:
    """What the driver and the pool are told; a database in memory lives in one connection and has no pool."""
    options: dict[str, Any] = {
        # The driver begins no transaction by itself: `_begin_immediate` does.
        "connect_args": {"timeout": settings.busy_timeout, "isolation_level": None}
    }
    if not _in_memory(url):
        options |= {
            "pool_size": settings.pool_size,
            "max_overflow": settings.max_overflow,
            "pool_timeout": settings.pool_timeout,
        }
    return options


def _in_memory(url: URL) -> bool:
    dialect: Any = url.get_dialect()
    return issubclass(dialect.get_pool_class(url), StaticPool)


def prepare(engine: Engine) -> None:
    """Set up every connection the engine will open, and how its transactions begin."""
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "before_cursor_execute", _begin_immediate)


def _on_connect(connection: Any, record: Any) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_immediate(
    conn: Connection, cursor: Any, sql: str, parameters: Any, context: Any, many: bool
) -> None:
    driver_connection: Any = conn.connection.driver_connection
    if driver_connection.in_transaction or _NEEDS_NO_LOCK.match(sql):
        return
    if conn.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        cursor.execute("BEGIN IMMEDIATE")
