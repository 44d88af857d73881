"""Connections out of SQLAlchemy's pool and back, waiting only where there is something to wait for."""

import asyncio
import logging
import time
from typing import Any, NoReturn

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.pool.base import reset_commit  # pyright: ignore[reportPrivateUsage]
from sqlalchemy.util.concurrency import greenlet_spawn

from catalysis.engine.alchemy.leaving import forget_session_state
from catalysis.engine.alchemy.lending import exhausted, note_back, note_lent
from catalysis.errors import NoAnswer

_log = logging.getLogger(__name__)

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


async def check_out(engine: Engine, session: Any) -> Any:
    """A connection of the pool for one statement of the session, as SQLAlchemy's own proxy of it.

    Raises:
        PoolExhausted: none came free in time.
        DBAPIError: the database let nobody in.
    """
    pool: Any = engine.pool
    try:
        if _is_exhausted(pool):
            await _one_back(pool)
        proxy = pool.connect() if _has_one_ready(pool) else await greenlet_spawn(engine.raw_connection)
    except PoolTimeout as late:
        raise exhausted(engine) from late
    note_lent(pool, proxy, session)
    return proxy


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
        raise PoolTimeout("all connections are lent") from None
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
    note_back(pool, proxy)
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
        and not heard.checkin
        and (not heard.reset or all(listener is forget_session_state for listener in heard.reset))
        and pool._reset_on_return is not reset_commit
        and not pool._pool._queue.full()
    )


def outdate(pool: Any) -> None:
    """Let no connection of the pool be lent again that is open now: the server went away, or is not the right one."""
    pool._invalidate_time = time.time()


def discard(engine: Engine, proxy: Any, held: Connection | None, error: BaseException) -> None:
    """Free the connection's place in the pool at once, and have what it was doing cancelled and itself closed.

    That takes a round trip, which nobody waits for: closed without it, the server would go on with the statement.
    `held` is SQLAlchemy's connection, if a transaction has it; it counts as invalidated.
    """
    adapter = proxy.dbapi_connection
    if adapter is None:
        return
    note_back(proxy._pool, proxy)
    if proxy.is_detached or not _is_plain_queue(
        proxy._pool
    ):  # in other pools it may be the only one there is
        _invalidate(proxy, held, error)
        return
    proxy.detach()
    _invalidate(proxy, held, error)
    unwaited(greenlet_spawn(engine.dialect.do_terminate, adapter))


def _invalidate(proxy: Any, held: Connection | None, error: BaseException) -> None:
    if held is not None and not (held.closed or held.invalidated):
        held.invalidate(error)
    elif proxy.is_valid:
        proxy.invalidate(error)


_background: set[asyncio.Task[None]] = set()


def unwaited(work: Any) -> None:
    """Let it end by itself: who would wait has been cancelled."""
    task = asyncio.ensure_future(work)
    _background.add(task)
    task.add_done_callback(_ended)


LONGEST_CLOSING = 5.0
"""Seconds; a connection that was given up is closed by force after two."""


async def wait_until_closed() -> None:
    """Wait for what this event loop still closes: ended before, it would leave the server at the statement."""
    loop = asyncio.get_running_loop()
    if own := [task for task in _background if task.get_loop() is loop]:
        await asyncio.wait(own, timeout=LONGEST_CLOSING)


def _ended(task: asyncio.Task[None]) -> None:
    _background.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.debug("A connection that was given up could not be closed: %s", type(error).__name__)


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
    if isinstance(error, TimeoutError):
        pool: Any = engine.pool
        discard(engine, proxy, connection, error)
        pool._invalidate(proxy, error, False)  # the others lead to the same server
        raise NoAnswer(sql, None, error) from error
    try:
        adapted(proxy)._handle_exception(error)
    except engine.dialect.loaded_dbapi.Error as translated:
        dialect: Any = engine.dialect
        if type(translated).__name__ in ("InvalidCachedStatementError", "InternalServerError"):
            dialect._invalidate_schema_cache()
        owner._handle_dbapi_exception(translated, sql, parameters, None, None)
    raise error
