"""Functions in transactions: replayed whole, joined, in savepoints, isolated, and by decorator."""

import asyncio
import gc
import inspect
from contextlib import nullcontext, suppress
from functools import partial
from typing import Annotated, Any
from uuid import UUID
from weakref import ref

import httpx
import pytest
from fastapi import Body, FastAPI
from sqlalchemy import insert, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidRequestError
from sqlmodel import select

from catalysis import Database, DatabaseService, DatabaseSettings, QueryEvent, Session, TransactionMisused
from catalysis import transactions as transactions_module
from catalysis.events import heard_in_context
from tests.models import Label, Model, made
from tests.proxy import faulty


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions_module, "FIRST_PAUSE", 0.005)


async def names(database: Database) -> list[str]:
    async with database.session() as session:
        return sorted((await session.exec(select(Label.name))).all())


async def add(session: Session, name: str) -> None:
    session.add(Label(name=name))
    await session.flush()


async def key_of(database: Database, name: str) -> UUID:
    async with database.session() as session:
        return (await session.exec(select(Label.id).where(Label.name == name))).one()


async def rename(session: Session, key: UUID, name: str) -> None:
    await session.execute(update(Label).where(Label.id == key).values(name=name))


def sqlstate(failure: BaseException) -> str | None:
    return getattr(getattr(failure, "orig", None), "sqlstate", None)


# --- Replays: what the database refuses is in tests/faults/test_20_serialization.py ----------------


async def always_failing(database: Database, **options: Any) -> tuple[BaseException | None, int]:
    runs = 0

    async def work(session: Session) -> None:
        nonlocal runs
        runs += 1
        await add(session, "x")
        await session.execute(text("DO $$ BEGIN RAISE 'again' USING ERRCODE = '40001'; END $$"))

    try:
        await database.transaction(work, **options)
    except DBAPIError as failure:
        return failure, runs
    return None, runs


async def test_a_connection_lost_before_commit_is_replayed(postgres_url: str):
    """Nothing was kept, so that the whole may be run again: also where the pool held a dead connection."""
    async with made(postgres_url) as direct, faulty(postgres_url) as (through, faults):
        database, runs = Database(through), 0

        async def work(session: Session) -> None:
            nonlocal runs
            runs += 1
            await add(session, f"x{runs}")
            if runs == 1:
                faults.cut(b"y1", "reply")
            await add(session, f"y{runs}")

        await database.transaction(work)
        assert runs == 2
        assert await names(direct) == ["x2", "y2"]
        async with direct.engine.begin() as connection:
            await connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
        await database.transaction(lambda session: add(session, "after"))
        assert "after" in await names(direct)
        assert database.pool_figures().lent == 0
        await database.close()


@pytest.mark.parametrize("rows", [0, 1, 2])
async def test_a_locked_file_is_replayed(tmp_path, rows: int):
    """Found by a statement of the work, or by the flush that its commit begins with."""
    settings = DatabaseSettings(url=f"sqlite:///{tmp_path / 'x.db'}", busy_timeout=0.05)
    async with made(settings) as database:
        holding, again, runs = asyncio.Event(), asyncio.Event(), 0

        async def hold() -> None:
            async with database.session() as session:
                await add(session, "held")
                holding.set()
                await asyncio.wait_for(again.wait(), timeout=10)
                await session.commit()

        async def work(session: Session) -> None:
            nonlocal runs
            runs += 1
            if runs > 1:
                again.set()
            session.add_all([Label(name=f"waited {row}") for row in range(rows)])
            if not rows:
                await add(session, "waited 0")

        held = asyncio.create_task(hold())
        await holding.wait()
        await database.transaction(work, retries=50)
        await held
        assert runs > 1
        assert await names(database) == ["held", "waited 0", "waited 1"][: 1 + max(rows, 1)]


async def test_a_snapshot_that_was_overtaken_is_replayed(tmp_path):
    """SQLITE_BUSY_SNAPSHOT: a transaction begun by hand read, another wrote, and now it cannot write."""
    async with made(f"sqlite:///{tmp_path / 'x.db'}") as database:
        runs = 0

        async def work(session: Session) -> None:
            nonlocal runs
            runs += 1
            await (await session.connection()).exec_driver_sql("BEGIN")
            await session.exec(select(Label))
            if runs == 1:
                async with database.session() as other:
                    await add(other, "other")
                    await other.commit()
            await add(session, "x")

        await database.transaction(work)
        assert runs == 2
        assert await names(database) == ["other", "x"]


