"""18. A replica that does not replay: nobody who has written, or has a token, reads what was before.

Mutations seen to fail: `Route.met_primary` notes nothing, or is not told of reads (`run.fetch`); `Rotation.choose`
without its comparison of the sample's time; `Replicas` takes that time when the primary has answered; `Replica.serves`
without the position; a token is not heeded; a replica stays in rotation whatever its lag; sessions take another replica
each time; `note_write` does nothing, or what it notes is not heeded; `Replicas.route` shares no writes with the tasks
that are started; requests share theirs (`share_no_more`); `hear_commits` does nothing, or is not told of what commits
by itself; a session at AUTOCOMMIT counts as one that has only read.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import Context

import pytest
from sqlalchemy import insert, text
from sqlmodel import select

from catalysis import Database, InvalidToken, Session, TransactionMisused, bulk_insert
from catalysis.integrations.asgi import ManagedScope
from tests.faults.checks import eventually
from tests.models import Label
from tests.replication import (
    Heard,
    Servers,
    caught_up,
    in_rotation,
    looked_again,
    reading_from_replicas,
    sql,
)


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    servers = Servers.start()
    yield servers
    servers.stop()


@pytest.fixture
async def paused(servers: Servers) -> AsyncIterator[Database]:
    """Its replica is in rotation, and does not replay."""
    (replica,) = servers.replicas
    await sql(servers.primary, "TRUNCATE label")
    await caught_up(servers)
    async with reading_from_replicas(servers) as database:
        await sql(replica, "SELECT pg_wal_replay_pause()")
        try:
            yield database
        finally:
            await sql(replica, "SELECT pg_wal_replay_resume()")


async def names(session: Session) -> list[str]:
    return sorted((await session.exec(select(Label.name))).all())


async def elsewhere(database: Database, **given: object) -> list[str]:
    """What another request reads."""

    async def seen() -> list[str]:
        async with database.session(**given) as session:
            return await names(session)

    return await asyncio.create_task(seen(), context=Context())


async def by_one_row(database: Database, session: Session) -> None:
    session.add(Label(name="new"))
    await session.commit()


async def by_two_flushes(database: Database, session: Session) -> None:
    session.add(Label(name="new"))
    await session.flush()
    await session.commit()


async def by_textual_sql(database: Database, session: Session) -> None:
    await session.execute(
        text(
            "INSERT INTO label (id, created_at, updated_at, name) VALUES (gen_random_uuid(), now(), now(), 'new')"
        )
    )
    await session.commit()


async def by_insert(database: Database, session: Session) -> None:
    await session.execute(insert(Label).values(name="new"))
    await session.commit()


async def by_bulk(database: Database, session: Session) -> None:
    await bulk_insert(session, Label, [{"name": "new"}])
    await session.commit()


async def by_connection(database: Database, session: Session) -> None:
    connection = await session.connection()
    await connection.execute(insert(Label).values(name="new"))
    await session.commit()


async def by_begin(database: Database, session: Session) -> None:
    await session.commit()  # its reads have begun one, as SQLAlchemy's do
    async with session.begin():
        session.add(Label(name="new"))


async def by_run_sync(database: Database, session: Session) -> None:
    def work(sync) -> None:
        sync.add(Label(name="new"))
        sync.commit()

    await session.run_sync(work)


WAYS: list[Callable[[Database, Session], Awaitable[None]]] = [
    by_one_row,
    by_two_flushes,
    by_textual_sql,
    by_insert,
    by_bulk,
    by_connection,
    by_begin,
    by_run_sync,
]


@pytest.mark.parametrize("way", WAYS)
async def test_a_session_reads_its_own_writes(paused: Database, servers: Servers, way):
    """At once, and after the primary has been asked for its position, whichever way it wrote."""
    async with paused.session() as session:
        assert await names(session) == []
        await way(paused, session)
        assert await names(session) == ["new"]
        await looked_again(paused)
        assert await names(session) == ["new"]
        assert await elsewhere(paused) == [], "the replica is stale, and nobody promised more to others"


async def test_a_task_reads_its_own_writes_in_other_sessions_too(paused: Database):
    """In those that are open, and those that come; other tasks are other requests."""

    async def seen() -> list[str]:
        async with paused.session() as session:
            return await names(session)

    async def write(session: Session) -> None:
        session.add(Label(name="new"))

    async with paused.session() as session:
        assert await names(session) == await seen() == []
        await paused.transaction(write)
        assert await names(session) == await seen() == ["new"]
        await looked_again(paused)
        assert await names(session) == await seen() == ["new"]
    assert await asyncio.create_task(seen()) == ["new"], "a part of it"
    assert await elsewhere(paused) == []


async def by_wait_for(database: Database) -> None:
    """A task of its own, before Python 3.12."""
    async with database.session() as session:
        session.add(Label(name="new"))
        await asyncio.wait_for(session.commit(), 30)


async def by_gather(database: Database) -> None:
    async with database.session() as first, database.session() as second:
        await asyncio.gather(by_one_row(database, first), names(second))


async def by_thread(database: Database) -> None:
    async def work() -> None:
        async with database.session() as session:
            await by_one_row(database, session)
        await database.close()  # that loop's

    await asyncio.to_thread(asyncio.run, work())


async def by_engine(database: Database) -> None:
    async with database.engine.begin() as connection:
        await connection.execute(insert(Label).values(name="new"))


async def by_session_of_its_own(database: Database) -> None:
    async with Session(database.engine) as session:
        await by_one_row(database, session)


async def by_connections_commit(database: Database) -> None:
    async with database.session() as session:
        connection = await session.connection()
        await connection.execute(insert(Label).values(name="new"))
        await connection.commit()


async def by_autocommit(database: Database) -> None:
    async with database.session() as session:
        await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        await session.execute(insert(Label).values(name="new"))
        await session.rollback()
        assert await session.write_token() is not None


async def by_autocommit_alone(database: Database) -> None:
    """Without a word at the end: it is not lost, and nobody warns of that."""
    async with database.session() as session:
        await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        await session.execute(insert(Label).values(name="new"))


@pytest.mark.parametrize(
    "way",
    [
        by_wait_for,
        by_gather,
        by_thread,
        by_engine,
        by_session_of_its_own,
        by_connections_commit,
        by_autocommit,
        by_autocommit_alone,
    ],
)
async def test_a_task_reads_what_its_parts_wrote_in_whatever_way(
    paused: Database, way: Callable[[Database], Awaitable[None]]
):
    """In tasks that it has started, and past the session."""
    async with paused.session() as session:
        assert await names(session) == []
        await way(paused)
        assert await names(session) == ["new"]
    async with paused.session() as session:
        assert await names(session) == ["new"]


async def test_whoever_has_opened_a_session_has_parts(paused: Database):
    """Whether it has read or not."""

    async def work() -> None:
        async with paused.session() as session:
            await asyncio.create_task(by_gather(paused))
            assert await names(session) == ["new"]

    await asyncio.create_task(work(), context=Context())


async def test_a_request_is_nobodys_part(paused: Database):
    """Else one's writes would send the reads of all to the primary, where a task that has a session starts them."""

    async def write(*_: object) -> None:
        await by_gather(paused)
        async with paused.session() as session:
            assert await names(session) == ["new"]

    async with paused.session() as session:
        await names(session)
        request = ManagedScope(write)({"type": "http", "method": "POST", "path": "/"}, None, None)
        await asyncio.create_task(request)
        assert await names(session) == []


