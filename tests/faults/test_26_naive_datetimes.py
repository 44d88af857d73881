"""26. A datetime without a zone, on a machine that stands in Tokyo: refused with a clear error, stored nowhere.

Plain SQLAlchemy with asyncpg stored 12:00 as 03:00Z.

Mutation seen to fail: the base model's times as plain `DateTime(timezone=True)`.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import StatementError
from sqlmodel import select

from catalysis import BulkError, Database, bulk_insert
from tests.faults.checks import names
from tests.models import Label

NAIVE = datetime(2026, 1, 1, 12)


@pytest.fixture(autouse=True)
def in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


async def test_a_naive_datetime_is_refused(database: Database):
    async with database.session() as session:
        session.add(Label(name="naive", deleted_at=NAIVE))
        with pytest.raises(StatementError, match="must have timezone information"):
            await session.commit()
        await session.rollback()
        with pytest.raises(StatementError, match="must have timezone information"):
            await session.exec(select(Label).where(Label.created_at < NAIVE))
        await session.rollback()
        with pytest.raises(StatementError, match="must have timezone information"):
            await session.execute(insert(Label).values(name="naive", deleted_at=NAIVE))
        await session.rollback()
        with pytest.raises((StatementError, BulkError), match="timezone"):
            await bulk_insert(session, Label, [{"name": f"{n}", "deleted_at": NAIVE} for n in range(2_000)])
        await session.rollback()
    assert await names(database) == []


async def test_other_zones_are_stored_as_the_same_instant(database: Database):
    tokyo = NAIVE.replace(tzinfo=timezone(timedelta(hours=9)))
    async with database.session() as session:
        session.add(Label(name="t", deleted_at=tokyo))
        await session.commit()
    async with database.session() as session:
        assert (await session.exec(select(Label.deleted_at))).one() == datetime(2026, 1, 1, 3, tzinfo=UTC)
