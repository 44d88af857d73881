"""A live PostgreSQL server: sessions, limits and replicas, on a server of their own where needed."""

import asyncio
from collections.abc import Iterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from sqlalchemy import NullPool, text

from catalysis import Database, DatabaseSettings
from catalysis.doctor import examine
from tests.doctor.conftest import alone, of, said, send
from tests.servers import PostgresServer, free_port


@asynccontextmanager
async def client(database: Database, name: str = "billing"):
    """A connection of somebody else."""
    url = database.settings.url.replace("+asyncpg", "")
    connection = await asyncpg.connect(url, server_settings={"application_name": name})
    try:
        yield connection
    finally:
        connection.terminate()


# --- Sessions -------------------------------------------------------------------------------------


async def test_a_transaction_in_which_nothing_happens(postgres):
    async with client(postgres) as connection:
        await connection.execute("BEGIN; SELECT 'canary-secret'")
        pid = connection.get_server_pid()
        assert said(await alone(postgres)) == []  # not for long yet
        (complaint,) = of(await alone(postgres, idle=0), "D301")
        assert (complaint.subject, complaint.severity) == (f"process {pid}", "warning")
        assert complaint.message.startswith("'billing' does nothing for 0 s, in a transaction that is ")
        assert "canary" not in str(complaint)
        await send(postgres, complaint.mend.partition(";")[0])
        assert of(await alone(postgres, idle=0), "D301") == []


async def test_a_client_without_a_name(postgres):
    async with client(postgres, "") as connection:
        await connection.execute("BEGIN")
        (complaint,) = of(await alone(postgres, idle=0), "D301")
        assert complaint.message.startswith("A client without a name does")


async def test_a_session_without_a_transaction(postgres):
    async with client(postgres) as connection:
        await connection.execute("SELECT 1")
        assert said(await alone(postgres, idle=0, running=0)) == []


async def test_a_statement_that_runs_for_long_and_waits(postgres):
    async with client(postgres, "holder") as holder, client(postgres) as waiter:
        await holder.execute("SELECT pg_advisory_lock(7)")
        waiting = asyncio.create_task(waiter.execute("SELECT 'canary-secret', pg_advisory_lock(7)"))
        blocked = "SELECT count(*) FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) > 0"
        while not await holder.fetchval(blocked):  # noqa: ASYNC110 - the server tells of it in no other way
            await asyncio.sleep(0.01)
        assert of(await alone(postgres), "D302") == []
        (complaint,) = of(await alone(postgres, running=0), "D302")
        assert complaint.subject == f"process {waiter.get_server_pid()}"
        assert f"waiting for a lock of {holder.get_server_pid()}" in complaint.message
        assert "canary" not in str(complaint)
        await send(postgres, complaint.mend.partition(";")[0])
        with pytest.raises(asyncpg.QueryCanceledError):
            await waiting


async def test_the_role_s_own_sessions_are_seen_without_statistics(postgres, stranger):
    async with client(postgres) as theirs, client(stranger, "own") as own:
        await theirs.execute("BEGIN")
        await own.execute("BEGIN")
        found = await alone(stranger, idle=0)
        assert [each.subject for each in of(found, "D301")] == [f"process {own.get_server_pid()}"]
        assert "D301" in {each.code for each in found.skipped}


# --- Limits ---------------------------------------------------------------------------------------


async def test_pools_and_the_server_s_connections(postgres_url):
    """The server allows 200, three of them for superusers."""
    database = Database(DatabaseSettings.load(url=postgres_url, pool_size=50, max_overflow=48))
    try:
        assert of(await alone(database, processes=2), "D304") == []
        (complaint,) = of(await alone(database, processes=3), "D304")
        assert complaint.severity == "error"
        assert "3 times 98 connections" in complaint.message
        assert "max_connections leaves 197" in complaint.message
        assert "of 65 at most" in complaint.mend
    finally:
        await database.close()


@pytest.mark.parametrize(
    ("limited", "told"),
    [("ROLE {role}", "the role is allowed 25"), ("DATABASE {database}", "the database allows 25")],
)
async def test_limits_of_a_role_and_of_a_database(postgres, stranger, limited, told):
    async with stranger.engine.connect() as connection:
        names = (
            await connection.execute(text("SELECT current_user AS role, current_database() AS database"))
        ).one()
    what = limited.format(**names._mapping)
    try:
        await send(postgres, f"ALTER {what} CONNECTION LIMIT 25")
        assert of(await alone(stranger), "D304") == []
        (complaint,) = of(await alone(stranger, processes=2), "D304")
        assert told in complaint.message
    finally:
        await send(postgres, f"ALTER {what} CONNECTION LIMIT -1")


async def test_pools_without_a_bound_and_poolers_are_skipped(postgres_url):
    unbounded = Database(postgres_url, poolclass=NullPool)
    pooled = Database(DatabaseSettings.load(url=postgres_url, pooler="transaction"))
    for database, reason in ((unbounded, "no bound"), (pooled, "a pooler stands before")):
        found = await alone(database, processes=1000)
        assert of(found, "D304") == []
        assert reason in next(each.reason for each in found.skipped if each.code == "D304")
        await database.close()


