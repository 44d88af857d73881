"""12. The primary dies and a replica is promoted: writes go on there without a restart, and nothing is lost or doubled.

Under load: eight lanes, half of them with `transaction`, and readers.  The replica is synchronous, so that what was
acknowledged is there; what becomes of asynchronous ones is PostgreSQL's.

Mutations seen to fail: `connect` without `target_session_attrs` (it stays with a replica that takes no writes); without
the other hosts (nobody comes back); without `HEAD_START` (a host that has vanished takes the whole `connect_timeout`);
`is_replayable` without `CannotConnect`, or whatever its cause; `_none_of` without the refusals that will not pass; a
bare TimeoutError of the only host; attempts that are not needed any more go on, or are not closed.
"""

import asyncio
import gc
import pickle
import time
import warnings
from collections import Counter
from contextlib import suppress

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlmodel import select

from catalysis import CannotConnect, CatalysisError, CommitOutcomeUnknown, Database, DatabaseSettings, Session
from tests.faults.checks import eventually, goes_on, names
from tests.faults.stepping import cancelled_at
from tests.models import Label, made
from tests.proxy import faulty
from tests.replication import Servers, in_rotation, replicated, sql
from tests.servers import PostgresServer

RESUMES_WITHIN = 2.0
"""Seconds from asking for the promotion to the first write that is acknowledged."""


