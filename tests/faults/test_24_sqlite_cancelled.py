"""24. SQLite: a long query is cancelled: it is interrupted, and the connection goes on at once.

The query would take hours, so that the next statement on a pool of one would wait for it; SQLite's progress handler
tells whether it still runs.  Stock: 7.4 seconds.

Mutations seen to fail: `_in_thread` does not `interrupt` (the query runs on; in a transaction its session waits), does
so whatever is running (another task's statement fails: "interrupted"), or leaves `is_wanted` as it is (what waited
runs all the same); `_interrupt_cancelled` returns at once (by SQLAlchemy, a stream and a write: the session waits), or
`AGAIN` is empty (so does one that had not begun).
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from sqlalchemy import event, func, text
from sqlalchemy.orm import aliased
from sqlmodel import select

from catalysis import Database, DatabaseSettings, Session
from tests.faults.checks import PATIENCE, eventually
from tests.models import Label, made

NUMBERS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 3000000000)"
NAMES = [f"label {number}" for number in range(100, 200)]
SOON = 5
"""Seconds: an interruption takes some milliseconds."""
LONG = f"{NUMBERS} SELECT count(*) FROM n"


async def _stream(session: Session) -> None:
    async for _ in await session.stream(text(LONG)):
        pass


async def _write(session: Session) -> None:
    session.add(Label(name="before"))
    await session.flush()
    await session.execute(text(f"INSERT INTO label (id, name) {NUMBERS} SELECT 'x' || count(*), 'x' FROM n"))


CROSSED = [aliased(Label) for _ in range(6)]
WORK: dict[str, Callable[[Session], Awaitable[Any]]] = {
    "outside a transaction": lambda session: session.exec(
        select(func.count()).where(*[one.name != other.name for one, other in pairwise(CROSSED)])
    ),
    "in a transaction": lambda session: session.execute(
        select(func.count()).select_from(text(f"({LONG}) AS long"))
    ),
    "by SQLAlchemy": lambda session: session.execute(text(LONG)),
    "a stream": _stream,
    "a write": _write,
}


class Progress:
    """SQLite's handler of a connection's progress: counts its steps, can hold them, and at last ends what runs."""

    def __init__(self) -> None:
        self.steps = 0
        self.over = False
        self.queue: Any = SimpleQueue[Any]()
        """What waits for the connection's thread."""
        self.is_held = False
        self.flows = threading.Event()
        self.flows.set()

    def __call__(self) -> bool:
        self.steps += 1
        self.is_held = not self.flows.is_set()
        self.flows.wait(PATIENCE)
        return self.over

    async def runs(self) -> None:
        """Wait until it gets on."""
        before = self.steps
        await eventually(lambda: self.steps > before, "it never began")

    async def hold(self) -> None:
        """Hold what runs, until `flows` is set."""
        self.flows.clear()
        await eventually(lambda: self.is_held, "it never began")

    async def is_waited_for(self) -> None:
        """Wait until the thread has something to do when it is through."""
        await eventually(lambda: self.queue.qsize() == 1, "nothing waits for the thread")

    async def stands_still(self) -> bool:
        before = self.steps
        await asyncio.sleep(0.05)
        return self.steps == before

    def end(self) -> None:
        """End what runs, so that a test which fails leaves no thread at work."""
        self.over = True
        self.flows.set()


@asynccontextmanager
async def watched(path: Path) -> AsyncIterator[tuple[Database, Progress]]:
    """A database with a pool of one connection, and how what it runs gets on."""
    settings = DatabaseSettings(
        url=f"sqlite:///{path / 'x.db'}", pool_size=1, max_overflow=0, pool_timeout=30, busy_timeout=20
    )
    async with made(settings) as other:
        async with other.session() as session:
            session.add_all([Label(name=name) for name in NAMES])
            await session.commit()
        database, progress = Database(settings), Progress()

        def watch(connection: Any, record: Any) -> None:
            progress.queue = connection.driver_connection._tx
            connection.run_async(lambda raw: raw.set_progress_handler(progress, 1_000))

        event.listen(database.engine.sync_engine, "connect", watch)
        try:
            yield database, progress
        finally:
            progress.end()
            await database.close()


