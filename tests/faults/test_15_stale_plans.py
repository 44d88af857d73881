"""15. A table is changed under a cached plan: outside a transaction nobody sees it; inside, all of it is replayed.

Mutations seen to fail: `was_stale` returns False (the reads outside fail, and so does the function).
"""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel import select

from catalysis import Database, DatabaseSettings, Session
from tests.faults.checks import goes_on
from tests.models import Label, made

CHANGES = (
    "ALTER TABLE label ALTER COLUMN deleted_at TYPE text",
    "ALTER TABLE label ALTER COLUMN deleted_at TYPE timestamptz USING deleted_at::timestamptz",
)


@pytest.fixture
async def one(postgres_url: str):
    async with made(DatabaseSettings(url=postgres_url, pool_size=1, max_overflow=0)) as database:
        async with database.session() as session:
            session.add(Label(name="12"))
            await session.commit()
        yield database


async def change(database: Database, number: int) -> None:
    other = Database(database.settings.url)
    async with other.engine.begin() as connection:
        await connection.execute(text(CHANGES[number % 2]))
    await other.close()


async def test_outside_a_transaction_nobody_sees_it(one: Database):
    for number in range(4):
        async with one.session() as session:
            assert (await session.exec(select(Label.deleted_at))).all() == [None]
            await change(one, number)
            assert (await session.exec(select(Label.deleted_at))).all() == [None]
            session.expire_all()
            assert (await session.exec(select(Label.name))).all() == ["12"]


async def test_inside_one_it_is_a_typed_error(one: Database):
    async with one.session() as session, session.begin():
        await session.exec(select(Label.deleted_at))
        await session.exec(select(Label.deleted_at))
    await change(one, 0)
    async with one.session() as session:
        await session.begin()
        with pytest.raises(DBAPIError, match=r"cached|plan"):
            await session.exec(select(Label.deleted_at))
        await session.rollback()
        assert (await session.exec(select(Label.deleted_at))).all() == [None], "and then it goes on"
    await goes_on(one)


@pytest.mark.parametrize("by_sqlalchemy", [False, True])
async def test_a_function_is_replayed(one: Database, by_sqlalchemy: bool):
    runs = 0
    statement = text("SELECT deleted_at FROM label") if by_sqlalchemy else select(Label.deleted_at)

    async def work(session: Session) -> None:
        nonlocal runs
        runs += 1
        session.add(Label(name=f"run {runs}"))
        await session.flush()
        await session.execute(statement)

    await one.transaction(work)
    await one.transaction(work)
    runs = 2
    await change(one, 0)
    await one.transaction(work)
    assert runs == 4, "the third run met the change, and the fourth did it all again"
    async with one.session() as session:
        assert sorted((await session.exec(select(Label.name))).all()) == ["12", "run 1", "run 2", "run 4"]
