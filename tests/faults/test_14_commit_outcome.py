"""14. The COMMIT's reply is lost: `CommitOutcomeUnknown`, and never done again by itself.

Also what else becomes of a transaction whose connection or server dies, at whatever step.

Mutation seen to fail: `was_lost` returns False (a DBAPIError that says "try again", and `transaction` does so).
"""

import asyncio
import pickle
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError

from catalysis import CatalysisError, CommitOutcomeUnknown, Database, DatabaseSettings, Session
from catalysis.engine.alchemy.committing import outcome_unknown, was_lost
from tests.faults.checks import goes_on, names, through_a_proxy
from tests.models import Label, made
from tests.proxy import faulty
from tests.servers import PostgresServer


async def commit_one(database: Database, sql: str) -> None:
    async with database.session() as session:
        await session.execute(text(sql))
        await session.commit()


async def idle_in_transaction(database: Database) -> int:
    async with database.engine.connect() as connection:
        found = await connection.execute(
            text(
                "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' "
                "AND datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
        return found.scalar_one()


# --- Every way to commit --------------------------------------------------------------------------


async def by_commit(database: Database, write: Callable[[Session], Awaitable[None]]) -> None:
    async with database.session() as session:
        await write(session)
        await session.commit()


async def by_begin(database: Database, write: Callable[[Session], Awaitable[None]]) -> None:
    async with database.session() as session, session.begin():
        await write(session)


async def by_transaction(database: Database, write: Callable[[Session], Awaitable[None]]) -> None:
    await database.transaction(write)


async def by_transaction_object(database: Database, write: Callable[[Session], Awaitable[None]]) -> None:
    async with database.session() as session:
        begun = await session.begin()
        await write(session)
        await begun.commit()


async def by_run_sync(database: Database, write: Callable[[Session], Awaitable[None]]) -> None:
    async with database.session() as session:
        await write(session)
        await session.run_sync(lambda sync: sync.commit())


async def by_stock_engine(database: Database, write: Callable[[Session], Awaitable[None]]) -> None:
    async with Session(database.engine) as session:
        await write(session)
        await session.commit()


WAYS = [by_commit, by_begin, by_transaction, by_transaction_object, by_run_sync, by_stock_engine]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("place", "is_there"), [("request", False), ("reply", True)])
async def test_a_commit_without_a_reply(postgres_url: str, way, place: str, is_there: bool):
    runs = 0

    async with through_a_proxy(postgres_url) as (database, faults, direct):

        async def write(session: Session) -> None:
            nonlocal runs
            runs += 1
            session.add(Label(name="x"))
            session.add(Label(name="y"))
            await session.flush()
            faults.cut(b"COMMIT", place)

        with pytest.raises(CommitOutcomeUnknown, match="may or may not have been committed") as caught:
            await way(database, write)
        assert faults.struck.is_set()
        assert runs == 1, "never run again by itself"
        assert await names(direct) == (["x", "y"] if is_there else [])
        assert isinstance(caught.value.__cause__, DBAPIError)
        assert caught.value.connection_invalidated
        await goes_on(database)
        assert await idle_in_transaction(direct) == 0


@pytest.mark.parametrize(("place", "is_there"), [("request", False), ("reply", True)])
@pytest.mark.parametrize("way", [by_commit, by_transaction])
async def test_one_row_without_a_reply(postgres_url: str, way, place: str, is_there: bool):
    """A flush of one row that a commit ends with is a statement that commits by itself: the same holds for it."""
    async with through_a_proxy(postgres_url) as (database, faults, direct):

        async def write(session: Session) -> None:
            nonlocal runs
            runs += 1
            session.add(Label(name=f"only row {runs}"))

        runs = 0
        await way(database, write)
        faults.cut(b"only row 2", place)
        with pytest.raises(CommitOutcomeUnknown, match="commits by itself") as caught:
            await way(database, write)
        assert runs == 2, "never run again by itself"
        assert str(caught.value.statement).startswith("INSERT INTO label")
        assert "only row" not in str(caught.value)
        assert await names(direct) == ["only row 1", "only row 2"][: 1 + is_there]
        await goes_on(database)


async def test_the_session_goes_on_after_a_rollback(postgres_url: str):
    async with through_a_proxy(postgres_url) as (database, faults, direct), database.session() as session:
        session.add(Label(name="x"))
        await session.flush()
        faults.cut(b"COMMIT", "reply")
        with pytest.raises(CommitOutcomeUnknown):
            await session.commit()
        await session.rollback()
        session.add(Label(name="y"))
        await session.commit()
        assert await names(direct) == ["x", "y"]


async def test_handlers_of_stock_errors_match():
    for lost in (
        ConnectionResetError("x"),
        TimeoutError(),
        DBAPIError(None, None, OSError(), connection_invalidated=True),
    ):
        assert was_lost(lost)
        error = outcome_unknown(lost)
        assert isinstance(error, DBAPIError)
        assert isinstance(error, CatalysisError)
        assert not isinstance(error, OperationalError)
        assert outcome_unknown(error) is error
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again)) == (CommitOutcomeUnknown, str(error))


