"""Where the primary's log is, asked for on a lease of a session."""

from sqlalchemy import Engine

from catalysis.engine.alchemy.pooling import check_out
from catalysis.engine.alchemy.sessions import HookedSession
from catalysis.engine.drivers import driver_of, is_driven
from catalysis.engine.lease import Lease


async def primary_position(session: HookedSession, engine: Engine) -> int | None:
    """The position behind which everything is that has been committed; None if the database keeps no such log.

    Raises:
        PoolExhausted: no connection came free in time.
        DBAPIError: what the database answered, as SQLAlchemy raises it.
    """
    if not is_driven(engine.dialect):
        return None
    driver = driver_of(engine.dialect)
    lent = Lease.of(engine, await check_out(engine, session), None)
    try:
        found = await driver.position(lent.connection)
    except Exception as error:
        await lent.fail(error, "the position of the log", ())
    except BaseException as cancelled:
        lent.give_up(cancelled, survives=driver.survives_cancellation)
        raise
    await lent.give_back()
    return None if found is None else found.end
