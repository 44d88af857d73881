"""4. The wait for a connection ends by timeout and cancellation at once: no place is lost, no cancellation swallowed.

Mutations seen to fail: `_one_back` wakes nobody when it ends early (the next in line waits on); `check_out` takes
every error for the timeout (`except BaseException`: the cancellations are swallowed).
"""

import asyncio
import random

import pytest
from sqlalchemy import text
from sqlmodel import select

from catalysis import Database, DatabaseSettings, PoolExhausted
from catalysis.engine.alchemy.pooling import check_in, check_out
from tests.faults.checks import goes_on
from tests.models import Label, made


async def _read(database: Database) -> None:
    async with database.session() as session:
        await session.exec(select(Label))


async def _write(database: Database) -> None:
    async with database.session() as session:
        await session.execute(text("UPDATE label SET name = name"))
        await session.commit()


@pytest.mark.parametrize("rounds", [40, pytest.param(2_000, marks=pytest.mark.long)])
@pytest.mark.parametrize("pool_timeout", [0.004, 5])
async def test_timeouts_race_with_cancellations(backend_url: str, rounds: int, pool_timeout: float):
    settings = DatabaseSettings(url=backend_url, pool_size=1, max_overflow=0, pool_timeout=pool_timeout)
    chance = random.Random(4)
    outcomes: set[type] = set()
    async with made(settings) as database:
        await _read(database)
        for _ in range(rounds):
            works = [asyncio.create_task((_read if n % 2 else _write)(database)) for n in range(6)]
            victims = chance.sample(works, 3)
            for number, victim in enumerate(victims):
                for _ in range(chance.randrange(1, 12)):
                    await asyncio.sleep(0 if number else 0.0005)
                victim.cancel()
            was_asked = [each.cancelling() for each in works]
            ended = await asyncio.gather(*works, return_exceptions=True)
            for each, outcome, asked in zip(works, ended, was_asked, strict=True):
                if isinstance(outcome, BaseException):
                    late = () if pool_timeout > 1 else (PoolExhausted,)
                    assert isinstance(outcome, (asyncio.CancelledError, *late)), repr(outcome)
                outcomes.add(type(outcome))
                assert asked or not each.cancelled(), "nobody cancelled it"
        # On a machine that is slow enough the time of all is up before anybody is cancelled.
        assert pool_timeout < 1 or asyncio.CancelledError in outcomes
        assert type(None) in outcomes
        await (goes_on if pool_timeout > 1 else _settles)(database)


async def _settles(database: Database) -> None:
    for _ in range(200):
        if database.pool_figures().lent == 0:
            break
        await asyncio.sleep(0.01)
    await _read(database)
    await _write(database)


async def test_a_cancellation_wins_over_a_connection_that_comes_with_it(backend_url: str):
    """`wait_for` whose time is up in the turn of the loop in which the connection comes back."""
    settings = DatabaseSettings(url=backend_url, pool_size=1, max_overflow=0, pool_timeout=5)
    async with made(settings) as database:
        for turns in range(30):
            async with database.session() as holder:
                await holder.connection()
                waiting = asyncio.create_task(_read(database))
                await asyncio.sleep(0)
            for _ in range(turns % 4):
                await asyncio.sleep(0)
            waiting.cancel()
            (outcome,) = await asyncio.gather(waiting, return_exceptions=True)
            assert outcome is None or isinstance(outcome, asyncio.CancelledError)
            await goes_on(database)


async def test_the_next_in_line_is_woken_by_one_who_leaves(postgres_url: str):
    settings = DatabaseSettings(url=postgres_url, pool_size=1, max_overflow=0)
    async with made(settings) as database, database.session() as session:
        engine = database.engine.sync_engine
        lent = await check_out(engine, session.sync_session)
        first, second = (asyncio.create_task(_read(database)) for _ in range(2))
        await asyncio.sleep(0)
        await check_in(lent)
        first.cancel()
        await asyncio.wait_for(second, timeout=settings.pool_timeout / 2)
        assert first.cancelled()


async def test_who_waits_is_served_in_order_of_coming(backend_url: str):
    """A task that reads again at once keeps its place, and nobody who waits loses theirs by it.

    Mutation seen to fail: `_one_back` always stands in at the end, as asyncio's queue does.
    """
    settings = DatabaseSettings(url=backend_url, pool_size=1, max_overflow=0)
    ended: list[int] = []

    async def reads(database: Database, number: int) -> None:
        for _ in range(5):
            await _read(database)
        ended.append(number)

    async with made(settings) as database:
        await _read(database)
        await asyncio.gather(*[reads(database, number) for number in range(6)])
        assert ended == [*range(6)]
        await goes_on(database)
