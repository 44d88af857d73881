"""Connections out of SQLAlchemy's pool and back, waiting only where there is something to wait for."""

import asyncio
import logging
import time
import weakref
from contextlib import suppress
from typing import Any, NoReturn

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.pool import base as pools
from sqlalchemy.pool.base import reset_commit  # pyright: ignore[reportPrivateUsage]
from sqlalchemy.util.concurrency import greenlet_spawn

from catalysis.engine.alchemy.leaving import forget_session_state
from catalysis.engine.alchemy.lending import exhausted, note_back, note_lent, note_moved
from catalysis.errors import NoAnswer
from catalysis.events import tell_of_commit

_log = logging.getLogger(__name__)

_pools: Any = pools
_Record, _Proxy = _pools._ConnectionRecord, _pools._ConnectionFairy

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


def interference(bind: Any, own: frozenset[Any]) -> str | None:
    """What an engine or connection does to its statements that we would not, or who listens to them but us."""
    engine = bind.engine
    heard = engine.dialect.dispatch
    if foreign_listeners(bind, own) or (  # or who executes them in the dialect's place
        engine.dialect._has_events and bool(heard.do_execute or heard.do_execute_no_params)
    ):
        return "a listener of the engine's statements"
    if engine._should_log_info():
        return "the engine logs its statements"
    return "execution options of the engine" if engine._execution_options else None


# --- Checking out and in --------------------------------------------------------------------------


async def check_out(engine: Engine, session: Any) -> Any:
    """A connection of the pool for one statement of the session.

    One that is ready comes as the pool's own record of it: who is sure to give it back needs no proxy, which is there
    to be told when it is forgotten.  Anything else comes as SQLAlchemy's proxy.

    Raises:
        PoolExhausted: none came free in time.
        DBAPIError: the database let nobody in.
    """
    pool: Any = engine.pool
    lent = _take_ready(pool)
    if lent is None:
        try:
            if _is_exhausted(pool):
                await _one_back(pool)
            lent = _take_ready(pool) or await greenlet_spawn(engine.raw_connection)
        except PoolTimeout as late:
            raise exhausted(engine) from late
        except BaseException:
            hand_on(pool)
            raise
    note_lent(pool, lent, session)
    return lent


def _take_ready(pool: Any) -> Any:
    """The record of a connection that is open and has nothing to be asked or told of; None if there is none."""
    if not _is_plain_queue(pool):
        return None
    queue = pool._pool._queue
    ready = queue._queue
    if not ready or pool._pre_ping or pool.dispatch.checkout or pool._should_log_debug():
        return None
    record = ready[-1 if pool._pool.use_lifo else 0]
    if (
        record.dbapi_connection is None
        or record.starttime < pool._invalidate_time
        or record.starttime < record._soft_invalidate_time
        or (pool._recycle > -1 and time.time() - record.starttime > pool._recycle)
    ):
        return None
    return queue._get()  # `get_nowait` also wakes who waits for room, and nobody does


def _is_exhausted(pool: Any) -> bool:
    """Whether the pool has lent all that it may open."""
    return _is_plain_queue(pool) and -1 < pool._max_overflow <= pool._overflow and pool._pool._queue.empty()


async def _one_back(pool: Any) -> None:
    """Wait in the pool's own line until a connection is back, and leave it there as the next to be taken.

    SQLAlchemy waits in the same line, but takes a greenlet and a task for it.  Whoever is woken and finds that another
    was quicker (a task that reads again at once) goes on waiting as the first; asyncio's queue sends it to the end.
    """
    queue = pool._pool._queue
    line = queue._getters
    stand_in, waiter = line.append, None
    try:
        async with asyncio.timeout(pool._timeout):
            while queue.empty():
                waiter = asyncio.get_running_loop().create_future()
                stand_in(waiter)
                await waiter
                stand_in = line.appendleft
    except BaseException as ended:
        with suppress(ValueError):
            line.remove(waiter)
        queue._wakeup_next(line)  # a connection may have been meant for this one, who leaves
        if isinstance(ended, TimeoutError):
            raise PoolTimeout("all connections are lent") from None
        raise


def hand_on(pool: Any) -> None:
    """A connection could not be opened: there is room, and who waits in line may try, or waits for nobody.

    What is put in line is a record without a connection, as SQLAlchemy's pool has them after one was lost.
    """
    if not _is_plain_queue(pool):
        return
    queue = pool._pool._queue
    if queue._getters and queue.empty() and pool._inc_overflow():
        queue._put(_Record(pool, connect=False))
        queue._wakeup_next(queue._getters)


async def check_in(lent: Any) -> None:
    """Give a connection back on which nothing but reads happened, outside a transaction: there is nothing to reset."""
    if not check_in_at_once(lent):
        await asyncio.shield(greenlet_spawn(proxied(lent)._checkin, transaction_was_reset=True))


def check_in_at_once(lent: Any) -> bool:
    """The same where nothing has to be waited for; False where that is not so, and it is still to be checked in."""
    pool = pool_of(lent)
    note_back(pool, lent)
    if not _takes_at_once(pool):
        return False
    if type(lent) is _Record and not lent.finalize_callback:
        queue = pool._pool._queue
        queue._put(lent)
        if queue._getters:
            queue._wakeup_next(queue._getters)
    else:
        proxied(lent)._checkin(transaction_was_reset=True)
    return True


def pool_of(lent: Any) -> Any:
    """The pool that a connection came from, which is not its engine's any more once that was disposed of."""
    return lent._ConnectionRecord__pool if type(lent) is _Record else lent._pool


def proxied(lent: Any) -> Any:
    """SQLAlchemy's proxy of what was checked out, made now where there was none; from now on that is what is lent."""
    if type(lent) is not _Record:
        return lent
    pool = pool_of(lent)
    proxy: Any = _Proxy(pool, lent.dbapi_connection, lent, False)
    proxy._counter = 1
    lent.fairy_ref = weakref.ref(proxy, _unheard)
    note_moved(pool, lent, proxy)
    return proxy


def _unheard(reference: Any) -> None:
    """A reference with a callback is cleared before the proxy's finalizer asks for it, as SQLAlchemy's own are."""


def _is_plain_queue(pool: Any) -> bool:
    return type(pool) is AsyncAdaptedQueuePool


def _takes_at_once(pool: Any) -> bool:
    heard = pool.dispatch
    if not _is_plain_queue(pool) or pool._reset_on_return is reset_commit:
        return False
    for listener in (*heard.checkin, *heard.reset):
        if listener is not forget_session_state and listener is not tell_of_commit:
            return False
    queue = pool._pool._queue
    return not 0 < queue._maxsize <= len(queue._queue)


def outdate(pool: Any) -> None:
    """Let no connection of the pool be lent again that is open now: the server went away, or is not the right one."""
    pool._invalidate_time = time.time()


def discard(engine: Engine, lent: Any, held: Connection | None, error: BaseException) -> None:
    """Free the connection's place in the pool at once, and have what it was doing cancelled and itself closed.

    That takes a round trip, which nobody waits for: closed without it, the server would go on with the statement.
    `held` is SQLAlchemy's connection, if a transaction has it; it counts as invalidated.
    """
    proxy = proxied(lent)
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


def adapted(lent: Any) -> Any:
    """SQLAlchemy's adapter of the driver's connection."""
    return lent.dbapi_connection


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