@pytest.mark.parametrize("name", WORK)
async def test_it_is_interrupted(tmp_path: Path, name: str):
    async with watched(tmp_path) as (database, progress):

        async def use() -> None:
            async with database.session() as session:
                await WORK[name](session)

        task = asyncio.create_task(use())
        await progress.runs()
        task.cancel()
        await asyncio.wait([task], timeout=SOON)
        assert task.done(), "its session waits for the end of the query"
        assert task.cancelled()
        await eventually(progress.stands_still, "the query runs on")
        await _goes_on(database)


async def _goes_on(database: Database) -> None:
    await eventually(lambda: database.pool_figures().lent == 0, "lost")
    async with asyncio.timeout(20), database.session() as session:
        assert sorted((await session.exec(select(Label.name))).all()) == NAMES
        session.add(Label(name="after"))
        await session.commit()


async def test_what_waited_for_the_thread_does_not_begin(tmp_path: Path):
    async with watched(tmp_path) as (database, progress):

        async def use() -> None:
            async with database.session() as session:
                await WORK["outside a transaction"](session)

        first = asyncio.create_task(use())
        await progress.hold()
        first.cancel()
        await asyncio.wait([first], timeout=SOON)
        second = asyncio.create_task(use())
        await progress.is_waited_for()
        second.cancel()
        await asyncio.wait([second], timeout=SOON)
        assert first.cancelled()
        assert second.cancelled()
        progress.flows.set()
        await eventually(progress.stands_still, "the second runs all the same")
        await _goes_on(database)


async def test_what_sqlalchemy_runs_is_interrupted_when_it_has_begun(tmp_path: Path):
    """It is in the thread's queue when it is cancelled, and cannot be taken out of it."""
    asked, gate = threading.Event(), threading.Event()
    async with watched(tmp_path) as (database, progress):

        def hold() -> None:
            asked.set()
            gate.wait(SOON)

        def before(*_: Any) -> None:
            progress.queue.put_nowait((asyncio.get_running_loop().create_future(), hold))

        async def use() -> None:
            async with database.session() as session:
                await WORK["by SQLAlchemy"](session)

        event.listen(database.engine.sync_engine, "before_cursor_execute", before)
        task = asyncio.create_task(use())
        await eventually(asked.is_set, "it never asked")
        await progress.is_waited_for()
        event.remove(database.engine.sync_engine, "before_cursor_execute", before)
        task.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        gate.set()
        await asyncio.wait([task], timeout=SOON)
        assert task.done(), "its session waits for the end of the query"
        assert task.cancelled()
        await _goes_on(database)


async def test_what_runs_is_not_interrupted_in_the_place_of_what_waits(tmp_path: Path):
    """A stream is to begin in a transaction whose connection is at another statement."""
    async with watched(tmp_path) as (database, progress), database.session() as session, session.begin():
        await session.exec(select(Label))
        some = text(f"({NUMBERS} SELECT x FROM n LIMIT 100000) AS some")
        other = asyncio.create_task(session.execute(select(func.count()).select_from(some)))
        await progress.hold()
        waiting = asyncio.create_task(session.stream(select(Label)))
        await progress.is_waited_for()
        waiting.cancel()
        await asyncio.wait([waiting], timeout=SOON)
        assert waiting.cancelled()
        progress.flows.set()
        [answer] = await asyncio.gather(other, return_exceptions=True)
        assert not isinstance(answer, BaseException), repr(answer)
        assert answer.scalar_one() == 100_000


async def test_what_runs_next_is_not_interrupted_in_its_place(tmp_path: Path):
    """The cancellation comes when the statement has just ended, or has not begun; the others go by its connection."""
    async with watched(tmp_path) as (database, _):
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
