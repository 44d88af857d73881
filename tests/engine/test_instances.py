"""Instances made by the compiled part and by the hydrator's own lines: the same, and nothing is left of either."""

import gc
import os
import pickle
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ForeignKey, MetaData, inspect, select
from sqlalchemy.orm import (
    Mapped,
    configure_mappers,
    declarative_base,
    joinedload,
    load_only,
    mapped_column,
    relationship,
    selectinload,
)
from sqlmodel import Field, SQLModel

from catalysis import Database
from catalysis.engine.alchemy import states

Base: Any = declarative_base()


class Shelf(Base):
    __tablename__ = "instances_shelf"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    books: Mapped[list["Book"]] = relationship(back_populates="shelf", order_by="Book.id")


class Book(Base):
    __tablename__ = "instances_book"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str | None]
    shelf_id: Mapped[int | None] = mapped_column(ForeignKey("instances_shelf.id"))
    shelf: Mapped[Shelf | None] = relationship(back_populates="books")


class Model(SQLModel):
    metadata = MetaData()


class Reader(Model, table=True):
    __tablename__ = "instances_reader"
    id: int | None = Field(default=None, primary_key=True)
    name: str


class Page(Base):
    """A class with a `__new__` of its own."""

    __tablename__ = "instances_page"
    id: Mapped[int] = mapped_column(primary_key=True)
    made = 0

    def __new__(cls, *_: Any, **__: Any) -> Any:
        cls.made += 1
        return super().__new__(cls)


@pytest.fixture(params=["compiled", "pure"])
async def database(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[Database]:
    if request.param == "pure":
        monkeypatch.setattr(states, "compiled", None)
    elif states.compiled is None:
        pytest.skip("Catalysis was installed without its compiled part")
    database = Database(f"sqlite:///{tmp_path / 'instances.db'}")
    await database.create_all(Base.metadata)
    await database.create_all(Reader.metadata)
    async with database.session() as session:
        shelves = [Shelf(id=n, name=f"shelf {n}") for n in range(3)]
        session.add_all(shelves)
        session.add_all(
            Book(id=n, title=f"book {n}", shelf=shelves[n % 2] if n < 8 else None) for n in range(10)
        )
        session.add_all(Reader(id=n, name=f"reader {n}") for n in range(3))
        session.add_all(Page(id=n) for n in range(3))
        await session.commit()
    yield database
    await database.close()


def test_it_was_compiled():
    if os.environ.get("CATALYSIS_REQUIRE_COMPILED") != "1":
        pytest.skip("CATALYSIS_REQUIRE_COMPILED=1 makes it a failure that nothing was compiled")
    assert states.compiled is not None, "install anew: python -m pip install -e ."


async def twice(session: Any, statement: Any) -> Any:
    """Its second answer: by then the plan has its hydrator."""
    await session.execute(statement)
    session.expunge_all()
    return (await session.scalars(statement)).unique().all()


async def test_what_an_instance_is(database: Database):
    async with database.session() as session:
        first, *_ = await twice(session, select(Reader).order_by(Reader.id))
        state = inspect(first)
        assert isinstance(state, states.NativeState)
        assert (state.persistent, state.session, state.identity_key) == (
            True,
            session.sync_session,
            (Reader, (0,), None),
        )
        assert first.__dict__ == {"_sa_instance_state": state, "id": 0, "name": "reader 0"}
        assert (first.model_fields_set, first.__pydantic_extra__, first.__pydantic_private__) == (
            set(),
            None,
            None,
        )
        assert await session.get(Reader, 0) is first
        assert first.model_dump() == {"id": 0, "name": "reader 0"}
        copy = pickle.loads(pickle.dumps(first))
        assert (copy.name, inspect(copy).identity) == ("reader 0", (0,))
        first.name = "changed"
        assert first in session.dirty
        await session.commit()


async def test_attributes_that_were_not_selected_are_loaded_later(database: Database):
    async with database.session() as session:
        books = await twice(session, select(Book).options(load_only(Book.title)).order_by(Book.id))
        assert "shelf_id" not in books[0].__dict__
        await session.refresh(books[0], ["shelf_id"])
        assert books[0].shelf_id == 0


@pytest.mark.parametrize("load", [joinedload, selectinload])
async def test_relationships(database: Database, load: Any):
    async with database.session() as session:
        books = await twice(session, select(Book).options(load(Book.shelf)).order_by(Book.id))
        assert [each.shelf and each.shelf.name for each in books] == [
            *[f"shelf {n % 2}" for n in range(8)],
            None,
            None,
        ]
        assert books[0].shelf is books[2].shelf
        shelves = await twice(session, select(Shelf).options(load(Shelf.books)).order_by(Shelf.id))
        assert [[book.id for book in each.books] for each in shelves] == [[0, 2, 4, 6], [1, 3, 5, 7], []]


async def test_an_instance_that_the_session_had_keeps_its_changes(database: Database):
    async with database.session() as session:
        await twice(session, select(Shelf).order_by(Shelf.id))
        shelf = (await session.scalars(select(Shelf).where(Shelf.id == 1))).one()
        shelf.name = "mine"
        with session.no_autoflush:
            again = (await session.scalars(select(Shelf).order_by(Shelf.id))).all()
        assert again[1] is shelf
        assert shelf.name == "mine"
        assert shelf in session.dirty
        await session.rollback()


async def test_one_row_twice_is_one_instance(database: Database):
    async with database.session() as session:
        statement = select(Shelf).join(Shelf.books).order_by(Shelf.id)
        await session.execute(statement)
        rows = (await session.scalars(statement)).all()
        assert len(rows) == 8
        assert len({id(each) for each in rows}) == 2


async def test_a_class_with_its_own_new(database: Database):
    async with database.session() as session:
        await session.execute(select(Page))
        before = Page.made
        assert len(await twice(session, select(Page))) == 3
        assert Page.made - before == 6


@pytest.mark.parametrize("is_open", [True, False])
async def test_forgotten_instances_leave_nothing(database: Database, is_open: bool):
    async with database.session() as session:
        statement = select(Book).options(joinedload(Book.shelf)).order_by(Book.id)
        await twice(session, statement)
        blocks = list[int]()
        for turns in (10, 60):
            for _ in range(turns):
                books = (await session.scalars(statement)).all()
                assert len(session.identity_map) == 12
                if not is_open:
                    session.expunge_all()
                del books
                assert len(session.identity_map) == 0
            gc.collect()
            blocks.append(sys.getallocatedblocks())
        assert blocks[1] - blocks[0] < 60 * 10  # one for each book of each turn


@pytest.mark.skipif(states.compiled is None, reason="Catalysis was installed without its compiled part")
def test_a_maker_takes_a_value_for_each_name():
    configure_mappers()
    node = (
        Shelf,
        states.state_class(inspect(Shelf).class_manager),
        Shelf,
        None,
        ("id", "name"),
        {},
        None,
        1,
        True,
        False,
    )
    make = states.compiled.maker(node, {}, None, 1, 1, None)
    with pytest.raises(TypeError, match="a value is needed for each part of the key and for each attribute"):
        make(1, 1)
    assert make(None, None, None) is None
    with pytest.raises(TypeError, match="unhashable"):
        make([], [], None)
    assert not make.is_new
    assert make(1, 1, "a").name == "a"
    assert make.is_new
