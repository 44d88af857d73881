"""A connection is lent for one statement or one transaction, and comes back whatever happens."""

import asyncio

import pytest
from sqlalchemy import event, func, literal, text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import selectinload
from sqlmodel import col, select

from catalysis import Database, Session, watch_queries
from tests.models import Job, Label, Person, made
from tests.proxy import counted


@pytest.fixture
async def filled(database: Database) -> Database:
    async with database.session() as session:
        session.add(Person(name="ada", jobs=[Job(title=f"job {n}") for n in range(3)]))
        session.add_all([Label(name=f"label {n}") for n in range(5)])
        await session.commit()
    return database


async def test_a_session_that_has_only_read_holds_nothing(filled: Database):
    async with filled.session() as session:
        await session.exec(select(Person))
        await session.get(Person, (await session.exec(select(Person.id))).one())
        assert session.in_transaction(), "for SQLAlchemy's own rules it has begun"
        assert filled.pool_figures().lent == 0
        session.add(Label(name="new"))
        await session.flush()
        assert filled.pool_figures().lent == 1, "a write keeps its connection"
        assert len((await session.exec(select(Label))).all()) == 6, "and reads go there"
        await session.commit()
        assert filled.pool_figures().lent == 0


@pytest.mark.parametrize(
    "statement",
    [
        select(Person).with_for_update(),
        select(Person, func.current_timestamp()),
        select(func.now()),
        select(func.random()),
        text("SELECT 1"),
    ],
)
async def test_what_could_be_seen_runs_in_a_transaction(filled: Database, statement):
    async with filled.session() as session:
        await session.execute(statement)
        assert filled.pool_figures().lent == 1


async def test_an_explicit_transaction_reads_on_its_own_connection(filled: Database):
    async with filled.session() as session, session.begin():
        await session.exec(select(Person))
        assert filled.pool_figures().lent == 1
    async with filled.session() as session:
        async with session.begin_nested():
            await session.exec(select(Person))
            assert filled.pool_figures().lent == 1
        await session.rollback()


async def test_higher_isolation_reads_in_a_transaction(postgres_url: str, filled: Database):
    engine = create_async_engine(filled.settings.url, isolation_level="REPEATABLE READ")
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no such level; the SERIALIZABLE it has is its default")
    async with Session(engine) as session:
        first = (await session.exec(select(func.count(Label.id)))).one()
        async with filled.session() as other:
            other.add(Label(name="late"))
            await other.commit()
        assert (await session.exec(select(func.count(Label.id)))).one() == first
        assert engine.pool.checkedout() == 1
    await engine.dispose()


async def test_a_read_costs_one_round_trip_and_closing_none(postgres_url: str):
    async with counted(postgres_url) as (url, trips):
        database = Database(url)
        await database.create_all(Person.metadata)
        async with database.session() as session:
            session.add(label := Label(name="x"))
            await session.commit()
            key = label.id
        for read in (
            lambda session: session.exec(select(Label).where(Label.name == "x")),
            lambda session: session.get(Label, key),
            lambda session: session.scalar(select(func.count(Label.id))),
        ):
            for turn in range(3):
                trips.reset()
                async with database.session() as session:
                    await read(session)
                assert trips.count == 1 or turn == 0, "the first time it is prepared"
        async with database.session() as session:
            label = await session.get_one(Label, key)
            await session.refresh(label)
            trips.reset()
            await session.refresh(label)
        assert trips.count == 1
        for _ in range(2):
            trips.reset()
            async with AsyncSession(database.engine) as session:
                await session.scalar(select(func.count(Label.id)))
        assert trips.count == 3, "stock sends BEGIN and ROLLBACK too"
        await database.close()


async def test_the_pools_own_events_stay_true(filled: Database):
    engine = create_async_engine(filled.settings.url, pool_pre_ping=True)
    heard: list[str] = []
    for name in ("checkout", "checkin", "reset"):
        event.listen(engine.sync_engine, name, lambda *_, name=name: heard.append(name))
    async with Session(engine) as session:
        await session.exec(select(Label))
    assert heard == ["checkout", "reset", "checkin"]
    await engine.dispose()


async def test_a_statements_own_lease_is_told_of_and_comes_back_after_every_end(postgres_url: str):
    database = Database(postgres_url, pool_size=1, max_overflow=0)
    async with database.session() as session:
        await session.exec(select(1))
        with pytest.raises(DBAPIError):
            await session.exec(select(literal(1) / 0))
        assert database.pool_figures().lent == 0
        assert (await session.exec(select(1))).one() == 1
        reading = asyncio.create_task(session.exec(select(1)))
        await asyncio.sleep(0)
        (holder,) = database.leases()
        assert not holder.in_transaction
        assert holder.site is not None
        assert "test_lease" in holder.site.file
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert database.pool_figures().lent == 0
        assert database.leases() == ()
        assert (await session.exec(select(1))).one() == 1
    await database.close()


