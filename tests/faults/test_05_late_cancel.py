"""5. A cancel request that comes late, through PgBouncer: nobody else's query is cancelled by it.

A request names a connection and no statement, so that one which comes late cancels whatever is sent there by then.  Of
two places where others could be met, one is ours: a connection whose statement was cancelled is closed and never lent
again.  The other is the pooler's, which gives a client's server connection to the next client as soon as its
transaction ends: since 1.18 (pgbouncer/pgbouncer#717) not while a request for it is under way.

Mutation seen to fail: `AsyncpgDriver.survives_cancellation` is True, so that the connection is lent again (the next
one's statement: "canceling statement due to user request"; the storm: the others wait for ever).  What SQLAlchemy runs
passes: it throws the connection away by itself.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import func, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import select

from catalysis import Database, DatabaseSettings, Session
from tests.faults.checks import PATIENCE, eventually, seen_from_outside
from tests.models import Label, made
from tests.proxy import faulty
from tests.servers import PgBouncer


@pytest.mark.parametrize("rounds", [8, pytest.param(150, marks=pytest.mark.long)])
async def test_a_storm_of_cancellations_hits_nobody_else(
    postgres_url: str, pgbouncer: PgBouncer, rounds: int
):
    chance = random.Random(5)
    settings = DatabaseSettings(
        url=pgbouncer.through(postgres_url),
        pooler="transaction",
        pool_size=12,
        max_overflow=0,
        pool_timeout=60,
    )
    async with made(postgres_url), seen_from_outside(postgres_url) as server:
        database = Database(settings)

        async def ask(number: int) -> int:
            async with database.session() as session:
                rows = await session.exec(select(func.pg_sleep(0.02), func.abs(number)))
                return rows.one()[1]

        async def count() -> int:
            async with database.session() as session:
                return (await session.exec(select(func.count(Label.id)))).one()

        hit: list[str] = []
        for _ in range(rounds):
            victims = [asyncio.create_task(ask(-number)) for number in range(8)]
            others = [asyncio.create_task(ask(number) if number % 2 else count()) for number in range(8)]
            for victim in victims:
                await asyncio.sleep(chance.random() * 0.008)
                victim.cancel()
            _, stuck = await asyncio.wait([*victims, *others], timeout=PATIENCE)
            assert not stuck, "others wait for what the cancelled ones hold"
            for other in await asyncio.gather(*others, return_exceptions=True):
                if isinstance(other, DBAPIError):
                    hit.append(str(other.orig))
                else:
                    assert isinstance(other, int), repr(other)
        assert hit == []
        await eventually(lambda: database.pool_figures().lent == 0, "lost")
        await server.none_in_transaction()
        await database.close()


WAITS = {
    "native": lambda session: session.exec(select(Label, func.pg_advisory_xact_lock(5))),
    "outside a transaction": lambda session: session.scalar(
        select(func.count(Label.id)).where(text("(SELECT pg_advisory_xact_lock(5)) IS NOT NULL"))
    ),
    "by SQLAlchemy": lambda session: session.execute(text("SELECT pg_advisory_xact_lock(5)")),
}


@pytest.mark.parametrize("how", WAITS)
async def test_a_request_that_comes_when_its_statement_is_over_hits_nobody_else(
    postgres_url: str, pgbouncer: PgBouncer, how: str
):
    """Its sender has been told that it is done; it goes on to the pooler while the next one's statement waits."""
    pooled = pgbouncer.through(postgres_url)
    async with (
        asyncio.timeout(PATIENCE),
        made(postgres_url) as direct,
        faulty(pooled) as (through, faults),
        seen_from_outside(postgres_url) as server,
        direct.engine.connect() as gate,
    ):
        async with direct.session() as session:
            session.add(Label(name="x"))
            await session.commit()
        database = Database(DatabaseSettings(url=through, pooler="transaction", pool_size=1, max_overflow=0))
        faults.hold_cancels()

        async def ask(statement: Callable[[Session], Awaitable[Any]]) -> None:
            async with database.session() as session:
                await statement(session)

        async def waits(statement: Callable[[Session], Awaitable[Any]]) -> asyncio.Task[None]:
            await gate.execute(select(func.pg_advisory_lock(5)))
            task = asyncio.create_task(ask(statement))
            await eventually(lambda: server.waits_at("advisory"), "it never began")
            return task

        victim = await waits(WAITS[how])
        victim.cancel()
        await faults.struck.wait()
        await gate.execute(select(func.pg_advisory_unlock(5)))
        await asyncio.wait([victim])
        assert victim.cancelled()
        other = await waits(WAITS["native"])
        faults.release()
        await faults.delivered.wait()
        await gate.execute(select(func.pg_advisory_unlock(5)))
        assert await asyncio.gather(other, return_exceptions=True) == [None]
        await database.close()