async def test_it_goes_back_to_the_replica_that_has_caught_up(paused: Database, servers: Servers):
    (replica,) = servers.replicas
    heard = Heard()
    try:
        async with paused.session() as session:
            await names(session)
            session.add(Label(name="new"))
            await session.commit()
            heard.take()
            await names(session)
            assert heard.take() == [servers.primary.port]
            await sql(replica, "SELECT pg_wal_replay_resume()")

            async def at_replica() -> bool:
                await looked_again(paused)  # it has met the primary by its last read
                assert await names(session) == ["new"]
                return heard.take() == [replica.port]

            await eventually(at_replica, "it stayed with the primary")
    finally:
        heard.end()


async def test_a_token_is_passed_on(paused: Database, servers: Servers):
    async with paused.session() as session:
        assert await session.write_token() is None
        await names(session)
        assert await session.write_token() is None, "it has only read, outside a transaction"
        session.add(Label(name="new"))
        await session.flush()
        with pytest.raises(TransactionMisused, match="Commit first"):
            await session.write_token()
        await session.commit()
        token = await session.write_token()
    assert token is not None
    for given in (token, await paused.write_token()):
        assert await elsewhere(paused, after=given) == ["new"]
        await looked_again(paused)
        assert await elsewhere(paused, after=given) == ["new"]
    for nothing in (None, ""):
        assert await elsewhere(paused, after=nothing) == []
    async with paused.session().on_primary() as session:
        assert await names(session) == ["new"]


async def test_a_token_is_served_by_a_replica_that_has_caught_up(servers: Servers):
    async with reading_from_replicas(servers) as database:
        token = await database.write_token()
        await caught_up(servers)
        await looked_again(database)
        heard = Heard()
        async with database.session(after=token) as session:
            await names(session)
        heard.end()
        assert heard.take() == [servers.replicas[0].port]