# --- Isolation ------------------------------------------------------------------------------------


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
async def test_the_level_is_the_transactions_alone(postgres_url: str, isolation: Any):
    async with made(DatabaseSettings(url=postgres_url, pool_size=1, max_overflow=0)) as database:

        async def level(session: Session) -> str:
            return (await session.execute(text("SHOW transaction_isolation"))).scalar_one()

        assert await database.transaction(level, isolation=isolation) == isolation
        assert await database.transaction(level) == "read committed"


async def test_isolated_transactions_are_native(database: Database):
    events: list[QueryEvent] = []

    async def work(session: Session) -> None:
        await session.exec(select(Label))
        await add(session, "x")
        await session.exec(select(Label))

    with heard_in_context(events.append):
        await database.transaction(work, isolation="serializable")
    assert [(event.native, event.reason) for event in events if "label" in event.sql] == [(True, None)] * 3


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
async def test_increments_are_not_lost(backend_url: str, isolation: Any):
    """Read, then write what was read plus one: from the second level on none is lost, on either backend."""
    async with made(backend_url) as database:
        async with database.session() as session:
            await add(session, "0")
            await session.commit()
        key = await key_of(database, "0")

        async def increment(session: Session) -> None:
            now = (await session.exec(select(Label.name).where(Label.id == key))).one()
            await asyncio.sleep(0.01)
            await rename(session, key, str(int(now) + 1))

        await asyncio.gather(
            *[database.transaction(increment, isolation=isolation, retries=100) for _ in range(6)]
        )
        (name,) = await names(database)
        lost = isolation == "read committed" and database.engine.dialect.name == "postgresql"
        assert (int(name) < 6) if lost else (name == "6")


async def test_options_that_there_are_not(database: Database):
    options: list[dict[str, Any]] = [{"isolation": "SERIALIZABLE"}, {"nested": "joined"}, {"retries": -1}]
    for given in options:
        with pytest.raises(ValueError, match=next(iter(given))):
            await database.transaction(lambda session: add(session, "x"), **given)
        with pytest.raises(ValueError, match=next(iter(given))):
            database.transactional(**given)


# --- One inside another ---------------------------------------------------------------------------


async def test_nested_joins(database: Database):
    async def outer(session: Session) -> None:
        await add(session, "outer")
        await database.transaction(inner)
        assert await names(database) == [], "not committed yet"
        raise LookupError

    async def inner(session: Session) -> None:
        await add(session, "inner")
        joined.append(session)

    joined: list[Session] = []
    with pytest.raises(LookupError):
        await database.transaction(outer)
    assert await names(database) == []
    await database.transaction(inner)
    assert joined[0] is not joined[1]
    assert await names(database) == ["inner"]


async def test_a_joined_failure_replays_the_outermost(postgres_url: str):
    async with made(postgres_url) as database:
        outer_runs = inner_runs = 0

        async def outer(session: Session) -> None:
            nonlocal outer_runs
            outer_runs += 1
            await add(session, f"outer {outer_runs}")
            await database.transaction(inner, retries=5)

        async def inner(session: Session) -> None:
            nonlocal inner_runs
            inner_runs += 1
            if inner_runs == 1:
                await session.execute(text("DO $$ BEGIN RAISE 'again' USING ERRCODE = '40P01'; END $$"))

        await database.transaction(outer)
        assert (outer_runs, inner_runs) == (2, 2)
        assert await names(database) == ["outer 2"]
        inner_runs = 0
        with pytest.raises(DBAPIError):
            await database.transaction(outer, retries=0)
        assert inner_runs == 1, "a part is not run again alone"