def test_the_statement_that_commits_by_itself_is_named_without_its_parameters():
    lost = DBAPIError(
        "INSERT INTO t VALUES ($1)", ("hunter2",), ConnectionResetError(), connection_invalidated=True
    )
    error = outcome_unknown(lost)
    assert "a statement that commits by itself" in str(error)
    assert "INSERT INTO t" in str(error)
    assert "hunter2" not in str(error) + repr(error)


# --- What is known, and stays as it was -----------------------------------------------------------


@pytest.mark.parametrize("place", ["request", "reply"])
async def test_a_flush_that_is_cut_is_no_commit(postgres_url: str, place: str):
    async with through_a_proxy(postgres_url) as (database, faults, direct):

        async def write(session: Session) -> None:
            session.add(Label(name="x"))
            session.add(Label(name="y"))
            await session.connection()
            faults.cut(b"label", place)

        with pytest.raises(DBAPIError) as caught:
            await by_commit(database, write)
        assert not isinstance(caught.value, CommitOutcomeUnknown)
        assert await names(direct) == []
        await goes_on(database)


async def test_a_savepoint_that_is_cut_is_no_commit(postgres_url: str):
    async with through_a_proxy(postgres_url) as (database, faults, direct):

        async def write(session: Session) -> None:
            async with session.begin_nested():
                session.add(Label(name="x"))
                await session.flush()
                faults.cut(b"RELEASE", "reply")

        with pytest.raises(DBAPIError) as caught:
            await by_begin(database, write)
        assert not isinstance(caught.value, CommitOutcomeUnknown)
        assert await names(direct) == []
        await goes_on(database)


async def test_a_connection_that_was_closed_before_has_sent_no_commit(postgres_url: str):
    async with through_a_proxy(postgres_url) as (database, _, direct):
        async with database.session() as session:
            session.add(Label(name="x"))
            await session.flush()
            pid = (await session.execute(text("SELECT pg_backend_pid()"))).scalar_one()
            await terminate(direct, pid)
            raw = (await (await session.connection()).get_raw_connection()).driver_connection
            async with asyncio.timeout(5):
                while not raw.is_closed():  # noqa: ASYNC110 - the driver has no event for it
                    await asyncio.sleep(0.01)
            with pytest.raises(InterfaceError):
                await session.commit()
            await session.rollback()
        assert await names(direct) == []
        await goes_on(database)


async def test_a_refusal_is_an_answer(postgres_url: str):
    async with through_a_proxy(postgres_url) as (database, _, direct):
        async with direct.engine.begin() as connection:
            await connection.execute(text("CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)"))
        with pytest.raises(IntegrityError):
            await commit_one(database, "INSERT INTO late VALUES (1), (1)")
        await goes_on(database)


# --- COMMIT that takes its time -------------------------------------------------------------------

SLOW_COMMIT = """
CREATE TABLE slow (id int);
CREATE FUNCTION nap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(1); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER nap AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION nap()
"""


async def terminate(direct: Database, pid: int) -> None:
    async with direct.engine.connect() as connection:
        await connection.execute(text(f"SELECT pg_terminate_backend({pid})"))


async def make_slow(direct: Database) -> None:
    async with direct.engine.begin() as connection:
        for sql in SLOW_COMMIT.split(";\n"):
            await connection.exec_driver_sql(sql)


async def slow_rows(direct: Database) -> int:
    async with direct.engine.connect() as connection:
        return (await connection.execute(text("SELECT count(*) FROM slow"))).scalar_one()


async def test_the_backend_is_terminated_during_commit(postgres_url: str):
    async with through_a_proxy(postgres_url) as (database, _, direct):
        await make_slow(direct)

        async def commit() -> None:
            async with database.session() as session:
                await session.execute(text("INSERT INTO slow VALUES (1)"))
                pid.set_result((await session.execute(text("SELECT pg_backend_pid()"))).scalar_one())
                await session.commit()

        pid: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        committing = asyncio.create_task(commit())
        backend = await pid
        await asyncio.sleep(0.2)
        await terminate(direct, backend)
        with pytest.raises(CommitOutcomeUnknown):
            await committing
        assert await slow_rows(direct) == 0
        await goes_on(database)


