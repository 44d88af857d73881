"""Functions in transactions: run, joined, and run again whole where the database says that this may help.

What is never run again: a part of a transaction, and a transaction that may have been committed.
"""

import asyncio
import inspect
import logging
import random
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, cast, get_args
from weakref import ref

from sqlalchemy.exc import DBAPIError
from sqlalchemy.util.concurrency import greenlet_spawn

from catalysis.engine.alchemy.spoiling import ABORTED, Spoilt, last_failure, why_aborted
from catalysis.engine.drivers import was_stale
from catalysis.engine.drivers.isolation import Isolation, begin_at
from catalysis.errors import CannotConnect, CommitOutcomeUnknown, NoAnswer, TransactionMisused, no_choice
from catalysis.session import Session

T = TypeVar("T")
P = ParamSpec("P")
Work = Callable[[Session], Awaitable[T]]
Nesting = Literal["join", "savepoint", "new"]


class OpensSessions(Protocol):
    """A database, which this module stands below."""

    def session(self, **options: Any) -> Session:
        """A new session."""
        ...


_log = logging.getLogger(__name__)

REPLAYABLE = frozenset({"40001", "40P01"})
"""SQLSTATEs after which a transaction may succeed if run again: serialization failure, deadlock.

Source: PostgreSQL documentation, "Serialization Failure Handling".
"""

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
"""Seconds: the bound of the first pause, which doubles each time, and of all."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How a function is to be run in a transaction; see `Database.transaction`."""

    retries: int = 5
    isolation: Isolation | None = None
    nested: Nesting = "join"
    tenant: Any = None

    def __post_init__(self) -> None:
        if not isinstance(cast("Any", self.retries), int) or self.retries < 0:
            raise ValueError(f"retries={self.retries!r}: give a whole number, 0 for none.")
        for name, choices in (("isolation", get_args(Isolation)), ("nested", get_args(Nesting))):
            given = getattr(self, name)
            if given not in choices and not (name == "isolation" and given is None):
                raise no_choice(name, given, choices)


@dataclass(slots=True, eq=False, weakref_slot=True)
class Running:
    """A transaction under way: whose it is, in which task, and what became of its parts."""

    database: OpensSessions
    task: asyncio.Task[Any] | None
    session: Session
    isolation: Isolation | None
    broken_by: BaseException | None = None
    """Why it must not be committed: a part of it failed that cannot be taken back, or replayed, alone."""

    def check_isolation(self, asked: Isolation | None) -> None:
        """Whether a part may have what it asks for; it cannot be given later."""
        levels = get_args(Isolation)
        if levels.index(asked or levels[0]) > levels.index(self.isolation or levels[0]):
            raise TransactionMisused(
                f"isolation={asked!r} was asked for inside a transaction that began "
                f"{f'at {self.isolation!r}' if self.isolation else 'without it'}: ask for it where that begins, or "
                "say nested='new' for a transaction apart."
            )

    def check_tenant(self, asked: Any) -> None:
        """Whether a part is of the same tenant."""
        if asked is not None and asked != self.session.tenant:
            raise TransactionMisused(
                "A part of a transaction asked for another tenant than the transaction's.  Say nested='new' for a "
                "transaction apart."
            )

    def check_whole(self) -> None:
        """Refuse to go on to the commit without a part."""
        if self.broken_by is None:
            return
        if is_replayable(self.broken_by):
            raise self.broken_by
        raise TransactionMisused(
            f"A part of this transaction failed ({type(self.broken_by).__name__}) and its error was caught, so that "
            "half of that part would be committed.  Let the error pass, or give the part nested='savepoint'."
        ) from self.broken_by


_running: ContextVar[tuple[ref[Running], ...]] = ContextVar("catalysis_running_transactions", default=())
"""Weak: a connection that is opened meanwhile keeps a copy of the context for as long as it stays in the pool."""


