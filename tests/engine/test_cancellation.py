"""Cancelled at whatever step, a read leaves no connection behind, and none in a transaction."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import func, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import selectinload
from sqlmodel import select

from catalysis import Database, Session
from tests.models import Job, Label, Person

IDLE = (
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE state LIKE 'idle in%' AND pid <> pg_backend_pid() AND datname = current_database()"
)
Work = Callable[[Session], Awaitable[Any]]


async def _stream(session: Session) -> None:
    async for _ in await session.stream_scalars(select(Label).execution_options(yield_per=2)):
        pass


async def _refresh(session: Session) -> None:
    label = (await session.exec(select(Label))).first()
    await session.refresh(label)


async def _get(session: Session) -> None:
    key = (await session.exec(select(Label.id))).first()
    session.expunge_all()
    await session.get(Label, key)


WORK: dict[str, Work] = {
    "exec": lambda session: session.exec(select(Label)),
    "get": _get,
    "in a transaction": lambda session: session.exec(select(Label, func.now())),
    "eager loads": lambda session: session.exec(
        select(Person).options(selectinload(Person.jobs), selectinload(Person.teams))
    ),
    "refresh": _refresh,
    "stream": _stream,
}


async def _cancelled_after(engine: AsyncEngine, work: Work, steps: int) -> bool:
    """Run the work and cancel it after so many turns of the loop; whether it had ended before."""

    async def use() -> None:
        async with Session(engine) as session:
            await work(session)

    task = asyncio.create_task(use())
    for _ in range(steps):
        if task.done():
            break
        await asyncio.sleep(0)
    ended = task.done()
    task.cancel()
    outcome = (await asyncio.gather(task, return_exceptions=True))[0]
    assert isinstance(outcome, asyncio.CancelledError) or (ended and outcome is None), outcome
    return ended


async def _settled(engine: AsyncEngine) -> None:
    for _ in range(100):
        if engine.pool.checkedout() == 0:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("a connection was not given back")


@pytest.mark.parametrize("name", WORK)
async def test_it_can_be_cancelled_at_any_step(database: Database, name: str):
    async with database.session() as session:
        session.add_all([Label(name=f"label {n}") for n in range(6)])
        session.add(Person(name="ada", jobs=[Job(title="x")]))
        await session.commit()
    engine = create_async_engine(database.settings.url, pool_size=2, max_overflow=0, pool_timeout=3)
    for warm in (True, False):
        step, ended = 0, False
        while not ended:
            ended = await _cancelled_after(engine, WORK[name], step)
            step += 1 if step < 12 else 3
            await _settled(engine)
            assert step < 2_000, "it never ends"
        async with Session(engine) as session:
            assert len((await session.exec(select(Label))).all()) == 6, warm
    if engine.dialect.name == "postgresql":
        async with engine.connect() as connection:
            idle = 1
            for _ in range(50):  # the server needs a moment to see that a client has gone
                idle = (await connection.execute(text(IDLE))).scalar_one()
                await connection.rollback()  # or the next look would be at the same snapshot
                if idle == 0:
                    break
                await asyncio.sleep(0.02)
        assert idle == 0
    await engine.dispose()
