"""3. Cancelled while BEGIN is under way: the next borrower is not inside a transaction.

The server has begun one, and the client has not heard of it, so nothing on this side knows that it must be rolled back.

Mutation seen to fail: `stream` without giving up a connection that was cancelled.
"""

import asyncio
from typing import Any

import pytest
from sqlalchemy import func, text
from sqlmodel import select

from catalysis import Database, Session, bulk_insert
from tests.faults.checks import goes_on, seen_from_outside, through_a_proxy
from tests.models import Label


async def _stream(session: Session) -> None:
    async for _ in await session.stream(select(Label)):
        pass


async def _flush(session: Session) -> None:
    session.add(Label(name="x"))
    await session.flush()


async def _copy(session: Session) -> None:
    await bulk_insert(session, Label, [{"name": f"{n}"} for n in range(2_000)])


WAYS: dict[str, Any] = {
    "native": lambda session: session.exec(select(Label, func.now())),
    "by SQLAlchemy": lambda session: session.execute(text("SELECT 1")),
    "stream": _stream,
    "flush": _flush,
    "copy": _copy,
}


@pytest.mark.parametrize("way", WAYS)
async def test_the_next_borrower_is_not_in_a_transaction(postgres_url: str, way: str):
    async with (
        through_a_proxy(postgres_url) as (database, faults, _),
        seen_from_outside(postgres_url) as server,
    ):
        await goes_on(database)

        async def use() -> None:
            async with database.session() as session:
                await WAYS[way](session)

        faults.cut(b"BEGIN", "hold")
        task = asyncio.create_task(use())
        async with asyncio.timeout(10):
            await faults.struck.wait()
        task.cancel()
        await asyncio.sleep(0)
        faults.release()
        with pytest.raises(asyncio.CancelledError):
            await task
        await _is_in_no_transaction(database)
        await server.none_in_transaction()
        await goes_on(database)


async def _is_in_no_transaction(database: Database) -> None:
    async with database.engine.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        assert not raw.is_in_transaction()
        times = [await raw.fetchval("SELECT transaction_timestamp()") for _ in range(2)]
        assert times[0] < times[1], "both are in one transaction, which began before"
