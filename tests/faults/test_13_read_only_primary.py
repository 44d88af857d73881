"""13. The old primary takes no writes any more, and its connections stay open: 25006 discards them, and the next go on.

Mutations seen to fail: `_has_moved` does nothing (each connection of the pool fails once); `was_lost` without READ_ONLY
(a row that was refused counts as perhaps written); `_is_read_only` is always true (a transaction that was begun READ
ONLY costs the pool its connections).
"""

import asyncio
from contextlib import AsyncExitStack

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel import select

from catalysis import CommitOutcomeUnknown, Database, DatabaseSettings, Session
from tests.faults.checks import goes_on, names
from tests.models import Label
from tests.replication import Servers, caught_up, replicated, sql
from tests.servers import PostgresServer

POOL = {"pool_size": 4, "max_overflow": 0}


async def fill_pool(database: Database) -> None:
    async def hold() -> None:
        async with database.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            await all_hold.wait()

    all_hold = asyncio.Barrier(4)
    await asyncio.gather(*[hold() for _ in range(4)])


async def moved(servers: Servers) -> None:
    """The old primary takes no writes and keeps its connections, as some managed databases do it; a replica does."""
    await caught_up(servers)
    await sql(servers.primary, "ALTER SYSTEM SET default_transaction_read_only = on")
    await sql(servers.primary, "SELECT pg_reload_conf()")
    await asyncio.to_thread(servers.replicas[0].promote)


async def by_one_row(session: Session) -> None:
    session.add(Label(name="x"))
    await session.commit()


async def by_two_rows(session: Session) -> None:
    session.add(Label(name="x"))
    await session.flush()
    session.add(Label(name="y"))
    await session.commit()


async def by_sqlalchemy(session: Session) -> None:
    await session.execute(text("CREATE TABLE other (id int)"))
    await session.commit()


@pytest.mark.parametrize("way", [by_one_row, by_two_rows, by_sqlalchemy])
async def test_one_error_and_the_whole_pool_goes_to_the_new_primary(way):
    async with replicated() as servers:
        database = Database(DatabaseSettings(url=servers.several_hosts(), **POOL))
        try:
            await fill_pool(database)
            await moved(servers)
            async with database.session() as session:
                with pytest.raises(DBAPIError, match="read-only transaction") as caught:
                    await way(session)
                await session.rollback()
            assert caught.value.connection_invalidated
            assert not isinstance(caught.value, CommitOutcomeUnknown), "it was refused"
            for number in range(4):
                async with database.session() as session:
                    session.add(Label(name=f"after {number}"))
                    await session.commit()
            assert await sql(servers.replicas[0], "SELECT count(*) FROM label") == 4
            await goes_on(database)
        finally:
            await database.close()


async def test_a_function_is_replayed_and_sees_nothing_of_it():
    async with replicated() as servers:
        database = Database(DatabaseSettings(url=servers.several_hosts(), **POOL))
        try:
            await fill_pool(database)
            await moved(servers)
            runs = 0

            async def work(session: Session) -> None:
                nonlocal runs
                runs += 1
                session.add(Label(name="x"))

            await database.transaction(work)
            assert runs == 2
            assert await sql(servers.replicas[0], "SELECT array_agg(name::text) FROM label") == ["x"]
            await goes_on(database)
        finally:
            await database.close()


async def test_what_is_read_only_on_purpose_keeps_its_connection(postgres_url: str):
    database = Database(DatabaseSettings(url=postgres_url, **POOL))
    try:
        await fill_pool(database)
        opened = await _drivers(database)
        async with database.session() as session:
            await session.execute(text("SET TRANSACTION READ ONLY"))
            with pytest.raises(DBAPIError, match="read-only transaction") as caught:
                await session.execute(text("CREATE TABLE other (id int)"))
            assert not caught.value.connection_invalidated
            await session.rollback()
        assert all(each in opened for each in await _drivers(database))
    finally:
        await database.close()


async def _drivers(database: Database) -> list[object]:
    """The driver's connections of a full pool."""
    async with AsyncExitStack() as held:
        connections = [await held.enter_async_context(database.engine.connect()) for _ in range(4)]
        return [(await each.get_raw_connection()).driver_connection for each in connections]


# --- One address that leads elsewhere later -------------------------------------------------------


class Switch:
    """A TCP address that leads to one server or another, and leaves the connections that there are as they are."""

    def __init__(self, target: PostgresServer) -> None:
        self.target = target
        self._tasks: set[asyncio.Task[None]] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection("127.0.0.1", self.target.port)
        for source, sink in ((reader, ours), (theirs, writer)):
            task = asyncio.create_task(self._forward(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65_536):
                sink.write(data)
        except ConnectionError:
            pass
        sink.close()


async def test_an_address_that_led_to_a_replica_for_a_while():
    async with replicated() as servers:
        switch = Switch(servers.replicas[0])
        server = await asyncio.start_server(switch.accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        database = Database(DatabaseSettings(url=f"postgresql://postgres@127.0.0.1:{port}/postgres", **POOL))
        try:
            await fill_pool(database)
            switch.target = servers.primary

            async def work(session: Session) -> None:
                assert (await session.exec(select(Label))).all() == []
                session.add(Label(name="x"))

            await database.transaction(work, retries=1)
            assert await names(database) == ["x"]
            await goes_on(database)
        finally:
            await database.close()
            server.close()