@pytest.mark.parametrize("nested", ["join", "savepoint"])
async def test_a_replayable_failure_that_is_caught_replays_all_the_same(postgres_url: str, nested: Any):
    async with made(postgres_url) as database:
        runs = 0

        async def outer(session: Session) -> None:
            nonlocal runs
            runs += 1
            try:
                await database.transaction(inner, nested=nested)
            except DBAPIError:
                if nested == "join":
                    return  # the transaction is aborted: nothing more can be sent
            await add(session, f"outer {runs}")

        async def inner(session: Session) -> None:
            if runs == 1:
                await session.execute(text("DO $$ BEGIN RAISE 'again' USING ERRCODE = '40001'; END $$"))

        await database.transaction(outer)
        assert runs == 2
        assert await names(database) == ["outer 2"]


FAILS = "DO $$ BEGIN RAISE 'again' USING ERRCODE = '{}'; END $$"


@pytest.mark.parametrize("goes_on", [False, True])
async def test_an_error_that_the_work_caught_loses_nothing_silently(postgres_url: str, goes_on: bool):
    """PostgreSQL answers COMMIT by ROLLBACK then, which nobody looks at: without the check the rows are gone.

    Seen to fail: without `note_failure` among the listeners; without the look before the commit.
    """
    async with made(postgres_url) as database:
        runs = 0

        async def work(session: Session) -> None:
            nonlocal runs
            runs += 1
            await add(session, f"run {runs}")
            if runs == 1:
                with suppress(DBAPIError):
                    await session.execute(text(FAILS.format("40001")))
                if goes_on:
                    await session.execute(text("SELECT 1"))

        await database.transaction(work)
        assert (runs, await names(database)) == (2, ["run 2"])


@pytest.mark.parametrize("goes_on", [False, True])
async def test_a_transaction_that_sqlite_has_ended_is_not_committed_by_half(tmp_path, goes_on: bool):
    """What comes after is in a transaction that SQLite's driver has begun anew.  Seen to fail without `note_end`."""
    async with made(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}") as database:
        async with database.session() as session:
            trigger = (
                "CREATE TRIGGER ends BEFORE INSERT ON label WHEN new.name = 'bad' "
                "BEGIN SELECT RAISE(ROLLBACK, 'no'); END"
            )
            await session.execute(text(trigger))
            await session.commit()

        async def work(session: Session) -> None:
            await add(session, "first")
            with suppress(IntegrityError):
                await session.execute(insert(Label), [{"name": "bad"}])
            if goes_on:
                await session.execute(insert(Label), [{"name": "last"}])

        with pytest.raises(TransactionMisused, match=r"failed \(IntegrityError\).*nothing was committed"):
            await database.transaction(work)
        assert await names(database) == []


async def test_an_error_that_sqlite_takes_back_alone_may_be_caught(tmp_path):
    async with made(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}") as database:

        async def work(session: Session) -> None:
            await add(session, "kept")
            with suppress(IntegrityError):
                await session.execute(insert(Label), [{"name": "kept"}])

        await database.transaction(work)
        assert await names(database) == ["kept"]


async def test_an_error_that_was_caught_and_cannot_be_replayed_is_told(postgres_url: str):
    async with made(postgres_url) as database:

        async def work(session: Session, *, nested: bool) -> None:
            await add(session, "kept")
            with suppress(DBAPIError):
                async with session.begin_nested() if nested else nullcontext():
                    await session.execute(text(FAILS.format("22012")))

        with pytest.raises(TransactionMisused, match=r"failed \(DBAPIError, 22012\).*nothing was committed"):
            await database.transaction(partial(work, nested=False))
        assert await names(database) == []
        await database.transaction(partial(work, nested=True))
        assert await names(database) == ["kept"]


@pytest.mark.parametrize(("other", "expected"), [(None, 2), (LookupError, 1)])
async def test_a_failure_in_a_task_group_is_replayed(postgres_url: str, other: Any, expected: int):
    async with made(postgres_url) as database:
        runs = 0

        async def work(session: Session) -> None:
            nonlocal runs
            runs += 1
            try:
                async with asyncio.TaskGroup() as group:
                    if runs == 1:
                        group.create_task(session.execute(text(FAILS.format("40P01"))))
            except* DBAPIError as failed:
                raise ExceptionGroup("all", [failed, *([other()] if other else [])]) from None

        with nullcontext() if expected == 2 else pytest.raises(ExceptionGroup):
            await database.transaction(work)
        assert runs == expected


