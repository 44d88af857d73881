"""Who holds the connections of a pool: noted when one is lent, and told of when none is left.

A note is what is at hand anyway, since one is made for each lease: the session's line, the task, the clock.  What a
session's transaction holds is found by the session itself, of which SQLAlchemy keeps a weak table.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import session as sqlalchemys

from catalysis.engine.alchemy.greenlets import ScopeGreenlet, current_greenlet, running_task
from catalysis.errors import PoolExhausted
from catalysis.events import CallSite, waits_at

SHOWN = 10
"""The most holders that an error tells of."""


class Note(NamedTuple):
    """Made when a connection is lent."""

    since: float
    """By the monotonic clock."""
    session: Any
    task: asyncio.Task[Any] | None
    scope: ScopeGreenlet | None
    """The managed scope the task was in, whose coroutine the task does not show."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a connection now."""

    site: CallSite | None
    """The line that opened the session."""
    seconds: float
    """How long it has been lent."""
    in_transaction: bool
    now_at: CallSite | None
    """The line at which the task waits that took it; None if it has ended."""


def note_of(session: Any) -> Note:
    """A note for what is lent to a session now."""
    current: Any = current_greenlet()
    while current is not None and not isinstance(current, ScopeGreenlet):
        current = current.parent
    return Note(time.monotonic(), session, running_task(), current)


_LENT = "_catalysis_lent"
"""Under this name a pool keeps the notes of what is lent for one statement, by the `id` of the record or proxy."""


def note_lent(pool: Any, lent: Any, session: Any) -> None:
    """Note what is lent for one statement."""
    noted = pool.__dict__.get(_LENT)
    if noted is None:
        noted = pool.__dict__[_LENT] = {}
    noted[id(lent)] = note_of(session)


def note_moved(pool: Any, lent: Any, proxy: Any) -> None:
    """It has a proxy from now on."""
    noted = pool.__dict__.get(_LENT, {})
    if (note := noted.pop(id(lent), None)) is not None:
        noted[id(proxy)] = note


def note_back(pool: Any, lent: Any) -> None:
    """It is back, or was given up."""
    if (noted := pool.__dict__.get(_LENT)) is not None:
        noted.pop(id(lent), None)


# --- Telling --------------------------------------------------------------------------------------


def holders(engine: Engine) -> list[Holder]:
    """Who holds connections of the engine's pool, longest first; those taken without a session are not known."""
    pool: Any = engine.pool
    notes = [(note, False) for note in pool.__dict__.get(_LENT, {}).values()]
    notes += [(note, True) for note in _held(pool)]
    now = time.monotonic()
    found = [Holder(note.session.opened_at, now - note.since, held, _now_at(note)) for note, held in notes]
    return sorted(found, key=lambda each: -each.seconds)


def _held(pool: Any) -> Iterator[Note]:
    known: Any = sqlalchemys
    for session in list(known._sessions.values()):
        transaction = session._transaction
        while transaction is not None and transaction._parent is not None:
            transaction = transaction._parent
        note: Note | None = getattr(transaction, "taken", None)
        if (
            transaction is not None
            and note is not None
            and any(_is_of(connection, pool) for connection, *_ in set(transaction._connections.values()))
        ):
            yield note


def _is_of(connection: Connection, pool: Any) -> bool:
    return connection.engine.pool is pool and not (connection.closed or connection.invalidated)


def _now_at(note: Note) -> CallSite | None:
    if note.task is None or note.task.done():
        return None
    if note.scope is not None and note.scope.task is note.task:
        return waits_at(note.scope.coroutine)
    return waits_at(note.task.get_coro())


def exhausted(engine: Engine) -> PoolExhausted:
    """The error to raise when no connection of the engine came free in time."""
    pool: Any = engine.pool
    known, lent = holders(engine), pool.checkedout()
    lines = _grouped(known)
    if lent > len(known):
        lines.append(f"{lent - len(known)} taken without a session (engine.connect(), engine.begin())")
    held = "".join(f"\n  {line}" for line in lines)
    return PoolExhausted(
        f"No connection came free in {pool._timeout:g} s: all {lent} are lent (pool_size {pool.size()} and "
        f"max_overflow {pool._max_overflow}, DATABASE_POOL_SIZE and DATABASE_MAX_OVERFLOW).  Hold none across what "
        f"does not need it: commit before you wait for anything else.  Held by:{held}"
    )


def _grouped(known: list[Holder]) -> list[str]:
    alike: defaultdict[tuple[Any, ...], list[Holder]] = defaultdict(list)
    for each in known:
        alike[each.site, each.in_transaction, each.now_at].append(each)
    lines = [_line(group) for group in alike.values()]
    more = len(lines) - SHOWN
    return [*lines[:SHOWN], f"and {more} other lines"] if more > 0 else lines


def _line(group: list[Holder]) -> str:
    first = group[0]
    what = "a transaction" if first.in_transaction else "a statement"
    times = f"{len(group)} times, the longest" if len(group) > 1 else what
    where = f", now at {first.now_at}" if first.now_at not in (None, first.site) else ""
    many = f"{what} {times}" if len(group) > 1 else times
    return f"{first.site or 'an unknown line'}: {many} for {first.seconds:.1f} s{where}"