async def test_a_pool_that_was_disposed_of_gets_its_connection_back(postgres_url: str):
    database = Database(postgres_url, pool_size=1, max_overflow=0)
    async with database.session() as session:
        await session.exec(select(1))
        before = database.engine.pool
        reading = asyncio.create_task(session.exec(select(1)))
        await asyncio.sleep(0)
        await database.engine.dispose()
        assert (await reading).one() == 1
        assert database.engine.pool is not before
        assert (before.checkedin(), database.engine.pool.checkedout()) == (1, 0)
    await database.close()


async def test_the_connection_used_last_is_lent_next(postgres_url: str):
    database = Database(postgres_url, pool_size=5, max_overflow=0)
    who = select(func.pg_backend_pid())

    async def read() -> int:
        async with database.session() as session:
            return (await session.exec(who)).one()

    assert len(set(await asyncio.gather(*[read() for _ in range(5)]))) == 5
    assert len({await read() for _ in range(10)}) == 1, "which has prepared the statement"
    await database.close()


async def test_overflow_connections_are_closed(filled: Database):
    engine = create_async_engine(filled.settings.url, pool_size=1, max_overflow=5)

    async def read() -> int:
        async with Session(engine) as session:
            return len((await session.exec(select(Label))).all())

    assert await asyncio.gather(*[read() for _ in range(20)]) == [5] * 20
    assert (engine.pool.checkedin(), engine.pool.checkedout()) == (1, 0)
    await engine.dispose()


async def test_an_error_is_sqlalchemys_with_statement_and_without_values(filled: Database):
    broken = select(col(Person.name)).where(text("no_such_column = 1"))
    async with filled.session() as session:
        with pytest.raises(DBAPIError, match="no_such_column") as caught:
            await session.execute(broken.where(Person.name == "hunter2"))
        assert "SELECT" in (caught.value.statement or "")
        assert "hunter2" not in str(caught.value)
        assert filled.pool_figures().lent == 0
        if filled.engine.dialect.name == "postgresql":
            assert isinstance(caught.value, ProgrammingError)
        assert (await session.exec(select(Person.name))).all() == ["ada"], "the next statement works"


async def test_eager_loads_that_do_not_depend_on_each_other_run_at_once(filled: Database):
    async with filled.session() as session:
        people = select(Person).options(selectinload(Person.jobs), selectinload(Person.teams))
        await session.exec(people)
        session.expunge_all()
        with watch_queries() as queries:
            await session.exec(people)
        assert len(queries) == 3
        assert all(each.native for each in queries)
        assert filled.pool_figures().lent == 0


async def test_an_eager_load_that_fails_raises_the_error_itself(postgres_url: str):
    async with made(postgres_url) as database:
        async with database.session() as session:
            session.add(Person(name="ada", jobs=[Job(title="x")]))
            await session.commit()
        async with database.engine.begin() as connection:
            await connection.execute(text("ALTER TABLE job RENAME TO gone"))
        async with database.session() as session:
            with pytest.raises(ProgrammingError, match="job"):
                await session.exec(
                    select(Person).options(selectinload(Person.jobs), selectinload(Person.teams))
                )
            assert len((await session.exec(select(Person))).all()) == 1
        assert database.pool_figures().lent == 0


async def test_a_transaction_that_is_set_up_by_a_listener_is_begun(filled: Database):
    """Row-level security often hangs on a setting that is made at the start of each transaction."""
    async with filled.session() as session:
        heard: list[str] = []
        event.listen(session.sync_session, "after_begin", lambda *_: heard.append("session"))
        await session.exec(select(Label))
        await session.get(Label, (await session.exec(select(Label.id))).first())
        assert heard == ["session"]
        assert filled.pool_figures().lent == 1
    engine = create_async_engine(filled.settings.url)
    event.listen(engine.sync_engine, "begin", lambda *_: heard.append("engine"))
    async with Session(engine) as session:
        await session.exec(select(Label))
        assert heard == ["session", "engine"]
    await engine.dispose()


async def test_who_executes_in_the_dialects_place_goes_on_doing_so(filled: Database):
    engine = create_async_engine(filled.settings.url)
    heard: list[str] = []
    event.listen(engine.sync_engine, "do_execute", lambda cursor, sql, *_: heard.append(sql))
    async with Session(engine) as session:
        await session.exec(select(Label))
    assert any("FROM label" in sql for sql in heard)
    await engine.dispose()
