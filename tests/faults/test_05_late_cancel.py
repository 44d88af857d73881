"""5. A cancel request that comes late, through PgBouncer: nobody else's query is cancelled by it.

The pooler gives a client's server connection to the next one as soon as its transaction ends, so a request that was
sent for the first client's statement may meet the second's.  Ours is waited for before the connection is closed.

No mutation of ours was seen to fail here, with PgBouncer 1.18.  That a request is sent at all, and waited for, is row
1's to show.
"""

import asyncio
import random

import pytest
from sqlalchemy import func
from sqlalchemy.exc import DBAPIError
from sqlmodel import select

from catalysis import Database, DatabaseSettings
from tests.faults.checks import eventually, seen_from_outside
from tests.models import Label, made
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
            await asyncio.gather(*victims, return_exceptions=True)
            for other in await asyncio.gather(*others, return_exceptions=True):
                if isinstance(other, DBAPIError):
                    hit.append(str(other.orig))
                else:
                    assert isinstance(other, int), repr(other)
        assert hit == []
        await eventually(lambda: database.pool_figures().lent == 0, "lost")
        await server.none_in_transaction()
        await database.close()
