"""How often a flush waits for PostgreSQL, counted between it and us."""

import asyncio
from itertools import count
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from catalysis import Database, Session
from tests.models import Label, Model, Person
from tests.proxy import counted

number = count()


async def trips_of(url: str, work: Any) -> int:
    """How often `work(session)` waits for the server, once everything is prepared."""
    async with counted(url) as (through, trips):
        engine = create_async_engine(through, pool_size=1, max_overflow=0)
        for _ in range(3):
            async with Session(engine, expire_on_commit=False) as session:
                prepared = await work(session)
                trips.reset()
                await prepared()
                await asyncio.sleep(0.05)
        await engine.dispose()
        return trips.count


@pytest.fixture
async def on_postgres(postgres_url: str) -> str:
    database = Database(postgres_url)
    await database.create_all(Model.metadata)
    await database.close()
    return postgres_url


async def test_one_new_row_is_one_round_trip(on_postgres: str):
    async def work(session: Session) -> Any:
        session.add(Label(name=f"label {next(number)}"))
        return session.commit

    assert await trips_of(on_postgres, work) == 1


async def test_one_new_row_in_a_begin_block_is_one_round_trip(on_postgres: str):
    async def work(session: Session) -> Any:
        async def block() -> None:
            async with session.begin():
                session.add(Label(name=f"label {next(number)}"))

        return block

    assert await trips_of(on_postgres, work) == 1


async def test_one_changed_and_one_deleted_row_are_one_round_trip_each(on_postgres: str):
    async def change(session: Session) -> Any:
        label = Label(name=f"label {next(number)}")
        session.add(label)
        await session.commit()
        label.name += "!"
        return session.commit

    async def delete(session: Session) -> Any:
        label = Label(name=f"label {next(number)}")
        session.add(label)
        await session.commit()
        await session.delete(label, hard=True)
        return session.commit

    assert await trips_of(on_postgres, change) == 1
    assert await trips_of(on_postgres, delete) == 1


async def test_two_rows_need_a_transaction(on_postgres: str):
    async def work(session: Session) -> Any:
        session.add_all([Label(name=f"label {next(number)}"), Person(name=f"person {next(number)}")])
        return session.commit

    assert await trips_of(on_postgres, work) == 4


async def test_a_thousand_rows_of_one_class_are_three_round_trips(on_postgres: str):
    async def insert(session: Session) -> Any:
        session.add_all([Label(name=f"label {next(number)}") for _ in range(1_000)])
        return session.commit

    async def change(session: Session) -> Any:
        labels = [Label(name=f"label {next(number)}") for _ in range(1_000)]
        session.add_all(labels)
        await session.commit()
        for each in labels:
            each.name += "!"
        return session.commit

    assert await trips_of(on_postgres, insert) == 3
    assert await trips_of(on_postgres, change) == 3