@pytest.mark.parametrize("retries", ["3", None, 1.5, -1])
async def test_retries_are_a_whole_number(database: Database, retries: Any):
    """1.5 would never be reached, and the work be run again for ever."""
    with pytest.raises(ValueError, match="give a whole number, 0 for none"):
        database.transactional(retries=retries)


async def test_what_is_no_coroutine_function_is_refused(database: Database):
    async def generator(session: Session):
        yield session

    async def nothing() -> None: ...

    decorate: Any = database.transactional()
    with pytest.raises(TypeError, match=r"generator is a generator: .* no `yield`"):
        decorate(generator)
    with pytest.raises(
        TypeError, match="nothing takes no argument, and a transaction gives it its session first"
    ):
        decorate(nothing)
    run: Any = database.transaction
    with pytest.raises(TypeError, match="returned, int, cannot be awaited"):
        await run(lambda session: 5)
    with pytest.raises(TypeError, match="takes a session, not a coroutine: give it without calling it"):
        await run(unused := nothing())
    unused.close()


async def test_a_savepoint_is_taken_back_alone(database: Database):
    async def outer(session: Session) -> None:
        await add(session, "outer")
        with pytest.raises(IntegrityError):
            await database.transaction(twice, nested="savepoint")
        await database.transaction(lambda session: add(session, "kept"), nested="savepoint")

    async def twice(session: Session) -> None:
        await add(session, "lost")
        await add(session, "outer")

    await database.transaction(outer)
    assert await names(database) == ["kept", "outer"]


async def test_what_joined_in_a_savepoint_is_taken_back_with_it(database: Database):
    async def outer(session: Session) -> None:
        await add(session, "outer")
        with pytest.raises(LookupError):
            await database.transaction(part, nested="savepoint")

    async def part(session: Session) -> None:
        await add(session, "part")
        await database.transaction(failing)

    async def failing(session: Session) -> None:
        await add(session, "joined")
        raise LookupError

    await database.transaction(outer)
    assert await names(database) == ["outer"]


@pytest.mark.parametrize("nested", ["join", "savepoint"])
async def test_half_of_a_part_is_not_committed(database: Database, nested: Any):
    async def outer(session: Session) -> None:
        await add(session, "outer")
        await database.transaction(part, nested=nested)

    async def part(session: Session) -> None:
        with suppress(LookupError):
            await database.transaction(failing)

    async def failing(session: Session) -> None:
        await add(session, "half")
        raise LookupError

    with pytest.raises(TransactionMisused, match="LookupError") as caught:
        await database.transaction(outer)
    assert isinstance(caught.value.__cause__, LookupError)
    assert await names(database) == []


async def test_a_new_one_is_committed_whatever_becomes_of_the_outer(postgres_url: str):
    async with made(postgres_url) as database:

        async def outer(session: Session) -> None:
            await add(session, "outer")
            await database.transaction(lambda session: add(session, "audit"), nested="new")
            raise LookupError

        with pytest.raises(LookupError):
            await database.transaction(outer)
        assert await names(database) == ["audit"]


async def test_a_child_task_has_its_own(postgres_url: str):
    async with made(postgres_url) as database:
        sessions: list[Session] = []

        async def outer(session: Session) -> None:
            sessions.append(session)
            await asyncio.gather(*[database.transaction(inner) for _ in range(2)])

        async def inner(session: Session) -> None:
            sessions.append(session)

        await database.transaction(outer)
        assert len({id(each) for each in sessions}) == 3


async def test_another_database_is_not_joined(database: Database, tmp_path):
    async with made(f"sqlite:///{tmp_path / 'other.db'}") as other:

        async def outer(session: Session) -> None:
            await add(session, "outer")
            await other.transaction(lambda session: add(session, "other"))
            raise LookupError

        with pytest.raises(LookupError):
            await database.transaction(outer)
        assert await names(other) == ["other"]
        assert await names(database) == []


