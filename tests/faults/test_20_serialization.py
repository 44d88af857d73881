"""20. Serialization failures and deadlocks, also those COMMIT reports: the whole function is replayed, with pauses.

Mutation seen to fail: `REPLAYABLE` is empty.
"""

import asyncio
import logging
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlmodel import select

from catalysis import Database, Session
from catalysis import transactions as transactions_module
from tests.faults.checks import names
from tests.models import Label, made
from tests.test_transactions import add, always_failing, key_of, rename, short_pauses, sqlstate

__all__ = ["short_pauses"]  # a fixture


class Meeting:
    """Two transactions that meet once, in their first attempts."""

    def __init__(self) -> None:
        self.barrier, self.attempts = asyncio.Barrier(2), 0

    def arrive(self) -> None:
        self.attempts += 1

    async def meet(self) -> None:
        if self.attempts <= 2:
            await self.barrier.wait()


async def write_skew(database: Database, retries: int, *, late: bool) -> tuple[list[Any], int, list[int]]:
    """Each counts the labels and adds one; where `late`, both flush before either commits: COMMIT finds it."""
    meeting, flushed, seen_last = Meeting(), asyncio.Barrier(2), list[int]()

    def worker(name: str) -> Any:
        async def work(session: Session) -> str:
            meeting.arrive()
            first = meeting.attempts <= 2
            seen = len((await session.exec(select(Label))).all())
            await meeting.meet()
            await add(session, f"{name}{seen}")
            if late and first:
                await flushed.wait()
            seen_last.append(seen)
            return name

        return work

    both = [
        database.transaction(worker(name), retries=retries, isolation="serializable") for name in ("a", "b")
    ]
    return await asyncio.gather(*both, return_exceptions=True), meeting.attempts, seen_last


@pytest.mark.parametrize("late", [True, False])
async def test_write_skew_is_found_and_replayed(postgres_url: str, late: bool):
    async with made(postgres_url) as database:
        results, attempts, _ = await write_skew(database, 5, late=late)
        assert results == ["a", "b"]
        assert attempts == 3
        assert {name[1:] for name in await names(database)} == {"0", "1"}, "as if one came after the other"


async def test_write_skew_fails_at_commit(postgres_url: str):
    """Both have done all their work without an error, so that the failure is the COMMIT's own."""
    async with made(postgres_url) as database:
        results, attempts, ended = await write_skew(database, 0, late=True)
        (failure,) = [each for each in results if isinstance(each, BaseException)]
        assert sqlstate(failure) == "40001"
        assert failure.statement is None, "no statement of the work"
        assert (attempts, ended) == (2, [0, 0])
        assert len(await names(database)) == 1


async def test_without_isolation_the_skew_is_not_seen(postgres_url: str):
    async with made(postgres_url) as database:
        both = Meeting()

        async def work(session: Session) -> None:
            both.arrive()
            name = str(both.attempts)
            seen = len((await session.exec(select(Label))).all())
            await both.meet()
            session.add(Label(name=f"{name} after {seen}"))

        await asyncio.gather(database.transaction(work), database.transaction(work))
        assert await names(database) == ["1 after 0", "2 after 0"]


async def deadlock(database: Database, retries: int) -> tuple[list[Any], int]:
    async with database.session() as session:
        session.add(Label(name="x"))
        session.add(Label(name="y"))
        await session.commit()
    x, y = await key_of(database, "x"), await key_of(database, "y")
    meeting = Meeting()

    def worker(first: UUID, second: UUID, name: str) -> Any:
        async def work(session: Session) -> str:
            meeting.arrive()
            await session.execute(text("SET LOCAL deadlock_timeout = '50ms'"))
            await rename(session, first, f"{name}1")
            await meeting.meet()
            await rename(session, second, f"{name}2")
            return name

        return work

    both = [
        database.transaction(worker(x, y, "a"), retries=retries),
        database.transaction(worker(y, x, "b"), retries=retries),
    ]
    return await asyncio.gather(*both, return_exceptions=True), meeting.attempts


async def test_a_deadlock_is_replayed(postgres_url: str):
    async with made(postgres_url) as database:
        results, attempts = await deadlock(database, 5)
        assert results == ["a", "b"]
        assert attempts == 3
        assert await names(database) in (["a1", "a2"], ["b1", "b2"]), (
            "each wrote both or was overwritten whole"
        )
        assert database.pool_figures().lent == 0


async def test_a_deadlock_without_retries_is_raised(postgres_url: str):
    async with made(postgres_url) as database:
        results, attempts = await deadlock(database, 0)
        (failure,) = [each for each in results if isinstance(each, BaseException)]
        assert sqlstate(failure) == "40P01"
        assert attempts == 2


async def test_replays_are_bounded_and_told(postgres_url: str, caplog: pytest.LogCaptureFixture):
    async with made(postgres_url) as database:
        with caplog.at_level(logging.INFO, "catalysis.transactions"):
            failure, runs = await always_failing(database, retries=3)
        assert failure is not None
        assert sqlstate(failure) == "40001"
        assert runs == 4
        assert [record.getMessage().partition(" is run ")[2] for record in caplog.records] == [
            f"again after 40001 ({number} of 3)" for number in (1, 2, 3)
        ]
        assert await names(database) == []
        assert database.pool_figures().lent == 0


async def test_pauses_grow_to_a_bound(postgres_url: str, monkeypatch: pytest.MonkeyPatch):
    bounds: list[float] = []
    monkeypatch.setattr(transactions_module.random, "uniform", lambda least, most: bounds.append(most) or 0.0)
    monkeypatch.setattr(transactions_module, "LONGEST_PAUSE", 0.03)
    async with made(postgres_url) as database:
        await always_failing(database, retries=5)
    assert bounds == [0.005, 0.01, 0.02, 0.03, 0.03]


async def test_a_pause_is_cancelled_at_once(postgres_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transactions_module, "FIRST_PAUSE", 1000.0)
    monkeypatch.setattr(transactions_module, "LONGEST_PAUSE", 1000.0)
    async with made(postgres_url) as database:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await always_failing(database)
        assert database.pool_figures().lent == 0


async def test_other_errors_are_raised_at_once(database: Database):
    runs = 0

    async def work(session: Session) -> None:
        nonlocal runs
        runs += 1
        session.add(Label(name="x"))
        session.add(Label(name="x"))

    with pytest.raises(IntegrityError):
        await database.transaction(work)
    assert runs == 1
