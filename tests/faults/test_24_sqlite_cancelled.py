"""24. SQLite: a long query is cancelled: it is interrupted, and the connection goes on at once.

The query would take minutes, so that the next statement on a pool of one would wait for it.  Stock: 7.4 seconds.

Mutations seen to fail: `interrupt` not called in `_in_thread` (native); `_interrupt_cancelled` returns at once (by
SQLAlchemy).
"""

import asyncio
from typing import Any

import pytest
from sqlalchemy import func, text
from sqlmodel import select

from catalysis import Database, DatabaseSettings, Session
from tests.faults.checks import eventually
from tests.models import Label, made

NUMBERS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 3000000000)"
LONG = f"{NUMBERS} SELECT count(*) FROM n"


async def _stream(session: Session) -> None:
    async for _ in await session.stream(text(LONG)):
        pass


async def _write(session: Session) -> None:
    session.add(Label(name="before"))
    await session.flush()
    await session.execute(text(f"INSERT INTO label (id, name) {NUMBERS} SELECT 'x' || count(*), 'x' FROM n"))


WORK: dict[str, Any] = {
    "native": lambda session: session.execute(select(func.count()).select_from(text(f"({LONG}) AS long"))),
    "in a transaction": lambda session: session.execute(
        select(func.count(), func.random()).select_from(text(f"({LONG}) AS long"))
    ),
    "by SQLAlchemy": lambda session: session.execute(text(LONG)),
    "a stream": _stream,
    "a write": _write,
}


@pytest.mark.parametrize("name", WORK)
async def test_it_is_interrupted(tmp_path, name: str):
    settings = DatabaseSettings(
        url=f"sqlite:///{tmp_path / 'x.db'}", pool_size=1, max_overflow=0, pool_timeout=30, busy_timeout=20
    )
    async with made(settings) as database:

        async def use() -> None:
            async with database.session() as session:
                await WORK[name](session)

        task = asyncio.create_task(use())
        await asyncio.sleep(0.3)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 20)
        await _goes_on(database)


async def _goes_on(database: Database) -> None:
    await eventually(lambda: database.pool_figures().lent == 0, "lost")
    async with asyncio.timeout(20), database.session() as session:
        assert (await session.exec(select(Label.name))).all() == []
        session.add(Label(name="after"))
        await session.commit()


async def test_what_runs_next_is_not_interrupted_in_its_place(tmp_path):
    """The cancellation comes when the statement has just ended, or has not begun."""
    async with made(DatabaseSettings(url=f"sqlite:///{tmp_path / 'x.db'}", pool_size=1)) as database:
        for round_ in range(100):
            async with database.session() as session:
                tasks = [asyncio.create_task(session.exec(select(Label))) for _ in range(4)]
                for _ in range(round_ % 5):
                    await asyncio.sleep(0)
                tasks[round_ % 4].cancel()
                ended = await asyncio.gather(*tasks, return_exceptions=True)
                for number, each in enumerate(ended):
                    if number != round_ % 4:
                        assert not isinstance(each, BaseException), repr(each)