async def test_isolation_cannot_be_had_later(database: Database):
    async def outer(session: Session) -> None:
        await database.transaction(lambda session: add(session, "x"), isolation="serializable")

    with pytest.raises(TransactionMisused, match="nested='new'"):
        await database.transaction(outer)
    with pytest.raises(TransactionMisused, match="repeatable read"):
        await database.transaction(outer, isolation="repeatable read")
    await database.transaction(outer, isolation="serializable")
    assert await names(database) == ["x"]


async def test_work_that_commits_is_held_to_one_transaction(database: Database):
    runs = 0

    async def at_the_end(session: Session) -> None:
        await add(session, "a")
        await session.commit()

    async def midway(session: Session) -> None:
        nonlocal runs
        runs += 1
        await add(session, "b")
        await session.commit()
        await add(session, "c")

    async def given_up(session: Session) -> str:
        await add(session, "d")
        await session.rollback()
        return "given up"

    await database.transaction(at_the_end)
    with pytest.raises(InvalidRequestError, match="closed transaction"):
        await database.transaction(midway)
    assert runs == 1
    assert await database.transaction(given_up) == "given up"
    assert await names(database) == ["a", "b"]


async def test_what_the_work_committed_is_not_done_again(postgres_url: str):
    async with made(postgres_url) as database:
        runs = 0

        async def work(session: Session) -> None:
            nonlocal runs
            runs += 1
            session.add(Label(name=f"kept {runs}"))
            await session.commit()
            failure, _ = await always_failing(database, retries=0, nested="new")
            assert failure is not None
            raise failure

        with pytest.raises(DBAPIError) as caught:
            await database.transaction(work)
        assert sqlstate(caught.value) == "40001"
        assert await names(database) == ["kept 1"]


# --- The decorator --------------------------------------------------------------------------------


async def test_a_decorated_function_is_called_without_its_session(database: Database):
    @database.transactional(retries=2)
    async def write(session: Session, name: str, *, twice: bool = False) -> str:
        """Writes."""
        await add(session, name)
        if twice:
            await add(session, name)
        return name

    assert await write("x") == "x"
    with pytest.raises(IntegrityError):
        await write("y", twice=True)
    assert await names(database) == ["x"]
    assert write.__doc__ == "Writes."
    assert list(inspect.signature(write).parameters) == ["name", "twice"]
    assert inspect.iscoroutinefunction(write)


async def test_decorated_functions_join(database: Database):
    @database.transactional()
    async def both(session: Session) -> None:
        await one("a")
        await one("b")
        raise LookupError

    @database.transactional()
    async def one(session: Session, name: str) -> None:
        await add(session, name)

    with pytest.raises(LookupError):
        await both()
    assert await names(database) == []
    await one("c")
    assert await names(database) == ["c"]


async def test_the_process_database_is_found_at_the_call(tmp_path):
    @DatabaseService.transactional(isolation="serializable", nested="savepoint")
    async def write(session: Session, name: str) -> str:
        await add(session, name)
        return name

    database = DatabaseService.configure(f"sqlite:///{tmp_path / 'x.db'}")
    await DatabaseService.create_all(Model.metadata)
    assert await write("x") == "x"
    assert await names(database) == ["x"]
    await DatabaseService.close()


async def test_a_decorated_route(database: Database):
    app = FastAPI()

    @app.post("/labels/{name}")
    @database.transactional()
    async def create(session: Session, name: str, more: Annotated[list[str], Body()]) -> list[str]:
        for each in (name, *more):
            await add(session, each)
        return [name, *more]

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.post("/labels/a", json=["b"])
        assert (answer.status_code, answer.json()) == (200, ["a", "b"])
        assert (await client.post("/labels/a", json="b")).status_code == 422
    assert await names(database) == ["a", "b"]


async def test_a_connection_opened_in_a_transaction_keeps_nothing_of_it(postgres_url: str):
    """Its transport has a copy of the context, for as long as the pool has the connection.

    Mutation seen to fail: `_running` refers to what is running strongly (the soak found a session that stayed).
    """
    seen: list[ref[Session]] = []

    async def work(session: Session) -> None:
        await add(session, "x")
        seen.append(ref(session))

    async with made(postgres_url):
        database = Database(postgres_url)
        await database.transaction(work)
        assert database.pool_figures().open == 1
        gc.collect()
        assert seen[0]() is None
        await database.close()
