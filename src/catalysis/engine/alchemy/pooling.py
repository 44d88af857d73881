"""Connections out of SQLAlchemy's pool and back, waiting only where there is something to wait for."""

import asyncio
import time
from typing import Any, NoReturn

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.pool.base import reset_commit  # pyright: ignore[reportPrivateUsage]
from sqlalchemy.util.concurrency import greenlet_spawn

_ENGINE_EVENTS = (
    "before_execute",
    "after_execute",
    "before_cursor_execute",
    "after_cursor_execute",
    "engine_connect",
)


def foreign_listeners(target: Any, own: frozenset[Any]) -> bool:
    """Whether somebody but us listens to the statements of an engine or connection."""
    if not (target._has_events or target.engine._has_events):  # a connection hears its engine's listeners too
        return False
    heard = target.dispatch
    for name in _ENGINE_EVENTS:
        for listener in getattr(heard, name):
            if listener not in own:
                return True
    return False


def hears_begin(engine: Any, own: frozenset[Any]) -> bool:
    """Whether somebody but us hears of each BEGIN of the engine."""
    return engine._has_events and any(listener not in own for listener in engine.dispatch.begin)


def replaces_execution(engine: Any) -> bool:
    """Whether somebody executes statements in the dialect's place (`do_execute`)."""
    heard = engine.dialect.dispatch
    return engine.dialect._has_events and bool(heard.do_execute or heard.do_execute_no_params)


def logs_statements(engine: Any) -> bool:
    """Whether the engine writes its statements to a log."""
    return engine._should_log_info()


def engine_options(engine: Any) -> Any:
    """Execution options that the engine adds to every statement."""
    return engine._execution_options


# --- Checking out and in --------------------------------------------------------------------------


async def check_out(engine: Engine) -> Any:
    """A connection of the pool, as SQLAlchemy's own proxy of it.

    Raises:
        TimeoutError: (SQLAlchemy's) none came free in time.
        DBAPIError: the database let nobody in.
    """
    pool: Any = engine.pool
    if _is_exhausted(pool):
        await _one_back(pool)
    if _has_one_ready(pool):
        return pool.connect()
    return await greenlet_spawn(engine.raw_connection)


def _is_exhausted(pool: Any) -> bool:
    """Whether the pool has lent all that it may open."""
    return _is_plain_queue(pool) and -1 < pool._max_overflow <= pool._overflow and pool._pool._queue.empty()


async def _one_back(pool: Any) -> None:
    """Wait in the pool's own line until a connection is back, and leave it there as the next to be taken.

    SQLAlchemy waits in the same line, but takes a greenlet and a task for it.
    """
    queue = pool._pool._queue
    try:
        async with asyncio.timeout(pool._timeout):
            record = await queue.get()
    except TimeoutError:
        raise PoolTimeout(
            f"QueuePool limit of size {pool.size()} overflow {pool.overflow()} reached, connection timed out, "
            f"timeout {pool._timeout:0.2f}",
            code="3o7r",
        ) from None
    if pool._pool.use_lifo:
        queue._queue.append(record)
    else:
        queue._queue.appendleft(record)


def _has_one_ready(pool: Any) -> bool:
    if not _is_plain_queue(pool) or pool._pre_ping or pool.dispatch.checkout:
        return False
    queue = pool._pool._queue
    if queue.empty():
        return False
    record = queue._queue[-1 if pool._pool.use_lifo else 0]
    return not (
        record._is_hard_or_soft_invalidated()
        or (pool._recycle > -1 and time.time() - record.starttime > pool._recycle)
    )


async def check_in(engine: Engine, proxy: Any) -> None:
    """Give a connection back on which nothing but reads happened, outside a transaction: there is nothing to reset."""
    pool = proxy._pool
    if _takes_at_once(pool):
        proxy._checkin(transaction_was_reset=True)
    else:
        await asyncio.shield(greenlet_spawn(proxy._checkin, transaction_was_reset=True))


def _is_plain_queue(pool: Any) -> bool:
    return type(pool) is AsyncAdaptedQueuePool


def _takes_at_once(pool: Any) -> bool:
    heard = pool.dispatch
    return (
        _is_plain_queue(pool)
        and not (heard.reset or heard.checkin)
        and pool._reset_on_return is not reset_commit
        and not pool._pool._queue.full()
    )


def discard(proxy: Any, error: BaseException) -> None:
    """Close the connection at once and free its place in the pool; what it was doing is given up."""
    if proxy.is_valid:
        proxy.invalidate(error)


# --- SQLAlchemy's adapters of the drivers ---------------------------------------------------------


def adapted(proxy: Any) -> Any:
    """SQLAlchemy's adapter of the driver's connection."""
    return proxy.dbapi_connection


def proxy_of(connection: Any) -> Any:
    """The pool's proxy in a SQLAlchemy connection; None if it is closed or broken."""
    if connection.closed or connection.invalidated:
        return None
    return connection._dbapi_connection


def raise_translated(
    connection: Connection | None, engine: Engine, proxy: Any, error: Exception, sql: str, parameters: Any
) -> NoReturn:
    """Raise the driver's error as SQLAlchemy does, with its events, and its care for broken connections.

    Inside a greenlet.  `connection` is None for one that was checked out for this statement alone.
    """
    owner: Any = connection or Connection(engine, connection=proxy, _has_events=False)
    try:
        adapted(proxy)._handle_exception(error)
    except engine.dialect.loaded_dbapi.Error as translated:
        dialect: Any = engine.dialect
        if type(translated).__name__ in ("InvalidCachedStatementError", "InternalServerError"):
            dialect._invalidate_schema_cache()
        owner._handle_dbapi_exception(translated, sql, parameters, None, None)
    raise error