async def test_old_transaction_ids(postgres):
    assert of(await alone(postgres), "D305") == []
    found = of(await alone(postgres, transaction_ids=1), "D305")
    assert found
    assert {each.severity for each in found} == {"error"}  # more than twice the limit
    async with postgres.engine.connect() as connection:
        age = await connection.scalar(text("SELECT max(age(datfrozenxid)) FROM pg_database"))
    found = of(await alone(postgres, transaction_ids=age), "D305")
    assert {each.severity for each in found} == {"warning"}


# --- With a server of their own -------------------------------------------------------------------


@pytest.fixture(scope="module")
def primary() -> Iterator[PostgresServer]:
    server = PostgresServer.start("max_prepared_transactions=5", "wal_level=replica")
    yield server
    server.stop()


@pytest.fixture
def replica(primary: PostgresServer) -> Iterator[PostgresServer]:
    """A streaming replica of `primary`."""
    server = primary.replica(name="second")
    yield server
    server.stop()


async def test_a_slot_that_nobody_reads(primary):
    """A server's slots keep what all its databases write: here nobody else writes."""
    database = Database(primary.url())
    await send(database, "SELECT pg_create_physical_replication_slot('left', true)")
    assert of(await alone(database), "D308") == []  # it keeps little yet
    (complaint,) = of(await alone(database, lag_bytes=0), "D308")
    assert complaint.subject == "replication slot left"
    await send(database, complaint.mend.partition(";")[0])
    assert of(await alone(database, lag_bytes=0), "D308") == []
    await database.close()


async def test_a_prepared_transaction_that_nobody_ends(primary):
    database = Database(primary.url())
    async with client(database) as connection:
        await connection.execute(
            "BEGIN; CREATE TABLE p (id integer PRIMARY KEY); PREPARE TRANSACTION 'it''s'"
        )
    assert of(await alone(database), "D303") == []  # not for long yet
    (complaint,) = of(await alone(database, prepared=0), "D303")
    assert complaint.subject == "prepared transaction 'it''s'"
    await send(database, complaint.mend.partition(";")[0])
    assert of(await alone(database, prepared=0), "D303") == []
    await database.close()


async def test_the_lag_of_a_replica(primary, replica):
    """Seen from the primary, and at the replica, which here stops replaying."""
    settings = DatabaseSettings.load(url=primary.url(), replicas=[replica.url()])
    database, standby = Database(settings), Database(replica.url())
    try:
        await send(database, "CREATE TABLE IF NOT EXISTS lagging (id integer PRIMARY KEY)")
        await caught_up(database)
        assert said(await alone(database, lag_bytes=1 << 20, lag=30)) == []
        assert said(await examine(database, ())) == []

        await send(standby, "SELECT pg_wal_replay_pause()")
        await send(database, "INSERT INTO lagging SELECT n FROM generate_series(1, 2000) n")
        found = of(await alone(database, lag_bytes=10_000), "D306")
        assert {each.subject.split(" of ")[0] for each in found} == {"replica 'second'", "replica 1"}
        assert all("kB" in each.message for each in found)
        assert [
            each.subject for each in of(await alone(database, lag=0), "D306") if "REPLICAS" in each.subject
        ] == ["replica 1 of DATABASE_REPLICAS"]
        assert of(await alone(database), "D306") == []  # neither far nor long behind

        await send(standby, "SELECT pg_wal_replay_resume()")
        await caught_up(database)
        assert of(await alone(database, lag_bytes=10_000), "D306") == []
        at_replica = [each for each in of(await alone(database, lag=0), "D306") if "REPLICAS" in each.subject]
        assert at_replica == []  # whenever its last transaction was: there is nothing left to replay
        assert said(await alone(standby, unused=1 << 40)) == []  # a replica is examined like any database
    finally:
        await database.close()
        await standby.close()


async def test_the_time_that_a_replica_takes(primary, replica):
    database, standby = Database(primary.url()), Database(replica.url())
    try:
        await send(standby, "ALTER SYSTEM SET recovery_min_apply_delay = '300ms'", "SELECT pg_reload_conf()")
        await send(database, "CREATE TABLE IF NOT EXISTS lagging (id integer PRIMARY KEY)")
        await send(database, "TRUNCATE lagging", "INSERT INTO lagging VALUES (1)")
        await caught_up(database)
        (complaint,) = of(await alone(database, lag=0.2), "D306")
        assert complaint.subject.startswith("replica 'second' of process ")
        assert complaint.message == "It is 0 s behind."
        assert of(await alone(database, lag=30), "D306") == []
    finally:
        await database.close()
        await standby.close()


async def caught_up(database: Database) -> None:
    behind = text("SELECT pg_current_wal_lsn() <> replay_lsn FROM pg_stat_replication")
    async with database.engine.connect() as connection:
        while await connection.scalar(behind) is not False:
            await connection.rollback()
            await asyncio.sleep(0.02)


async def test_replicas_that_are_none_or_not_there(primary):
    nowhere = f"postgresql://someone:canary-secret@127.0.0.1:{free_port()}/x"
    settings = DatabaseSettings.load(url=primary.url(), replicas=[nowhere, primary.url()])
    database = Database(settings)
    found = await examine(database, ())
    assert said(found) == [("D307", "error", "replica 1 of DATABASE_REPLICAS")]
    assert [each.reason for each in found.skipped if each.code == "D306"] == [
        "replica 2 is no physical standby, so its lag is not known"
    ]
    assert "canary" not in str(found)
    assert "127.0.0.1" not in str(found)
    await database.close()
