"""6. One session in several tasks: reads at once outside a transaction, in order inside one; never a broken connection.

Mutations seen to fail: `fetch` in `engine/run.py` without the session's turn; `Session.commit` without it ("another
operation is in progress", "provisioning a new connection", or for ever).
"""

import asyncio
from typing import Any

import pytest
from sqlalchemy import func, text
from sqlmodel import select

from catalysis import Database, Session
from tests.faults.checks import eventually, seen_from_outside
from tests.models import Job, Label, Person


@pytest.fixture
async def filled(database: Database) -> Database:
    async with database.session() as session:
        session.add_all([Label(name=f"label {n}") for n in range(5)])
        session.add(Person(name="ada", jobs=[Job(title="x")]))
        await session.commit()
    return database


async def _five(session: Session) -> None:
    found = await asyncio.gather(
        *[session.exec(select(Label).where(Label.name == f"label {n}")) for n in range(5)]
    )
    assert [each.one().name for each in found] == [f"label {n}" for n in range(5)]


async def test_outside_a_transaction_reads_run_at_once(postgres_url: str, filled: Database):
    if filled.engine.dialect.name != "postgresql":
        async with filled.session() as session:
            await _five(session)
            assert filled.pool_figures().lent == 0
        return
    async with filled.session() as session, seen_from_outside(postgres_url) as server:
        # No read is answered before all five wait: one after another they would wait for ever.
        await server.connection.execute("BEGIN; LOCK TABLE label IN ACCESS EXCLUSIVE MODE")
        reading = asyncio.create_task(_five(session))

        async def all_wait() -> bool:
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'label'::regclass"
            return await server.connection.fetchval(waiting) == 5

        await eventually(all_wait, "they do not run at once")
        assert filled.pool_figures().lent == 5
        await server.connection.execute("ROLLBACK")
        await reading
        assert filled.pool_figures().lent == 0


@pytest.mark.parametrize("flushed", [True, False])
@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_its_end_queues_with_the_reads(filled: Database, flushed: bool, end: str):
    """Wherever it stands among them: each read is before it or after it, and the session is as good as before."""
    count = select(func.count()).select_from(Label)
    for place in range(4):
        async with filled.session() as session:
            session.add(Label(name=f"{end} {flushed} {place}"))
            if flushed:
                await session.flush()
            work: list[Any] = [session.scalar(count) for _ in range(3)]
            work.insert(place, getattr(session, end)())
            found = await asyncio.gather(*work)
            there = await session.scalar(count)
            del found[place]
            assert there == (5 + place + 1 if end == "commit" else 5)
            assert set(found) <= {there - 1, there, there + 1}
    assert filled.pool_figures().lent == 0


async def test_inside_a_transaction_reads_queue_on_its_connection(filled: Database):
    async with filled.session() as session, session.begin():
        await _five(session)
        assert filled.pool_figures().lent == 1


@pytest.mark.parametrize("in_transaction", [False, True])
async def test_whatever_is_mixed_the_session_goes_on(filled: Database, in_transaction: bool):
    async with filled.session() as session:
        if in_transaction:
            await session.connection()
        for turn in range(5):
            session.add(Label(name=f"new {turn}"))
            await asyncio.gather(
                session.exec(select(Label)),
                session.flush(),
                session.execute(text("SELECT 1")),
                session.scalar(select(func.count(Label.id))),
                session.exec(select(Person, func.now())),
                session.get(Person, (await session.exec(select(Person.id))).one()),
            )
        await session.commit()
        assert await session.scalar(select(func.count(Label.id))) == 10


async def test_one_that_is_cancelled_does_not_take_the_others_along(filled: Database):
    async with filled.session() as session:
        tasks = [asyncio.create_task(session.exec(select(Label))) for _ in range(8)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in ended[::2])
        assert [len(each.all()) for each in ended[1::2]] == [5] * 4
        await _five(session)
