"""A primary with streaming replicas, and a `Database` that reads from them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from catalysis import Database, DatabaseSettings
from catalysis.events import QueryEvent, subscribe
from tests.faults.checks import eventually
from tests.models import Model
from tests.servers import PostgresServer

INTERVAL = 0.05
"""Seconds between looks, so that the tests need not wait."""


@dataclass(frozen=True)
class Servers:
    primary: PostgresServer
    replicas: list[PostgresServer]

    @classmethod
    def start(cls, *settings: str, replicas: int = 1) -> "Servers":
        """With the tables of `tests.models`; what is set is set at all of them."""
        servers = cls(PostgresServer.start("wal_level=replica", *settings), [])
        try:
            asyncio.run(_make_tables(servers.primary))
            for number in range(replicas):
                servers.replicas.append(servers.primary.replica(name=f"replica{number}"))
        except BaseException:
            servers.stop()
            raise
        return servers

    def stop(self) -> None:
        for each in (*self.replicas, self.primary):
            each.stop()

    def several_hosts(self) -> str:
        """One URL of them all."""
        hosts = "&".join(f"host=127.0.0.1:{each.port}" for each in (self.primary, *self.replicas))
        return f"postgresql+asyncpg://postgres@/postgres?{hosts}"

    def settings(self, **given: Any) -> DatabaseSettings:
        """With all replicas, looked at often."""
        urls = tuple(each.url() for each in self.replicas)
        named = {"url": self.primary.url(), "replicas": urls, "replica_check_interval": INTERVAL}
        return DatabaseSettings(**(named | given))


async def _make_tables(server: PostgresServer) -> None:
    database = Database(server.url())
    await database.create_all(Model.metadata)
    await database.close()


@asynccontextmanager
async def replicated(*settings: str, replicas: int = 1) -> AsyncIterator[Servers]:
    """Servers of one test, which may do with them what it likes."""
    servers = await asyncio.to_thread(Servers.start, *settings, replicas=replicas)
    try:
        yield servers
    finally:
        await asyncio.to_thread(servers.stop)


@asynccontextmanager
async def reading_from_replicas(servers: Servers, **given: Any) -> AsyncIterator[Database]:
    """A database whose replicas are all in rotation."""
    database = Database(servers.settings(**given))
    try:
        await in_rotation(database, len(servers.replicas))
        yield database
    finally:
        await database.close()


async def in_rotation(database: Database, count: int) -> None:
    """Wait until so many of its replicas are read from; there is a session, so that they are looked at."""
    async with database.session():
        await eventually(
            lambda: sum(each.in_rotation for each in database.replica_health()) == count,
            f"not {count} in rotation: {database.replica_health()}",
        )


async def looked_again(database: Database) -> None:
    """All servers have been asked after now where they are."""
    (replicas,) = database._replicas.values()
    await replicas.look()


async def sql(server: PostgresServer, statement: str, *parameters: Any) -> Any:
    """Run by somebody else; the first value."""
    connection = await asyncpg.connect(
        host="127.0.0.1", port=server.port, user="postgres", database="postgres"
    )
    try:
        return await connection.fetchval(statement, *parameters)
    finally:
        await connection.close()


async def caught_up(servers: Servers) -> None:
    """Wait until every replica has what the primary has."""
    at = await sql(servers.primary, "SELECT pg_current_wal_flush_lsn()::text")
    for each in servers.replicas:

        async def has(server: PostgresServer = each) -> bool:
            return await sql(server, "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", at)

        await eventually(has, "a replica does not follow")


class Heard:
    """The statements that were sent, by the port of the server they went to."""

    def __init__(self) -> None:
        self.events: list[QueryEvent] = []
        self.end: Callable[[], None] = subscribe(self.events.append)

    def take(self) -> list[int | None]:
        """The ports since the last time."""
        taken, self.events[:] = [each.database and each.database.port for each in self.events], []
        return taken
