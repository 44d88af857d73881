"""A result that is fetched in parts through a cursor on the server, and so never in memory as a whole.

The cursor is on the transaction's connection.  The parts are fetched from inside a greenlet, which is where
SQLAlchemy's `AsyncResult` asks for them.
"""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Result
from sqlalchemy.exc import ResourceClosedError
from sqlalchemy.util.concurrency import await_only

from catalysis.engine.alchemy.compiling import subject_of
from catalysis.engine.alchemy.loading import Load, streamed_result
from catalysis.engine.alchemy.sessions import HookedSession, can_wait
from catalysis.engine.binding import Sent, bind
from catalysis.engine.drivers import Cursor, driver_of
from catalysis.engine.learning import is_generated
from catalysis.engine.lease import Lease, lease
from catalysis.engine.plan import Reading
from catalysis.engine.telling import tell
from catalysis.events import is_heard, note_origin

AT_ONCE = 1_000
"""Rows fetched at a time where the statement does not say (`yield_per`)."""


async def stream(session: HookedSession, reading: Reading) -> Result[Any] | None:
    """Open a cursor for a reading statement; None if SQLAlchemy has to do it.

    Raises:
        DBAPIError: what the database answered, as SQLAlchemy raises it.
    """
    sent = bind(session, reading)
    driver = driver_of(reading.engine.dialect)
    lent = sent and await lease(session, reading.bind, driver, needs_transaction=True)
    if sent is None or lent is None:
        return None
    lent.note(sent.sql)
    tell_of = tell(lent, sent.sql, sent.parameters, subject_of(reading.statement)) if is_heard() else None
    try:
        cursor = await driver.open(lent.connection, sent.sql, sent.parameters, dialect=reading.engine.dialect)
    except Exception as error:
        if tell_of is not None:
            tell_of(None, type(error).__name__)
        await lent.fail(error, sent.sql, sent.parameters)
    except BaseException as cancelled:  # perhaps in the middle of its BEGIN
        lent.give_up(cancelled, survives=driver.survives_cancellation)
        raise
    plan = reading.plan
    try:
        usable = await is_generated(session, reading, sent, cursor.describe)
    except BaseException:
        # SQLAlchemy refuses some eager loads in parts, and an open cursor would keep an SQLite file locked.
        await cursor.close()
        raise
    # Joined collections cannot be parted either, and SQLAlchemy says so.
    if not usable or plan.hydrator is None or plan.recipe is None or plan.recipe.requires_uniquing:
        await cursor.close()
        return None
    if tell_of is not None:
        tell_of(None, None)
    load = Load(plan.recipe, session, reading.statement, reading.options, plan.takes_defaults)
    note_origin(load.number, sent.sql, 0)
    parts = _Parts(load, plan.hydrator, cursor, lent, sent)
    return streamed_result(load, parts.chunks, parts.close)


class _Parts:
    """Fetches and hydrates part after part."""

    def __init__(self, load: Load, hydrate: Any, cursor: Cursor, lent: Lease, sent: Sent) -> None:
        self.load, self.hydrate, self.cursor = load, hydrate, cursor
        self.lent, self.sent = lent, sent
        self.is_open = True

    def chunks(self, size: int | None) -> Iterator[list[Any]]:
        """Lists of what the rows hold; may be asked again for another size, and goes on where it was."""
        while self.is_open:
            fetched = await_only(self._fetch(size or AT_ONCE))
            if not fetched:
                self.close()
                return
            yield self._hydrated(fetched)

    def _hydrated(self, fetched: Any) -> list[Any]:
        try:
            made = self.hydrate(fetched, self.load)
            while calls := self.load.take_post_loads(again=True):
                for call in calls:
                    call()
        except BaseException:
            self.close()
            raise
        return made

    async def _fetch(self, most: int) -> Any:
        try:
            return await self.cursor.fetch(most)
        except ResourceClosedError:
            self.is_open = False
            raise
        except Exception as error:
            self.is_open = False
            await self.cursor.close()
            await self.lent.fail(error, self.sent.sql, self.sent.parameters)
        except BaseException as cancelled:
            self.is_open = False
            driver = driver_of(self.lent.engine.dialect)
            if driver.survives_cancellation:
                await self.cursor.close()
            self.lent.give_up(cancelled, survives=driver.survives_cancellation)
            raise

    def close(self) -> None:
        """Let go of the cursor, once."""
        if self.is_open and can_wait():
            self.is_open = False
            await_only(self.cursor.close())
