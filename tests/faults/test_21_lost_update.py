"""21. Two sessions change one row that has a version column: one wins, the other gets StaleDataError.

Mutation seen to fail: `_written` tells that one row was changed, whatever the driver counted: the second is lost.
"""

import asyncio

import pytest
from sqlalchemy import Column, Integer
from sqlalchemy.orm import registry
from sqlalchemy.orm.exc import StaleDataError
from sqlmodel import Field, SQLModel

from catalysis import Database


class Versioned(SQLModel, registry=registry()):
    pass


version = Column(Integer, nullable=False)


class Account(Versioned, table=True):
    __mapper_args__ = {"version_id_col": version}

    id: int = Field(primary_key=True)
    balance: int = 0
    version: int = Field(default=1, sa_column=version)


async def test_of_two_updates_one_wins_and_one_is_stale(backend_url: str):
    database = Database(backend_url)
    await database.create_all(Versioned.metadata)
    async with database.session() as session:
        session.add(Account(id=1, balance=0))
        await session.commit()
    both_have_read = asyncio.Barrier(2)

    async def deposit(amount: int) -> str:
        async with database.session() as session:
            account = await session.get_one(Account, 1)
            await both_have_read.wait()
            account.balance += amount
            await session.commit()
            return "won"

    results = await asyncio.gather(deposit(1), deposit(2), return_exceptions=True)
    assert {type(each) for each in results} == {str, StaleDataError}
    async with database.session() as session:
        account = await session.get_one(Account, 1)
        assert (account.balance, account.version) == (1 if results[0] == "won" else 2, 2)
    await database.close()


@pytest.mark.parametrize("alone", [True, False])
async def test_many_updates_are_all_counted_or_refused(backend_url: str, alone: bool):
    """The row's last value is the number of those that won; `alone` is sent without a transaction of its own."""
    database = Database(backend_url)
    await database.create_all(Versioned.metadata)
    async with database.session() as session:
        session.add_all([Account(id=1, balance=0), Account(id=2, balance=0)])
        await session.commit()
    won = 0

    async def deposit() -> None:
        nonlocal won
        async with database.session() as session:
            account = await session.get_one(Account, 1)
            account.balance += 1
            if not alone:
                await session.flush()
            await session.commit()
            won += 1

    ended = await asyncio.gather(*[deposit() for _ in range(12)], return_exceptions=True)
    assert {type(each) for each in ended if each is not None} <= {StaleDataError}
    async with database.session() as session:
        assert (await session.get_one(Account, 1)).balance == won >= 1
    await database.close()
