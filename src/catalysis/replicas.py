"""A database's replicas on one event loop: their engines, and the task that looks after them.

What it finds is noted in `engine.routing`, where reads are sent to those that serve.
"""

import asyncio
import contextvars
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any
from weakref import ref

from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from catalysis.engine.alchemy.committing import hear_commits
from catalysis.engine.alchemy.pooling import adapted, check_in, outdate
from catalysis.engine.drivers import Position, driver_of
from catalysis.engine.routing import Replica, Rotation, Route, Sample, note_write, shared_writes
from catalysis.events import DatabaseAddress, address_of, note_replica

LONGEST_LOOK = 2.0
"""Seconds that a server may take to say where it is."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReplicaHealth:
    """How a replica was found last."""

    address: DatabaseAddress
    in_rotation: bool
    """Whether it is read from."""
    trouble: str | None
    """Why it is not: in words, or the class of the error."""
    lag_seconds: float | None
    """The age of what it has not got, at most; None if nobody knows."""
    lag_bytes: int | None
    """The log that it has not replayed."""


class Replicas:
    """The replicas of one database and loop; in rotation once they have been looked at."""

    def __init__(
        self,
        primary: AsyncEngine,
        urls: Sequence[URL],
        make_engine: Callable[[URL], AsyncEngine],
        *,
        interval: float,
        max_lag: float,
    ) -> None:
        """`interval` and `max_lag` in seconds."""
        self.engines = engines = tuple(make_engine(url) for url in urls)
        for engine in engines:
            note_replica(engine.sync_engine)
        self._interval = interval
        self._rotation = Rotation(
            primary.sync_engine,
            [Replica(engine.sync_engine) for engine in engines],
            max_lag,
            primary.url.render_as_string(),  # without its password
        )
        hear_commits(primary.sync_engine, partial(note_write, self._rotation.database))
        self._primary = _Lookout(make_engine(primary.url))
        self._lookouts = [_Lookout(make_engine(url)) for url in urls]
        self._task: asyncio.Task[None] | None = None

    def route(self, after: int) -> Route:
        """For a new session, whose reads must see that position; the looking begins with the first."""
        if self._task is None or self._task.done():
            # In a context of its own: it outlives the request that happens to be the first.
            self._task = asyncio.get_running_loop().create_task(
                _watch(ref(self), self._interval),
                name="catalysis replicas",
                context=contextvars.Context(),
            )
        shared_writes()  # with the tasks that this one starts now
        return Route(self._rotation, after)

    def health(self) -> tuple[ReplicaHealth, ...]:
        """How they were found last; from any thread."""
        return tuple(
            ReplicaHealth(
                address_of(each.engine),
                each.trouble is None,
                each.trouble,
                each.lag and each.lag.seconds,
                each.lag and each.lag.size,
            )
            for each in self._rotation.replicas
        )

    @property
    def servers(self) -> range:
        """The primary, 0, and the replicas."""
        return range(len(self.engines) + 1)

    async def look(self) -> None:
        """Ask all servers at once where they are; never raises, and takes no longer than `LONGEST_LOOK`."""
        await asyncio.gather(*[self.look_at(server) for server in self.servers])

    async def look_at(self, server: int) -> None:
        """Ask one of them."""
        if server == 0:
            await self._look_at_primary()
        else:
            await self._look_at(self._rotation.replicas[server - 1], self._lookouts[server - 1])

    async def _look_at_primary(self) -> None:
        asked = monotonic()
        try:
            found = await self._primary.ask()
        except Exception as failure:  # it is away; what is known of the replicas stays true
            _log.debug("The primary does not say where it is: %s", type(failure).__name__)
            return
        if found.is_replica or not found.is_writable:
            outdate(self._primary.engine.pool)  # to be connected to what is the primary now
        else:
            self._rotation.primary_is_at(Sample(asked, found.end, found.flushed))

    async def _look_at(self, replica: Replica, lookout: "_Lookout") -> None:
        before = replica.trouble
        try:
            found = await lookout.ask()
        except Exception as failure:  # whatever it is, nothing is read from there
            replica.lost(failure)
            outdate(replica.engine.pool)
        else:
            if found.is_replica:
                self._rotation.replica_is_at(replica, found.end, monotonic())
            else:
                replica.leave("not a replica")
        if replica.trouble != before:
            place = address_of(replica.engine)
            state = "in rotation" if replica.trouble is None else f"out of rotation: {replica.trouble}"
            _log.info("Replica %s:%s is %s", place.host, place.port, state)

    async def close(self) -> None:
        """End the looking, and close all connections but the primary's pool."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for engine in self._every_engine():
            await engine.dispose()

    def abandon(self) -> None:
        """Forget the connections: their loop is closed."""
        for engine in self._every_engine():
            engine.sync_engine.dispose(close=False)

    def _every_engine(self) -> tuple[AsyncEngine, ...]:
        return (*self.engines, self._primary.engine, *(each.engine for each in self._lookouts))


async def _watch(replicas: "ref[Replicas]", interval: float) -> None:
    """Look at them as long as anybody has them; it does not keep them itself.

    At each server by itself after the first time, so that one that does not answer holds up none of the others.
    """
    if (kept := replicas()) is None:
        return
    await kept.look()
    async with asyncio.TaskGroup() as group:
        for server in kept.servers:
            group.create_task(_watch_one(replicas, server, interval))
        del kept


async def _watch_one(replicas: "ref[Replicas]", server: int, interval: float) -> None:
    await asyncio.sleep(interval)
    while (kept := replicas()) is not None:
        await kept.look_at(server)
        del kept
        await asyncio.sleep(interval)


class _Lookout:
    """An engine for itself to one server, so that a pool that is all lent says nothing of the server."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    async def ask(self) -> Position:
        """Where the server is.

        Raises:
            Exception: it did not say, in time or at all.
        """
        engine = self.engine.sync_engine
        async with asyncio.timeout(LONGEST_LOOK):
            proxy: Any = await self.engine.raw_connection()
            try:
                found = await driver_of(engine.dialect).position(adapted(proxy))
            except BaseException:
                proxy.invalidate()  # without a word to the server, which may not be there
                raise
            await check_in(proxy)
        assert found is not None
        return found
