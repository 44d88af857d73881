"""Refreshing an instance natively, and together with it those that the same flush wrote.

Who refreshes one of them in a loop refreshes them all, so the rows of the next ones are fetched with it.  They are
kept until the task waits for something: up to then nothing can have happened that a statement of its own would see.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from sqlalchemy import inspect, select
from sqlalchemy.util.concurrency import greenlet_spawn

from catalysis.engine.alchemy.by_key import expire_whole, is_plain, load_expired, refreshable_key
from catalysis.engine.alchemy.sessions import HookedSession, must_flush_first
from catalysis.engine.binding import bind
from catalysis.engine.coverage import getting_of, reading_of
from catalysis.engine.instances import load_of
from catalysis.engine.learning import is_generated
from catalysis.engine.run import fetch, run_one
from catalysis.engine.waiting import flush_first

FIRST, NEXT = 100, 500
"""How many rows are fetched with the first of a flush that is refreshed, and with one that was not among them."""
REMEMBERED = 10_000
"""The most instances of a flush that are remembered."""


Kept = Callable[[], Any]
"""Loads the row that was fetched for an instance."""


class Flushed:
    """The keys of what the last flush of a session wrote, by class, and rows that were fetched for them."""

    def __init__(self) -> None:
        self._states: dict[Any, set[Any]] = {}
        self._keys: dict[Any, dict[Any, None]] = {}
        self._rows: dict[Any, Kept] = {}
        self._more = FIRST

    def remember(self, states: Mapping[Any, set[Any]]) -> None:
        """A flush has written these; a state does not keep its instance."""
        self._states = {
            mapper: each
            for mapper, each in states.items()
            if 1 < len(each) <= REMEMBERED and is_plain(mapper)
        }
        self._keys, self._more = {}, FIRST
        self._rows.clear()

    def take(self, key: Any) -> Kept | None:
        """The row that was fetched for a key with another's."""
        return self._rows.pop(key, None)

    def forget_rows(self) -> None:
        """Something may have happened since they were fetched."""
        self._rows.clear()

    def next_keys(self, mapper: Any, key: Any) -> list[Any]:
        """The key and those written after it."""
        if (states := self._states.pop(mapper, None)) is not None:
            self._keys[mapper] = dict.fromkeys(state.key for state in states)
        keys = self._keys.get(mapper, {})
        if key not in keys:
            return [key]
        found = list[Any]()
        for each in [*keys]:
            if each is not None and (found or each == key):
                found.append(each)
                del keys[each]
                if len(found) == self._more:
                    break
        self._more = NEXT
        return found

    def keep(self, rows: dict[Any, Any]) -> None:
        """Keep rows until the running task waits."""
        self._rows = rows
        asyncio.get_running_loop().call_soon(rows.clear)


async def refresh(session: HookedSession, flushed: Flushed, instance: Any) -> bool | None:
    """Load all of an instance anew; False if it has no row, and None if SQLAlchemy has to do it.

    Raises:
        InvalidRequestError: the instance is not persistent in this session.
    """
    found = refreshable_key(session, instance)
    if found is None:
        return None
    mapper, key = found
    kept = flushed.take(key)
    getting = getting_of(session, mapper, key[1]) if kept is None else None
    if isinstance(getting, str):
        return None
    expire_whole(session, instance)
    if must_flush_first(session):
        flushed.forget_rows()
        await flush_first(session)
        kept, getting = None, getting_of(session, mapper, inspect(instance).identity)
    elif kept is None and len(keys := flushed.next_keys(mapper, key)) > 1:
        kept = await _fetch_together(session, flushed, mapper, keys)
    if kept is not None:
        found = kept()
    elif getting is None or isinstance(getting, str):
        found = None
    else:
        found = await run_one(session, getting)
    if found is not None and found[0] is None:
        return False
    # A key that the database gives otherwise than it was set (text for a number) is another instance's.
    return (found is not None and found[0] is instance) or await greenlet_spawn(
        load_expired, session, instance
    )


async def _fetch_together(
    session: HookedSession, flushed: Flushed, mapper: Any, keys: list[Any]
) -> Kept | None:
    """The row of the first key, with those of the others kept; None where one at a time has to do."""
    (column,) = mapper.primary_key
    statement = select(mapper).where(column.in_([key[1][0] for key in keys]))
    reading = reading_of(session, statement, None, {}, None)
    sent = None if isinstance(reading, str) else bind(session, reading)
    if isinstance(reading, str) or sent is None or len(sent.parameters) - len(reading.plan.own) != len(keys):
        return None
    answer = await fetch(session, reading, sent)
    if answer is None or not await is_generated(session, reading, sent, answer.describe):
        return None
    number = [each[0] for each in answer.describe()].index(column.name)
    rows, hydrator = {row[number]: row for row in answer.rows}, reading.plan.hydrator
    assert hydrator is not None
    load = load_of(session, reading, len(rows))
    found = {
        key: partial(hydrator, [rows[value]], load)
        for key, value in zip(keys, sent.parameters, strict=False)  # what the session adds comes after them
        if value in rows
    }
    first = found.pop(keys[0], None)
    flushed.keep(found)
    return first