@pytest.mark.parametrize("token", ["x", "0/", "0/1 ", "1/FFFFFFFFF", "0/1;DROP TABLE label", "\uff10/1"])
async def test_what_is_no_token_is_refused(servers: Servers, token: str):
    database = Database(servers.settings())
    with pytest.raises(InvalidToken, match="write_token"):
        database.session(after=token)
    await database.close()


async def test_a_write_that_the_sample_was_too_early_for(servers: Servers):
    """The primary is asked for its position, then somebody commits, and only then it is heard what it said."""
    (replica,) = servers.replicas
    await sql(servers.primary, "TRUNCATE label")
    await caught_up(servers)
    async with reading_from_replicas(servers) as database:
        await sql(replica, "SELECT pg_wal_replay_pause()")
        try:
            (replicas,) = database._replicas.values()
            replicas._task.cancel()
            await asyncio.wait([replicas._task])
            asked, answered = asyncio.Event(), asyncio.Event()
            ask = replicas._primary.ask

            async def slowly():
                found = await ask()
                asked.set()
                await answered.wait()
                return found

            replicas._primary.ask = slowly
            look = asyncio.create_task(replicas.look())
            await asked.wait()
            async with database.session() as session:
                session.add(Label(name="new"))
                await session.commit()
                answered.set()
                await look
                assert await names(session) == ["new"]
        finally:
            await sql(replica, "SELECT pg_wal_replay_resume()")


async def test_reads_of_one_session_never_go_back(servers: Servers):
    """Of two replicas one stands still; whoever reads sees ever more, whichever server it is served by."""
    (replica,) = servers.replicas
    second = await asyncio.to_thread(servers.primary.replica, name="still")
    both = Servers(servers.primary, [replica, second])
    try:
        await sql(servers.primary, "TRUNCATE label")
        await caught_up(both)
        async with reading_from_replicas(both) as database:
            await sql(second, "SELECT pg_wal_replay_pause()")
            ports = set()
            heard = Heard()
            for number in range(6):
                await sql(
                    servers.primary,
                    "INSERT INTO label (id, created_at, updated_at, name) VALUES (gen_random_uuid(), now(), now(), $1)",
                    str(number),
                )
                await caught_up(servers)
                async with database.session() as session:
                    seen = 0
                    for _ in range(4):
                        found = len(await names(session))
                        assert found >= seen
                        seen = found
                    ports |= set(heard.take())
            heard.end()
            assert ports == {replica.port, second.port}, "sessions take turns"
    finally:
        await asyncio.to_thread(second.stop)


async def test_what_was_seen_at_the_primary_does_not_disappear(paused: Database, servers: Servers):
    """A replica is away for a moment, and comes back without what the primary has shown meanwhile."""
    (replicas,) = paused._replicas.values()
    async with paused.session() as session:
        replicas._task.cancel()  # so that the test looks when it wants to
        await asyncio.wait([replicas._task])
        replicas._rotation.replicas[0].leave("away")
        await sql(
            servers.primary,
            "INSERT INTO label (id, created_at, updated_at, name) VALUES (gen_random_uuid(), now(), now(), 'new')",
        )
        assert await names(session) == ["new"]
        await replicas.look()
        assert paused.replica_health()[0].in_rotation
        assert await names(session) == ["new"]


async def test_a_replica_that_lags_leaves_and_comes_back(servers: Servers):
    (replica,) = servers.replicas
    heard = Heard()
    try:
        async with reading_from_replicas(servers, replica_max_lag=0.3) as database:
            await sql(replica, "SELECT pg_wal_replay_pause()")
            await asyncio.sleep(0.5)
            assert database.replica_health()[0].in_rotation, (
                "nothing was written: it lacks nothing, however long ago"
            )
            await sql(servers.primary, "TRUNCATE label")
            await in_rotation(database, 0)
            (health,) = (await database.health()).replicas
            assert health.trouble == "behind the primary"
            assert health.lag_bytes is not None
            assert health.lag_bytes > 0
            assert health.lag_seconds is None or health.lag_seconds > 0.3
            heard.take()
            async with database.session() as session:
                await names(session)
            assert heard.take() == [servers.primary.port]
            await sql(replica, "SELECT pg_wal_replay_resume()")
            await in_rotation(database, 1)
            heard.take()
            async with database.session() as session:
                await names(session)
            assert heard.take() == [replica.port]
    finally:
        heard.end()
        await sql(replica, "SELECT pg_wal_replay_resume()")