def _running_here(database: OpensSessions) -> Running | None:
    """The innermost transaction of this database in this very task: a task that it started does not share it."""
    task = asyncio.current_task()
    for each in reversed(_running.get()):
        running = each()
        if running is not None and running.database is database and running.task is task:
            return running
    return None


def is_replayable(failure: BaseException) -> bool:
    """Whether nothing of the transaction was kept, and it may succeed if the whole of it is run again.

    So it is after a serialization failure or deadlock, where SQLite's lock was not free in time, and where the
    connection was lost before COMMIT was sent, or to a server that takes no writes any more, or a prepared statement
    did not fit its changed table.  Not where the database did not answer in time: each time would take as long.

    A group, as of a TaskGroup, is so if one of its errors is, and the others are but of what came after.
    """
    if isinstance(failure, BaseExceptionGroup):
        parts = cast("BaseExceptionGroup[BaseException]", failure).exceptions
        replayable = [is_replayable(each) for each in parts]
        return any(replayable) and all(
            known or _sqlstate(each) == ABORTED for known, each in zip(replayable, parts, strict=True)
        )
    if isinstance(failure, TransactionMisused):
        return failure.sqlstate in REPLAYABLE
    if isinstance(failure, CommitOutcomeUnknown | NoAnswer) or not isinstance(failure, DBAPIError):
        return False
    if isinstance(failure, CannotConnect):
        return not isinstance(failure.orig, TimeoutError)
    if _sqlstate(failure) in REPLAYABLE or failure.connection_invalidated:
        return True
    if was_stale(failure):
        return True
    code = getattr(failure.orig, "sqlite_errorcode", None)  # the low byte; SQLITE_BUSY_SNAPSHOT has it too
    return code is not None and code & 0xFF == sqlite3.SQLITE_BUSY


def _sqlstate(failure: BaseException) -> str | None:
    return getattr(getattr(failure, "orig", None), "sqlstate", None)


def _given_up(why: Spoilt) -> TransactionMisused:
    """A statement failed, its error was caught, and the database has given the transaction up."""
    state = f", {why.sqlstate}" if why.sqlstate else ""
    misused = TransactionMisused(
        f"A statement of this transaction failed ({why.name}{state}) and its error was caught, but the database has "
        "given the whole transaction up: nothing was committed.  Let the error pass, or put what may fail inside "
        "`async with session.begin_nested():`."
    )
    misused.sqlstate = why.sqlstate
    return misused


async def run_transaction(database: OpensSessions, work: Work[T], terms: Terms) -> T:
    """Run `work` in a transaction of the database, or in the one that is running; see `Database.transaction`."""
    if not callable(cast("Any", work)):
        raise TypeError(
            f"A transaction runs a function that takes a session, not a {type(work).__name__}: give it without "
            "calling it, as in `db.transaction(work)`."
        )
    outer = None if terms.nested == "new" else _running_here(database)
    if outer is None:
        return await _run_outermost(database, work, terms)
    outer.check_isolation(terms.isolation)
    outer.check_tenant(terms.tenant)
    return await (_run_joined if terms.nested == "join" else _run_in_savepoint)(outer, work)


async def _run_outermost(database: OpensSessions, work: Work[T], terms: Terms) -> T:
    attempt = 0
    while True:
        session = database.session(**({} if terms.tenant is None else {"tenant": terms.tenant}))
        try:
            async with session:
                return await _run_once(
                    Running(database, asyncio.current_task(), session, terms.isolation), work
                )
        except Exception as failure:
            was_kept = (
                session.sync_session.has_committed
            )  # by the work itself, which then met with another failure
            if attempt == terms.retries or was_kept or not is_replayable(failure):
                raise
            attempt += 1
            _log.info(
                "%s is run again after %s (%d of %d)", _name(work), _why(failure), attempt, terms.retries
            )
        # Full jitter: those that met do not meet again.
        bound = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(attempt - 1, 16))
        await asyncio.sleep(random.uniform(0, bound))  # noqa: S311 - jitter, not a secret


