"""Streams go native, through a cursor on the server, and keep neither rows nor cursors."""

import asyncio
import tracemalloc
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import InvalidRequestError, ResourceClosedError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import joinedload, selectinload, subqueryload
from sqlmodel import col, select

from catalysis import Database, Session, watch_queries
from tests.models import Job, Label, Person

ROWS = 5_000


@pytest.fixture
async def filled(database: Database) -> Database:
    async with database.session() as session:
        session.add(Person(name="ada", jobs=[Job(title=f"job {n}") for n in range(3)]))
        await session.execute(
            text(
                "INSERT INTO label (id, name) WITH RECURSIVE n(x) AS (SELECT 0 UNION ALL SELECT x + 1 FROM n WHERE x < "
                f"{ROWS - 1}) SELECT {_uuid(session.get_bind().dialect.name)}, 'label ' || x FROM n"
            )
        )
        await session.commit()
    return database


def _uuid(dialect: str) -> str:
    return "gen_random_uuid()" if dialect == "postgresql" else "lower(hex(randomblob(16)))"


async def test_a_stream_is_native_from_the_first_time(filled: Database):
    async with filled.session() as session:
        with watch_queries() as queries:
            names = [label.name async for label in await session.stream_scalars(select(Label))]
        assert len(names) == len(set(names)) == ROWS
        assert [(each.native, each.reason) for each in queries] == [(True, None)]


async def test_it_comes_in_parts_of_the_size_asked_for(filled: Database):
    async with filled.session() as session:
        result = await session.stream_scalars(select(Label).execution_options(yield_per=7))
        sizes = [len(part) async for part in result.partitions()]
        assert set(sizes[:-1]) == {7}
        assert sum(sizes) == ROWS
        rows = await session.stream(select(Label.name, Label.id).order_by(col(Label.name)))
        first = await rows.fetchmany(3)
        assert [row.name for row in first] == ["label 0", "label 1", "label 10"]
        assert len(await rows.fetchall()) == ROWS - 3


async def test_a_stream_left_half_way_lets_go(filled: Database):
    async with filled.session() as session:
        result = await session.stream_scalars(select(Label).execution_options(yield_per=10))
        async for label in result:
            assert label.name
            break
        await result.close()
        session.add(Label(name="written meanwhile"))
        await session.commit()
    assert filled.pool_figures().lent == 0
    async with filled.engine.begin() as connection:
        await connection.execute(text("DROP TABLE label"))


async def test_eager_loads_come_with_each_part(filled: Database):
    async with filled.session() as session:
        session.add_all([Person(name=f"p{n}", jobs=[Job(title="x")]) for n in range(5)])
        await session.commit()
        session.expunge_all()
        query = select(Person).options(selectinload(Person.jobs)).execution_options(yield_per=2)
        people = [person async for person in await session.stream_scalars(query)]
        assert sorted(len(person.jobs) for person in people) == [1, 1, 1, 1, 1, 3]


async def test_joined_collections_cannot_be_parted_as_sqlalchemy_says(filled: Database):
    async with filled.session() as session:
        with pytest.raises(Exception, match="yield_per"):
            await session.stream(
                select(Person).options(joinedload(Person.jobs)).execution_options(yield_per=2)
            )


async def test_a_stream_that_is_refused_leaves_no_lock(filled: Database):
    session = filled.session()
    with pytest.raises(InvalidRequestError):
        await session.stream(select(Person).options(subqueryload(Person.jobs)).execution_options(yield_per=2))
    await session.rollback()
    async with filled.engine.begin() as connection:
        await connection.execute(text("DROP TABLE label"))
    await session.close()


@pytest.mark.long
async def test_a_million_rows_stay_under_a_hundred_megabytes(postgres_url: str):
    database = Database(postgres_url)
    await database.create_all(Label.metadata)
    async with database.session() as session:
        await session.execute(
            text(
                "INSERT INTO label (id, name) "
                "SELECT gen_random_uuid(), 'label ' || x FROM generate_series(1, 1000000) x"
            )
        )
        await session.commit()
    tracemalloc.start()
    count = 0
    async with database.session() as session:
        async for _ in await session.stream_scalars(select(Label).execution_options(yield_per=1_000)):
            count += 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 1_000_000
    assert peak < 100 * 2**20
    await database.close()


async def _memory_of_instances(session) -> int:
    """Bytes that the instances hold, once every cache is warm."""
    async with session:
        await session.scalars(select(Label))
        session.expunge_all()
        tracemalloc.start()
        labels = (await session.scalars(select(Label))).all()
        current, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(labels) == ROWS
    return current


async def test_instances_take_no_more_memory_than_stock(filled: Database):
    stock = await _memory_of_instances(AsyncSession(filled.engine))
    ours = await _memory_of_instances(filled.session())
    assert ours < stock


async def test_a_stream_read_on_after_its_transaction_leaves_others_alone(postgres: Database):
    """Its connection is another session's by then, whose transaction an unknown portal aborted."""
    await postgres.create_all(Label.metadata)
    engine = create_async_engine(postgres.engine.url, pool_size=1, max_overflow=0)
    async with Session(engine) as one, Session(engine) as other:
        one.add_all([Label(name=f"label {n}") for n in range(20)])
        await one.commit()
        result = await one.stream_scalars(select(Label).execution_options(yield_per=5))
        assert len(await result.fetchmany(5)) == 5
        await one.commit()
        other.add(Label(name="of the other"))
        await other.flush()
        with pytest.raises(ResourceClosedError, match="transaction of this stream has ended"):
            await result.all()
        assert len((await other.scalars(select(Label))).all()) == 21
        await other.commit()
    await engine.dispose()


async def test_two_streams_of_one_session_take_turns_from_the_first_time(filled: Database):
    """The second found the first taking the transaction's connection, and left its rows to SQLAlchemy, which does not
    queue."""

    async def length(statement: Any) -> int:
        return len([each async for each in await session.stream_scalars(statement)])

    labels = select(Label).execution_options(yield_per=100)
    async with filled.session() as session:
        with watch_queries() as queries:
            assert await asyncio.gather(length(labels), length(select(Job))) == [ROWS, 3]
        assert [(each.native, each.reason) for each in queries] == [(True, None)] * 2
