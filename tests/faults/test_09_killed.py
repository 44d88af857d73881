"""9. Idle connections are killed: the first read is tried again on a fresh one, and nobody sees an error.

Mutation seen to fail: `ATTEMPTS = 1` in `engine/run.py`.
"""

import asyncio

import pytest
from sqlalchemy.exc import DBAPIError
from sqlmodel import func, select

from catalysis import Database, DatabaseSettings, Session
from tests.faults.checks import eventually, goes_on, seen_from_outside
from tests.models import Label, made


async def _fill_pool(database: Database) -> None:
    async def hold(session: Session) -> None:
        async with session:
            await session.connection()
            await all_hold.wait()

    all_hold = asyncio.Barrier(5)
    await asyncio.gather(*[hold(database.session()) for _ in range(5)])
    assert database.pool_figures().open == 5


@pytest.mark.parametrize("notices", [True, False], ids=["noticed", "unnoticed"])
async def test_every_idle_connection_is_killed_and_reads_see_nothing(postgres_url: str, notices: bool):
    """Whether the loop has seen the sockets close before the read, or is told by the read itself."""
    settings = DatabaseSettings(url=postgres_url, pool_size=5, max_overflow=0)
    async with made(settings) as database, seen_from_outside(postgres_url) as server:
        async with database.session() as session:
            session.add(label := Label(name="x"))
            await session.commit()
        for _ in range(3):
            await _fill_pool(database)
            assert await server.kill_all() == 5
            if notices:
                await asyncio.sleep(0.05)
            async with database.session() as session:
                assert (await session.exec(select(Label.name))).all() == ["x"]
            await _fill_pool(database)
            assert await server.kill_all() == 5

            async def one() -> None:
                async with database.session() as session:
                    assert (await session.get_one(Label, label.id)).name == "x"

            await asyncio.gather(*[one() for _ in range(20)])
        await goes_on(database)


async def test_in_a_transaction_it_is_a_typed_error_and_the_function_is_replayed(postgres_url: str):
    async with made(postgres_url) as database, seen_from_outside(postgres_url) as server:
        async with database.session() as session:
            await session.connection()
            await session.exec(select(Label))
            await server.kill_all()
            with pytest.raises(DBAPIError) as caught:
                await session.exec(select(Label))
            assert caught.value.connection_invalidated
            await session.rollback()
            assert (await session.exec(select(func.count(Label.id)))).one() == 0
        runs = 0

        async def work(session: Session) -> None:
            nonlocal runs
            runs += 1
            await session.connection()
            if runs == 1:
                await server.kill_all()
            session.add(Label(name="once"))

        await database.transaction(work)
        assert runs == 2
        await eventually(lambda: database.pool_figures().lent == 0, "lost")
        await goes_on(database)