async def _run_once(running: Running, work: Work[T]) -> T:
    session = running.session
    # Within `begin` SQLAlchemy refuses what comes after a commit or rollback of the work's own: it would be a second
    # transaction.
    async with session.begin():
        if running.isolation is not None:
            await begin_at(session, running.isolation)
        token = _running.set((*_running.get(), ref(running)))
        try:
            result = await _awaited(work, session)
        except DBAPIError as failure:
            first = last_failure(session.sync_session) if _sqlstate(failure) == ABORTED else None
            if first is not None and is_replayable(spoilt := _given_up(first)):
                raise spoilt from failure
            raise
        finally:
            _running.reset(token)
        running.check_whole()
        if session.in_transaction():
            if last_failure(session.sync_session) is not None:
                why = await greenlet_spawn(why_aborted, session.sync_session)
                if why is not None:
                    raise _given_up(why)
            await session.commit()
    return result


def _awaited(work: Work[T], session: Session) -> Awaitable[T]:
    """What `work` returns, to be awaited.

    Raises:
        TypeError: it cannot be.
    """
    given: Any = work(session)
    if not inspect.isawaitable(given):
        raise TypeError(
            f"What {_name(work)} returned, {type(given).__name__}, cannot be awaited.  A transaction runs a coroutine "
            "function: `async def` with a `return`, and no `yield`."
        )
    return given


def _name(work: Any) -> str:
    return getattr(work, "__qualname__", type(work).__name__)


def _why(failure: BaseException) -> str:
    if isinstance(failure, BaseExceptionGroup):
        parts = cast("BaseExceptionGroup[BaseException]", failure).exceptions
        return _why(next(each for each in parts if is_replayable(each)))
    state = getattr(failure, "sqlstate", None) or _sqlstate(failure)
    return state or type(getattr(failure, "orig", failure)).__name__


async def _run_joined(outer: Running, work: Work[T]) -> T:
    try:
        return await _awaited(work, outer.session)
    except BaseException as failure:
        outer.broken_by = outer.broken_by or failure
        raise


async def _run_in_savepoint(outer: Running, work: Work[T]) -> T:
    before = outer.broken_by
    try:
        async with outer.session.begin_nested():
            result = await _awaited(work, outer.session)
            if outer.broken_by is not before:
                outer.check_whole()
            return result
    except BaseException as failure:
        # What joined here is taken back with the savepoint.  After a serialization failure or deadlock the snapshot
        # and the locks from before it are the same, and so would the failure be.
        outer.broken_by = before or (failure if is_replayable(failure) else None)
        raise


class Transactional:
    """A decorator that runs a function in a transaction; see `Database.transactional`."""

    def __init__(self, database: Callable[[], OpensSessions], terms: Terms) -> None:
        """`database` is asked at each call."""
        self._database, self._terms = database, terms

    def __call__(
        self, function: Callable[Concatenate[Session, P], Awaitable[T]]
    ) -> Callable[P, Coroutine[Any, Any, T]]:
        """The function as its callers see it, also those who look at its signature, as FastAPI does.

        Raises:
            TypeError: it is a generator, or takes no session.
        """
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise TypeError(
                f"{_name(function)} is a generator: who asks for its next value would do so after the transaction has "
                "ended.  Decorate a coroutine function, `async def` with a `return` and no `yield`."
            )
        signature = inspect.signature(function)
        if not signature.parameters:
            raise TypeError(
                f"{_name(function)} takes no argument, and a transaction gives it its session first."
            )

        @wraps(function)
        async def call(*args: P.args, **kwargs: P.kwargs) -> T:
            @wraps(function)
            def work(session: Session) -> Awaitable[T]:
                return function(session, *args, **kwargs)

            return await run_transaction(self._database(), work, self._terms)

        seen: Any = call
        seen.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])
        return call
