"""The trip of a reading statement: plan, lease, driver rows, instances.  Start here.

`coverage.reading_of` has found or made its plan; `binding` makes SQL and values of it, `lease` lends a connection, a
driver fetches, and `instances` has a hydrator turn rows into those (`learning` tells how the plan came to it).  What
comes back as None goes through SQLAlchemy, whole, before anything was sent: parameters that cannot be bound, a
transaction that cannot be used.
"""

from collections.abc import Awaitable
from typing import Any

from sqlalchemy import Result
from sqlalchemy.exc import DBAPIError
from sqlalchemy.util.concurrency import greenlet_spawn

from catalysis.engine.alchemy import loading
from catalysis.engine.alchemy.compiling import subject_of
from catalysis.engine.alchemy.owning import LocalSetting
from catalysis.engine.alchemy.sessions import HookedSession, holds_nothing
from catalysis.engine.binding import Sent, bind
from catalysis.engine.drivers import Answer, Driver, driver_of, was_stale
from catalysis.engine.instances import hydrate
from catalysis.engine.learning import is_generated, load_rows
from catalysis.engine.lease import Lease, lease
from catalysis.engine.plan import Reading
from catalysis.engine.telling import tell
from catalysis.errors import NoAnswer
from catalysis.events import is_heard, note_origin

CANCELED = "57014"
"""The SQLSTATE of a statement that ran into `statement_timeout`."""
ATTEMPTS = 2
"""How often a read outside a transaction is tried: it changes nothing, and a fresh connection may do better."""


async def run(session: HookedSession, reading: Reading) -> Result[Any] | None:
    """Execute a reading statement and return its result, as SQLAlchemy's `AsyncSession.execute` would.

    Raises:
        DBAPIError: what the database answered, as SQLAlchemy raises it.
    """
    sent = bind(session, reading)
    answer = sent and await fetch(session, reading, sent)
    if sent is None or answer is None:
        return None
    if sent.context is None or await is_generated(session, reading, sent, answer.describe):
        return loading.result_of(*await hydrate(session, reading, answer))
    result = await greenlet_spawn(load_rows, session, reading, sent, answer)
    if (number := loading.number_of(result)) is not None:
        note_origin(number, sent.sql, len(answer.rows))
    return result


async def run_one(session: HookedSession, reading: Reading) -> tuple[Any] | None:
    """Execute the loading of one instance by its key: a tuple of it, or of None; None as for `run`.

    Raises:
        DBAPIError: what the database answered, as SQLAlchemy raises it.
        MultipleResultsFound: the key is not one.
    """
    sent = bind(session, reading)
    answer = sent and await fetch(session, reading, sent)
    if sent is None or answer is None:
        return None
    learnt = sent.context is None
    if len(answer.rows) < 2 and (learnt or await is_generated(session, reading, sent, answer.describe)):
        _, rows = await hydrate(session, reading, answer)
        return (rows[0] if rows else None,)
    result = await greenlet_spawn(load_rows, session, reading, sent, answer)
    return (result.unique().scalars().one_or_none(),)


# --- Fetching -------------------------------------------------------------------------------------


def fetch(session: HookedSession, reading: Reading, sent: Sent) -> Awaitable[Answer | None]:
    """What the driver answers; None if only SQLAlchemy can use the session's transaction."""
    outside = holds_nothing(session) and not reading.plan.needs_transaction
    return (_fetch if outside else _fetch_in_turn)(session, reading, sent)


async def _fetch_in_turn(session: HookedSession, reading: Reading, sent: Sent) -> Answer | None:
    async with session.turn:  # no other task commits meanwhile
        return await _fetch(session, reading, sent)


async def _fetch(session: HookedSession, reading: Reading, sent: Sent) -> Answer | None:
    driver = driver_of(reading.engine.dialect)
    attempt, from_replicas = 0, True
    while True:
        attempt += 1
        lent = await lease(
            session,
            reading.bind,
            driver,
            needs_transaction=reading.plan.needs_transaction,
            from_replicas=from_replicas,
        )
        if lent is None:
            return None
        try:
            setting = session.local_setting if lent.held is None else None
            answer = await _ask(driver, reading, sent, lent, setting)
            if session.route is not None and lent.replica is None and lent.held is None:
                session.route.met_primary()
            return answer
        except DBAPIError as failure:
            if lent.replica is not None:
                if failure.connection_invalidated:
                    lent.replica.lost(failure)
                if not takes_as_long(failure):
                    attempt, from_replicas = 0, False
                    continue
            final = attempt == ATTEMPTS or lent.held is not None or isinstance(failure, NoAnswer)
            if final or not (failure.connection_invalidated or was_stale(failure)):
                raise


def takes_as_long(failure: DBAPIError) -> bool:
    """Whether time was up for a statement: elsewhere it would be too, and all else a primary may do for a replica."""
    return isinstance(failure, NoAnswer) or getattr(failure.orig, "sqlstate", None) == CANCELED


async def _ask(
    driver: Driver, reading: Reading, sent: Sent, lent: Lease, setting: LocalSetting | None
) -> Answer:
    lent.note(sent.sql)
    ended = tell(lent, sent.sql, sent.parameters, subject_of(reading.statement)) if is_heard() else None
    try:
        answer = await driver.fetch(
            lent.connection,
            sent.sql,
            sent.parameters,
            dialect=lent.engine.dialect,
            in_transaction=lent.held is not None,
            setting=setting,
        )
    except Exception as error:
        if ended is not None:
            ended(None, type(error).__name__)
        await lent.fail(error, sent.sql, sent.parameters)
    except BaseException as cancelled:
        if ended is not None:
            ended(None, type(cancelled).__name__)
        lent.give_up(cancelled, survives=driver.survives_cancellation)
        raise
    if ended is not None:
        ended(len(answer.rows), None)
    if lent.held is None:
        await lent.give_back()
    return answer
