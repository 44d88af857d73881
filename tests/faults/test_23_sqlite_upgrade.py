"""23. SQLite: a transaction that has read wants to write while another does: it waits its busy timeout.

SQLite itself fails it at once where it has read before (SQLITE_BUSY_SNAPSHOT), whatever the timeout.

Mutation seen to fail: `_begin_immediate` begins every transaction, with a plain BEGIN, as SQLAlchemy's recipe for
SQLite does ("database is locked" at once).
"""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlmodel import func, select

from catalysis import Database, DatabaseSettings
from tests.models import Label, made


@pytest.fixture
async def embedded(tmp_path) -> AsyncIterator[Database]:
    settings = DatabaseSettings(url=f"sqlite:///{tmp_path / 'x.db'}", busy_timeout=20)
    async with made(settings) as database:
        yield database


async def count(database: Database) -> int:
    async with database.session() as session:
        return (await session.exec(select(func.count()).select_from(Label))).one()


async def test_a_reading_transaction_takes_no_lock_and_a_writing_one_takes_it_at_once(embedded: Database):
    async with embedded.session() as reader, embedded.session() as writer:
        await reader.exec(select(Label))
        connection = (await (await reader.connection()).get_raw_connection()).driver_connection
        assert not connection.in_transaction
        writer.add(Label(name="w"))
        await writer.commit()
        await reader.exec(select(Label))
        reader.add(Label(name="r"))  # read before another wrote: stock SQLite transactions fail here
        await reader.flush()
        assert connection.in_transaction
        await reader.commit()
    assert await count(embedded) == 2


@pytest.mark.parametrize("by_sqlalchemy", [False, True])
async def test_one_that_read_waits_for_one_that_writes(embedded: Database, by_sqlalchemy: bool):
    async with embedded.session() as first, embedded.session() as second:
        await second.execute(text("SELECT count(*) FROM label"))
        first.add(Label(name="first"))
        await first.flush()

        async def write() -> None:
            if by_sqlalchemy:
                await second.execute(text("INSERT INTO label (id, name) VALUES ('2', 'second')"))
            else:
                second.add(Label(name="second"))
                await second.flush()
            await second.commit()

        writing = asyncio.create_task(write())
        await asyncio.sleep(0.3)
        assert not writing.done(), "it waits"
        await first.commit()
        await asyncio.wait_for(writing, 15)
    assert await count(embedded) == 2


async def test_writers_wait_for_each_other(embedded: Database):
    async def one_more(number: int) -> None:
        async with embedded.session() as session:
            seen = (await session.exec(select(func.count()).select_from(Label))).one()
            session.add(Label(name=f"{number} after {seen}"))
            await session.flush()
            await asyncio.sleep(0.02)
            await session.commit()

    await asyncio.gather(*[one_more(number) for number in range(10)])
    assert await count(embedded) == 10


async def test_a_writer_that_waits_too_long_is_told(tmp_path):
    settings = DatabaseSettings(url=f"sqlite:///{tmp_path / 'x.db'}", busy_timeout=0.2)
    async with made(settings) as database, database.session() as one, database.session() as two:
        one.add(Label(name="one"))
        await one.flush()
        two.add(Label(name="two"))
        started = time.monotonic()
        with pytest.raises(OperationalError, match="locked"):
            await two.flush()
        assert 0.1 < time.monotonic() - started < 10
        await two.rollback()
        await one.rollback()
