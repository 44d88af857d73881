"""19. A replica cancels a read that is in the way of its replaying, or goes away: it is answered by the primary.

Mutations seen to fail: `run.fetch` raises what a replica refuses; `Replica.lost` notes nothing (each session meets the
dead one anew); `_of_replica` lets the failure to connect pass; `takes_as_long` is always false.
"""

import asyncio
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import column, table
from sqlalchemy.exc import DBAPIError
from sqlmodel import col, select

from catalysis import Database, NoAnswer, Session
from tests.faults.checks import eventually, goes_on
from tests.models import Job, Label, Person
from tests.proxy import faulty
from tests.replication import (
    Heard,
    Servers,
    caught_up,
    in_rotation,
    looked_again,
    reading_from_replicas,
    replicated,
    sql,
)

SLOW = table("slow", column("name"))
"""A view that takes its time, behind a statement that does not say so."""
REFUSED_BY_REPLICAS = table("refused", column("name"))


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    servers = Servers.start("max_standby_streaming_delay=200ms", "autovacuum=off")
    try:
        asyncio.run(_make_views(servers))
        yield servers
    finally:
        servers.stop()


async def _make_views(servers: Servers) -> None:
    await sql(servers.primary, "CREATE VIEW slow AS SELECT name FROM label WHERE pg_sleep(1)::text = ''")
    await sql(
        servers.primary,
        "CREATE FUNCTION refuse() RETURNS int LANGUAGE plpgsql AS $$ BEGIN "
        "IF pg_is_in_recovery() THEN RAISE EXCEPTION 'not here'; END IF; RETURN 1; END $$",
    )
    await sql(servers.primary, "CREATE VIEW refused AS SELECT name FROM label WHERE refuse() = 1")


async def fill(servers: Servers) -> None:
    await sql(servers.primary, "TRUNCATE label")
    await sql(
        servers.primary,
        "INSERT INTO label (id, created_at, updated_at, name) "
        "SELECT gen_random_uuid(), now(), now(), g::text FROM generate_series(1, 2) g",
    )
    await caught_up(servers)


async def names(session: Session, source=SLOW) -> list[str]:
    return sorted((await session.execute(select(source.c.name))).scalars().all())


async def test_a_recovery_conflict_is_answered_by_the_primary(servers: Servers):
    await fill(servers)
    heard = Heard()
    async with reading_from_replicas(servers) as database, database.session() as session:
        reading = asyncio.create_task(names(session))
        await asyncio.sleep(0.2)
        await sql(servers.primary, "DELETE FROM label WHERE name = '1'")
        await sql(servers.primary, "VACUUM label")
        assert await reading == ["2"]
        heard.end()
        ports = [each.database and each.database.port for each in heard.events]
        assert ports == [servers.replicas[0].port, servers.primary.port]
        assert "Serialization" in (heard.events[0].error or "")
        assert database.replica_health()[0].in_rotation, "it is well: only that read was in its way"
        assert [each for each in database.leases() if each.seconds > 1] == []
        await goes_on(database)


async def test_what_a_replica_refuses_is_asked_of_the_primary(servers: Servers):
    """A table that is not there yet, a function that writes; what fails there too fails as without replicas."""
    await fill(servers)
    async with reading_from_replicas(servers) as database, database.session() as session:
        assert await names(session, REFUSED_BY_REPLICAS) == ["1", "2"]
        for _ in range(2):
            with pytest.raises(DBAPIError, match='relation "nowhere" does not exist'):
                await names(session, table("nowhere", column("name")))
        await goes_on(database)


async def test_a_read_that_takes_too_long_does_not_take_it_twice(servers: Servers):
    await fill(servers)
    heard = Heard()
    async with (
        reading_from_replicas(servers, statement_timeout=0.5) as database,
        database.session() as session,
    ):
        with pytest.raises(DBAPIError, match="statement timeout"):
            await names(session)
    heard.end()
    assert heard.take() == [servers.replicas[0].port]