class Load:
    """Writers that number their rows, and remember what became of each."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.acknowledged: dict[int, float] = {}
        self.unknown = set[int]()
        self.failed = set[int]()
        self.read_at: list[float] = []
        self.ends = asyncio.Event()

    async def write(self, lane: int) -> None:
        number = lane
        while not self.ends.is_set():
            number += 8
            try:
                await (self._by_transaction(number) if lane % 2 else self._by_commit(number, lane))
                self.acknowledged[number] = time.monotonic()
            except CommitOutcomeUnknown:
                self.unknown.add(number)
            except (DBAPIError, OSError):
                self.failed.add(number)
                await asyncio.sleep(0.01)

    async def _by_commit(self, number: int, lane: int) -> None:
        async with self.database.session() as session:
            await session.execute(_insert, {"number": number})
            if lane % 4:
                await session.execute(text("SELECT 1"))
            await session.commit()

    async def _by_transaction(self, number: int) -> None:
        async def work(session: Session) -> None:
            await session.execute(_insert, {"number": number})

        await self.database.transaction(work)

    async def read(self) -> None:
        while not self.ends.is_set():
            with suppress(DBAPIError, OSError):
                async with self.database.session() as session:
                    await session.exec(select(Label.name))
                self.read_at.append(time.monotonic())
            await asyncio.sleep(0.01)


_insert = text("INSERT INTO written VALUES (:number)")


async def _becomes_synchronous(servers: Servers) -> None:
    await sql(servers.primary, "CREATE TABLE written (number int)")
    await sql(servers.primary, "ALTER SYSTEM SET synchronous_standby_names = '*'")
    await sql(servers.primary, "SELECT pg_reload_conf()")

    async def is_synchronous() -> bool:
        return await sql(servers.primary, "SELECT bool_or(sync_state = 'sync') FROM pg_stat_replication")

    await eventually(is_synchronous, "it stayed asynchronous")


@pytest.mark.parametrize("same_hosts", [True, False], ids=["replicas: the same hosts", "no replicas"])
async def test_failover_under_load(same_hosts: bool):
    async with replicated() as servers:
        await _becomes_synchronous(servers)
        (replica,) = servers.replicas
        hosts = servers.several_hosts()
        database = Database(servers.settings(url=hosts, replicas=(hosts,) if same_hosts else ()))
        load = Load(database)
        try:
            async with asyncio.TaskGroup() as lanes:
                for lane in range(8):
                    lanes.create_task(load.write(lane))
                for _ in range(2):
                    lanes.create_task(load.read())
                await eventually(lambda: len(load.acknowledged) > 100, "no load")
                await asyncio.to_thread(servers.primary.crash)
                crashed = time.monotonic()
                await asyncio.sleep(0.3)
                asked = time.monotonic()
                await asyncio.to_thread(replica.promote)
                promoted = time.monotonic()
                await eventually(lambda: any(at > promoted for at in load.acknowledged.values()), "no write")
                await asyncio.sleep(0.5)
                load.ends.set()
            first = min(at for at in load.acknowledged.values() if at > crashed)
            print(f"\nwrites resumed {first - asked:.3f} s after the promotion was asked for")
            assert first - asked < RESUMES_WITHIN
            assert load.failed or load.unknown, "nothing was under way"
            found = Counter(await _numbers(replica))
            assert load.acknowledged.keys() <= found.keys(), "an acknowledged row is lost"
            assert set(found.values()) == {1}, "a row is there twice"
            assert not load.failed & found.keys(), "what failed for certain is there"
            if same_hosts:
                between = [at for at in load.read_at if crashed + 0.1 < at < promoted]
                assert between, "the replica serves reads while there is no primary"
                assert [each.trouble for each in database.replica_health()][1] == "not a replica"
            await goes_on(database)
        finally:
            load.ends.set()
            await database.close()


async def _numbers(server: PostgresServer) -> list[int]:
    return await sql(server, "SELECT array_agg(number) FROM written")


async def test_a_transaction_waits_out_a_short_failover():
    """`transaction` is run again after a failure to connect too: nothing of it was sent."""
    async with replicated() as servers:
        (replica,) = servers.replicas
        database = Database(DatabaseSettings(url=servers.several_hosts()))
        try:
            assert await names(database) == []
            await asyncio.to_thread(servers.primary.crash)
            with pytest.raises(CannotConnect, match=r"ConnectionRefused.*may not be written to"):
                await names(database)

            async def work(session: Session) -> None:
                session.add(Label(name="kept"))

            promoting = asyncio.create_task(asyncio.to_thread(replica.promote))
            await database.transaction(work, retries=20)
            await promoting
            assert await names(database) == ["kept"]
        finally:
            await database.close()


async def test_the_old_primary_becomes_a_replica_and_is_read_from():
    async with replicated() as servers:
        (replica,) = servers.replicas
        hosts = servers.several_hosts()
        database = Database(servers.settings(url=hosts, replicas=(hosts,)))
        try:
            await in_rotation(database, 1)
            await asyncio.to_thread(servers.primary.shut_down)
            await asyncio.to_thread(replica.promote)
            async with database.session() as session:
                session.add(Label(name="after"))
                await session.commit()
            await asyncio.to_thread(servers.primary.follow, replica)
            await in_rotation(database, 1)
            old, new = database.replica_health()
            assert (old.in_rotation, new.trouble) == (True, "not a replica")
            async with database.session(after=await database.write_token()) as session:
                assert (await session.exec(select(Label.name))).all() == ["after"]
        finally:
            await database.close()


# --- Connecting -----------------------------------------------------------------------------------


async def test_a_host_that_has_vanished_holds_nobody_up(postgres_url: str):
    async with faulty(postgres_url) as (through, faults):
        faults.freeze()
        hosts = [each.split("@")[1].split("/")[0] for each in (through, postgres_url)]
        name = postgres_url.rsplit("/", 1)[1]
        url = f"postgresql://postgres@{','.join(hosts)}/{name}"
        async with asyncio.timeout(8), made(DatabaseSettings(url=url, connect_timeout=10)) as database:
            await goes_on(database)
        faults.thaw()


async def test_cancelled_while_connecting_nothing_is_left(postgres_url: str):
    """Several attempts are under way then; one may have come through."""
    async with faulty(postgres_url) as (through, faults):
        faults.freeze()
        url = postgres_url.replace("@", f"@127.0.0.1:{make_url(through).port},127.0.0.1:1,")

        async def use() -> None:
            async with database.engine.connect():
                pass

        for late in (False, True):
            for step in range(1, 100):
                database = Database(DatabaseSettings(url=url))
                went_on = await cancelled_at(use(), step, late=late)
                await eventually(lambda: not _attempts(), "an attempt goes on")
                await database.close()
                if not went_on:
                    break
            assert 2 < step < 99
        faults.thaw()


def _attempts() -> list[asyncio.Task[object]]:
    return [task for task in asyncio.all_tasks() if task.get_coro().__qualname__ == "connect"]


async def test_those_that_come_second_are_closed(postgres_url: str, monkeypatch: pytest.MonkeyPatch):
    """By us: the driver would do it when it is collected, with a ResourceWarning."""
    monkeypatch.setattr("catalysis.engine.drivers.connecting.HEAD_START", 0)
    host = postgres_url.split("@")[1].split("/")[0]
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for _ in range(10):
            database = Database(DatabaseSettings(url=postgres_url.replace("@", f"@{host},{host},")))
            async with database.engine.connect():
                await eventually(lambda: not _attempts(), "an attempt goes on")
            await database.close()
        gc.collect()
    assert [str(each.message) for each in warned if "unclosed" in str(each.message)] == []


async def test_no_host_answers(postgres_url: str):
    async with faulty(postgres_url) as (through, faults):
        faults.freeze()
        for url in (through, through.replace("@", "@127.0.0.1:1,")):
            database = Database(DatabaseSettings(url=url, connect_timeout=0.4))
            runs = 0

            async def work(session: Session) -> None:
                nonlocal runs
                runs += 1
                await session.connection()

            for waits in (names(database), database.transaction(work)):
                with pytest.raises(CannotConnect, match="DATABASE_CONNECT_TIMEOUT") as caught:
                    async with asyncio.timeout(10):
                        await waits
                assert isinstance(caught.value, CatalysisError | DBAPIError)
                assert isinstance(caught.value, TimeoutError)
                assert isinstance(pickle.loads(pickle.dumps(caught.value)), CannotConnect)
            assert runs == 1, "each time would take as long"
            await database.close()
        faults.thaw()


async def test_a_wrong_password_is_not_taken_for_a_host_that_is_down(postgres_url: str):
    port = int(postgres_url.split(":")[-1].split("/")[0])
    database = Database(f"postgresql://postgres@127.0.0.1:1,127.0.0.1:{port}/there_is_none")
    with pytest.raises(Exception, match='database "there_is_none" does not exist'):
        await names(database)
    await database.close()