async def test_the_drivers_time_is_up_during_commit(postgres_url: str):
    async with made(postgres_url) as direct:
        await make_slow(direct)
        settings = DatabaseSettings(url=postgres_url, pool_size=1, max_overflow=0)
        database = Database(settings, connect_args={"command_timeout": 0.2})
        with pytest.raises(CommitOutcomeUnknown, match="TimeoutError"):
            await commit_one(database, "INSERT INTO slow VALUES (1)")
        assert await slow_rows(direct) == 0
        await goes_on(database)
        await database.close()


async def test_the_server_stops_answering_during_commit(postgres_url: str):
    async with made(postgres_url) as direct, faulty(postgres_url) as (through, faults):
        settings = DatabaseSettings(url=through, pool_size=1, max_overflow=0)
        database = Database(settings, connect_args={"command_timeout": 0.3})

        async def write(session: Session) -> None:
            session.add(Label(name="x"))
            await session.flush()
            faults.cut(b"COMMIT", "silence")

        with pytest.raises(CommitOutcomeUnknown):
            await asyncio.wait_for(by_commit(database, write), 10)
        assert await names(direct) == ["x"]
        await goes_on(database)
        await database.close()


async def test_a_cancellation_during_commit_stays_one(postgres_url: str):
    async with through_a_proxy(postgres_url) as (database, _, direct):
        await make_slow(direct)
        committing = asyncio.create_task(commit_one(database, "INSERT INTO slow VALUES (1)"))
        await asyncio.sleep(0.3)
        committing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await committing
        await goes_on(database)
        assert await idle_in_transaction(direct) == 0


# --- At any step ----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["request", "reply"])
async def test_cut_at_any_request_all_or_nothing_is_there(postgres_url: str, place: str):
    """The connection is cut at the k-th request, for all k; the error says if the outcome is known."""
    async with through_a_proxy(postgres_url) as (database, faults, direct):
        await goes_on(database)  # connected, so that the requests below are the transaction's
        outcomes: list[type[Exception] | None] = []
        for step in range(40):
            pair = {f"{step} a", f"{step} b"}
            faults.cut(step, place)
            try:
                async with database.session() as session:
                    first, *_ = [Label(name=name) for name in sorted(pair)]
                    session.add(first)
                    await session.flush()
                    session.add(Label(name=f"{step} b"))
                    await session.commit()
            except DBAPIError as failure:
                outcomes.append(type(failure))
                kept = pair & set(await names(direct))
                if not isinstance(failure, CommitOutcomeUnknown):
                    assert not kept
                else:
                    assert kept == (pair if place == "reply" else set())
            else:
                faults.clear()
                assert pair <= set(await names(direct))
                outcomes.append(None)
                break
            await goes_on(database)
        *before, at_commit, last = outcomes
        assert last is None, "a step was found at which nothing more is sent"
        assert at_commit is CommitOutcomeUnknown
        assert CommitOutcomeUnknown not in before
        assert len(before) >= 3


async def test_the_server_crashes_while_transactions_commit():
    """Every acknowledged pair is there after recovery, no half of one is, and a known failure left nothing."""
    server = await asyncio.to_thread(PostgresServer.start)
    try:
        async with made(DatabaseSettings(url=server.url(), pool_size=8)) as database:
            outcomes: dict[int, type[BaseException] | None] = {}
            stop = asyncio.Event()

            async def write(lane: int) -> None:
                number = lane
                while not stop.is_set():
                    number += 8
                    try:
                        async with database.session() as session, session.begin():
                            session.add(Label(name=f"{number} a"))
                            await session.flush()
                            session.add(Label(name=f"{number} b"))
                        outcomes[number] = None
                    except (DBAPIError, OSError) as failure:
                        outcomes[number] = type(failure)
                        await asyncio.sleep(0.01)

            async with asyncio.TaskGroup() as lanes:
                for lane in range(8):
                    lanes.create_task(write(lane))
                for _ in range(2):
                    await asyncio.sleep(0.3)
                    await asyncio.to_thread(server.crash)
                    await asyncio.to_thread(server.resume)
                await asyncio.sleep(0.2)
                stop.set()
            found = set(await names(database))
            for number, outcome in outcomes.items():
                kept = {f"{number} a", f"{number} b"} & found
                assert len(kept) in (0, 2), f"half of {number} is there"
                if outcome is None:
                    assert kept, f"{number} was acknowledged"
                elif outcome is not CommitOutcomeUnknown:
                    assert not kept, f"{number} failed with {outcome.__name__}"
            assert list(outcomes.values()).count(None) > 20
            assert set(outcomes.values()) != {None}
            assert max(number for number, outcome in outcomes.items() if outcome is None) > 8
            assert database.pool_figures().lent == 0
    finally:
        await asyncio.to_thread(server.stop)
