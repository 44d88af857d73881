"""Instances of one flush are refreshed together, and each only when it is asked for."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Mapped, declarative_base, mapped_column
from sqlmodel import select

from catalysis import Database, watch_queries
from tests.models import Label

Base: Any = declarative_base()


class Parcel(Base):
    __tablename__ = "parcel"
    key: Mapped[str] = mapped_column(primary_key=True)
    label: Mapped[str | None]


async def test_instances_of_one_flush_are_refreshed_together(database: Database):
    async with database.session() as session:
        labels = [Label(name=f"label {n}") for n in range(250)]
        session.add_all(labels)
        await session.commit()
        async with database.session() as other:
            for each in (await other.exec(select(Label))).all():
                each.name += "!"
            await other.commit()
        with watch_queries() as queries:
            for each in labels:
                await session.refresh(each)
        assert len(queries) == 2
        assert [each.name for each in labels] == [f"label {n}!" for n in range(250)]


async def test_only_what_is_refreshed_changes(database: Database):
    async with database.session() as session:
        one, other = Label(name="one"), Label(name="other")
        session.add_all([one, other])
        await session.commit()
        async with database.session() as elsewhere:
            for each in (await elsewhere.exec(select(Label))).all():
                each.name += "!"
            await elsewhere.commit()
        await session.refresh(one)
        assert (one.name, other.name) == ("one!", "other")
        async with database.session() as elsewhere:
            for each in (await elsewhere.exec(select(Label))).all():
                each.name += "?"
            await elsewhere.commit()
        await session.refresh(other)
        assert other.name == "other!?", "the task has waited since its row was fetched"


async def test_a_refresh_flushes_the_others_and_forgets_its_own_changes(database: Database):
    async with database.session() as session:
        one, other = Label(name="one"), Label(name="other")
        session.add_all([one, other])
        await session.commit()
        one.name, other.name = "lost", "sent"
        await session.refresh(one)
        await session.refresh(other)
        assert (one.name, other.name) == ("one", "sent")
        await session.commit()


async def test_a_row_that_is_gone_cannot_be_refreshed(database: Database):
    async with database.session() as session:
        one, other = Label(name="one"), Label(name="other")
        session.add_all([one, other])
        await session.commit()
        async with database.session() as elsewhere:
            await elsewhere.delete(await elsewhere.get_one(Label, other.id), hard=True)
            await elsewhere.commit()
        await session.refresh(one)
        with pytest.raises(InvalidRequestError, match="Could not refresh"):
            await session.refresh(other)
        with pytest.raises(InvalidRequestError, match="not persistent"):
            await session.refresh(Label(name="new"))


async def test_a_key_that_comes_back_otherwise_is_refreshed_by_sqlalchemy(tmp_path: Path):
    database = Database(f"sqlite:///{tmp_path / 'keys.db'}")
    await database.create_all(Base.metadata)
    async with database.session() as session:
        number: Any = 10
        parcels = [Parcel(key=number, label="a"), Parcel(key="b", label="b")]
        session.add_all(parcels)
        await session.commit()
        for each in parcels:
            await session.refresh(each)
        assert [each.label for each in parcels] == ["a", "b"]
    await database.close()
