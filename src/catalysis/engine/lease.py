"""A connection for one statement, or the one that the session's transaction holds.

A statement's own lease is given back before its rows become instances; a transaction's connection stays where it is.
"""

from dataclasses import dataclass
from typing import Any, NoReturn

from sqlalchemy import Connection, Engine
from sqlalchemy.util.concurrency import greenlet_spawn

from catalysis.engine.alchemy.leaving import note_left
from catalysis.engine.alchemy.lending import note_back
from catalysis.engine.alchemy.pooling import (
    adapted,
    check_in,
    check_in_at_once,
    check_out,
    discard,
    foreign_listeners,
    proxied,
    proxy_of,
    raise_translated,
    unwaited,
)
from catalysis.engine.alchemy.pooling import hears_begin as engine_hears_begin
from catalysis.engine.alchemy.sessions import (
    HookedSession,
    begun,
    connection_in,
    hears_begin,
    is_implicit,
    take_connection,
)
from catalysis.engine.drivers import OWN_HOOKS, Driver
from catalysis.engine.leftovers import leaves_state
from catalysis.engine.routing import Replica, Route
from catalysis.errors import PoolExhausted
from catalysis.events import OWN_HOOKS as EVENT_HOOKS

OUR_LISTENERS = OWN_HOOKS | EVENT_HOOKS
"""What listens to statements, and the native path does without."""


@dataclass(slots=True)
class Lease:
    """A connection lent for one statement (`held` is None), or held by a transaction."""

    engine: Engine
    lent: Any
    """The pool's record of the connection, or its proxy."""
    held: Connection | None
    connection: Any
    """SQLAlchemy's adapter of the driver's connection."""
    replica: Replica | None = None
    """The replica it is of; None for the primary."""

    @classmethod
    def of(
        cls, engine: Engine, lent: Any, held: Connection | None = None, replica: Replica | None = None
    ) -> "Lease":
        """The lease of a record or proxy."""
        return cls(engine, lent, held, adapted(lent), replica)

    def note(self, sql: str) -> None:
        """A statement goes to it; what that may leave behind is taken back when the transaction's lease ends."""
        if self.held is not None and leaves_state(sql):
            note_left(self.held)

    async def give_back(self) -> None:
        """End the lease of one statement."""
        if self.held is None and not check_in_at_once(self.lent):
            await check_in(self.lent)

    def give_up(self, error: BaseException, *, survives: bool) -> None:
        """End it after a cancellation: nobody knows what the connection is doing, unless it `survives` that."""
        if not survives:
            discard(self.engine, self.lent, self.held, error)
        elif self.held is None:
            unwaited(check_in(self.lent))

    async def fail(self, error: Exception, sql: str, parameters: Any) -> NoReturn:
        """End it after the database refused, and raise the refusal as SQLAlchemy does."""
        proxy = self.lent = proxied(self.lent)
        try:
            await greenlet_spawn(
                raise_translated, self.held, self.engine, proxy, error, sql, tuple(parameters)
            )
        finally:
            if self.held is None:
                if proxy.is_valid:
                    await self.give_back()
                else:
                    note_back(self.engine.pool, proxy)
        raise error


async def lease(
    session: HookedSession,
    bind: Engine | Connection,
    driver: Driver,
    *,
    needs_transaction: bool,
    from_replicas: bool = False,
) -> Lease | None:
    """A lease for the session's next read; None if SQLAlchemy must say why there is none.

    Outside a transaction it is a connection for the statement alone, `from_replicas` where one of them serves.  A
    transaction that was begun by hand, has taken its connection, is needed for the statement, or is set up by a
    listener, reads on its own.

    Raises:
        PoolExhausted: no connection came free in time.
        DBAPIError: the database let nobody in.
    """
    transaction = begun(session)
    if transaction is None:
        async with session.turn:  # another task may be taking its connection
            transaction = begun(session)
        if transaction is None:
            return None
    held = connection_in(transaction, bind)
    outside = held is None and not needs_transaction and is_implicit(transaction)
    if (
        outside
        and isinstance(bind, Engine)
        and not (hears_begin(session) or engine_hears_begin(bind, OUR_LISTENERS))
    ):
        lent = None
        if session.route is not None and from_replicas and session.route.rotation.primary is bind:
            lent = await _of_replica(session, session.route)
        if lent is None:
            lent = Lease.of(bind, await check_out(bind, session))
        if driver.reads_outside(lent.connection, lent.engine.dialect):
            return lent
        await lent.give_back()
    if held is None:
        async with session.turn:
            held = await greenlet_spawn(take_connection, session, bind)
    proxy = proxy_of(held)
    return None if proxy is None or is_out_of_the_ordinary(held) else Lease.of(bind.engine, proxy, held)


async def _of_replica(session: HookedSession, route: Route) -> Lease | None:
    """A connection of the replica that the session's read may go to; None if the primary has to serve it."""
    replica = route.choose()
    if replica is None:
        return None
    try:
        return Lease.of(replica.engine, await check_out(replica.engine, session), None, replica)
    except PoolExhausted:
        raise
    except Exception as failure:  # whatever keeps us out, the primary may let us in
        replica.lost(failure)
        return None


def is_out_of_the_ordinary(connection: Connection) -> bool:
    """Whether a connection has options of its own, or somebody listens to what is executed on it."""
    return bool(connection.get_execution_options()) or foreign_listeners(connection, OUR_LISTENERS)
