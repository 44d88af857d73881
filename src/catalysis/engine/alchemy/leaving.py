"""How connections are left: reset for the next borrower where the last one changed the session, and closed in time."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, event

_LEFT = "catalysis_left_state"
"""Under this key a connection's `info` has the SQL that takes back what statements may have left in the session."""
_RESET = "_catalysis_reset"
"""Under this name a dialect keeps that SQL."""


def resets_session(engine: Engine, leaves_state: Callable[[str], bool], sql: str) -> None:
    """Take back what a borrower has left in the session, by `sql`, before the connection is lent again.

    The dialect is where every statement passes that SQLAlchemy runs, and it costs the native ones nothing to step in
    there.
    """
    dialect: Any = engine.dialect
    dialect.__dict__[_RESET] = sql
    for name in ("do_execute", "do_executemany", "do_execute_no_params"):
        setattr(dialect, name, _watched(getattr(dialect, name), leaves_state, sql))
    event.listen(engine, "reset", forget_session_state)


def _watched(
    execute: Callable[..., None], leaves_state: Callable[[str], bool], sql: str
) -> Callable[..., None]:
    def watched(cursor: Any, statement: str, *rest: Any, **more: Any) -> None:
        if leaves_state(statement):
            context = more.get("context") or (rest[-1] if rest else None)
            if (connection := getattr(context, "root_connection", None)) is not None:
                connection.info[_LEFT] = sql
        execute(cursor, statement, *rest, **more)

    return watched


def note_left(connection: Any) -> None:
    """A native statement on this connection of SQLAlchemy's may leave something in the session."""
    if (sql := connection.dialect.__dict__.get(_RESET)) is not None:
        connection.info[_LEFT] = sql


def forget_session_state(adapter: Any, record: Any, state: Any) -> None:
    """Listener to the pool's `reset`; if it fails, the pool throws the connection away."""
    if _LEFT not in record.info or not state.asyncio_safe or adapter is None:
        return
    if not state.transaction_was_reset:
        adapter.rollback()
    run(adapter, record.info[_LEFT])
    del record.info[_LEFT]


def run(adapter: Any, sql: str) -> None:
    """Have the driver run statements as they are, by its simple protocol; inside a greenlet (asyncpg's)."""

    def execute(raw: Any) -> Any:
        return raw.execute(sql)

    adapter.run_async(execute)


def closes_in_time(engine: Engine) -> None:
    """Close connections as those are closed that were given up: politely, but not for longer than two seconds.

    asyncpg waits for the server to close, and that may be gone.
    """
    dialect: Any = engine.dialect
    dialect.do_close = dialect.do_terminate