async def test_a_replica_that_dies_and_comes_back():
    async with replicated() as servers:
        (replica,) = servers.replicas
        heard = Heard()
        async with reading_from_replicas(servers) as database:
            async with database.session() as session:
                assert (await session.exec(select(Label.name))).all() == []
                await asyncio.to_thread(replica.crash)
                assert (await session.exec(select(Label.name))).all() == []
            await in_rotation(database, 0)
            assert database.replica_health()[0].trouble is not None
            heard.take()
            async with database.session() as session:
                for _ in range(3):
                    await session.exec(select(Label.name))
            assert heard.take() == [servers.primary.port] * 3
            await asyncio.to_thread(replica.resume)
            await in_rotation(database, 1)
            async with database.session() as session:
                await session.exec(select(Label.name))
            assert heard.take() == [replica.port]
            await goes_on(database)
        heard.end()


async def test_a_replica_that_dies_between_looks_fails_nobody_and_one_read_only():
    """Nobody has looked since: its connections are dead, and nobody is let in."""
    async with replicated() as servers, reading_from_replicas(servers) as database:
        (replicas,) = database._replicas.values()
        replicas._task.cancel()
        await asyncio.wait([replicas._task])
        await asyncio.to_thread(servers.replicas[0].crash)
        heard = Heard()
        for _ in range(3):
            session = database.session()
            replicas._task.cancel()  # a session begins the looking anew
            async with session:
                assert (await session.exec(select(Label.name))).all() == []
        heard.end()
        assert heard.take() == [servers.primary.port] * 3
        assert database.replica_health()[0].trouble is not None


async def test_a_black_hole_is_found_by_looking(servers: Servers):
    """Reads that are under way wait for their bound; those that come later do not meet it."""
    await fill(servers)
    async with faulty(servers.replicas[0].url()) as (through, faults):
        given = {"replicas": (through,), "answer_timeout": 0.5, "connect_timeout": 0.5}
        async with reading_from_replicas(servers, **given) as database:
            async with database.session() as session:
                await session.exec(select(Label.name))
                faults.freeze()
                with pytest.raises(NoAnswer):
                    await session.exec(select(Label.name))
                assert len((await session.exec(select(Label.name))).all()) == 2
            await in_rotation(database, 0)
            (replicas,) = database._replicas.values()
            before = replicas._rotation.latest
            await asyncio.sleep(0.5)
            assert replicas._rotation.latest is not before, "the others are looked at as often as ever"
            started = time.monotonic()
            async with database.session() as session:
                assert len((await session.exec(select(Label.name))).all()) == 2
            assert time.monotonic() - started < 0.4
            faults.thaw()
            await in_rotation(database, 1)


async def test_relationships_are_loaded_from_the_replica_too(servers: Servers):
    """Instances are the same, and what is loaded for them comes from where they came from."""
    await sql(servers.primary, "TRUNCATE person CASCADE")
    direct = Database(servers.primary.url())
    async with direct.session() as session:
        for name in ("a", "b"):
            session.add(Person(name=name, jobs=[Job(title=f"{name}{number}") for number in range(3)]))
        await session.commit()
    await caught_up(servers)

    async def seen(database: Database) -> list[object]:
        async with database.session() as session:
            people = (await session.exec(select(Person).order_by(Person.name))).all()
            assert (await session.get(Person, people[0].id)) is people[0]
            jobs = [
                await session.run_sync(lambda _, each=each: sorted(j.title for j in each.jobs))
                for each in people
            ]
            done = (await session.exec(select(Job).where(col(Job.done).is_(False)).order_by(Job.title))).all()
            return [[each.model_dump() for each in people], jobs, [each.model_dump() for each in done]]

    expected = await seen(direct)
    await direct.close()
    async with reading_from_replicas(servers) as database:
        await looked_again(database)
        heard = Heard()
        assert await seen(database) == expected
        assert set(heard.take()) == {servers.replicas[0].port}
        heard.end()
        await eventually(lambda: database.leases() == (), "a lease is left")
