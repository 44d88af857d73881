"""Instances made by the compiled part and by the hydrator's own lines: the same, and nothing is left of either."""

import gc
import os
import pickle
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ForeignKey, MetaData, String, TypeDecorator, inspect, select
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
from catalysis.engine import instances
from catalysis.engine.alchemy import states

Base: Any = declarative_base()


class Model(SQLModel):
    metadata = MetaData()


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


class Counted(TypeDecorator[Any]):
    """Text whose conversions are counted."""

    impl, cache_ok, conversions = String, True, 0

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        type(self).conversions += 1
        return value


class Parent(Base):
    __tablename__ = "instances_parent"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str | None] = mapped_column(Counted)
    children: Mapped[list["Child"]] = relationship(order_by="Child.id", back_populates="parent")


class Child(Base):
    __tablename__ = "instances_child"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int] = mapped_column(ForeignKey("instances_parent.id"))
    parent: Mapped[Parent] = relationship(back_populates="children")


class Made:
    made = 0

    def __new__(cls, *_: Any, **__: Any) -> Any:
        Made.made += 1
        return super().__new__(cls)


class Later(Model, Made, table=True):
    """SQLModel's `__new__` comes first, and calls the other."""

    __tablename__ = "instances_later"
    id: int | None = Field(default=None, primary_key=True)


@pytest.fixture(params=["compiled", "pure"])
async def database(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[Database]:
    if request.param == "compiled":
        if states.compiled is None:
            pytest.skip("Catalysis was installed without its compiled part")
        monkeypatch.setattr(instances, "MANY", 0)
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
        session.add_all(Later(id=n) for n in range(3))
        session.add(Parent(id=1, text="text", children=[Child(id=n) for n in range(20)]))
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
        await session.execute(select(Later))
        before = Made.made
        assert len(await twice(session, select(Later))) == 3
        assert Made.made - before == 6


@pytest.mark.parametrize(
    "statement",
    [
        select(Parent).options(joinedload(Parent.children)),
        select(Child, Parent).join(Child.parent),
        select(Child).options(joinedload(Child.parent)),
    ],
)
async def test_a_value_is_converted_once_for_an_instance(database: Database, statement: Any):
    async with database.session() as session:
        (await session.execute(statement)).unique().all()
        session.expunge_all()
        before = Counted.conversions
        rows = (await session.execute(statement)).unique().all()
        assert (len(rows), len(session.identity_map)) in ((1, 21), (20, 21))
        assert Counted.conversions - before == 1


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
def test_a_maker_finds_and_makes():
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
    compiled = states.compiled
    find = compiled.maker(node, {}, None, 1, 1, None)
    with pytest.raises(TypeError, match="a value is needed for each part of the key"):
        find(1, 1)
    with pytest.raises(RuntimeError, match="nothing was looked for"):
        find.make(1, "a")
    assert find(None) is None
    with pytest.raises(TypeError, match="unhashable"):
        find([])
    assert find(1) is compiled.absent
    with pytest.raises(TypeError, match="a value is needed for each attribute"):
        find.make(1)
    made = find.make(1, "a")
    assert (made.name, find(1) is made) == ("a", True)
    assert compiled.maker(node, {inspect(made).key: inspect(made)}, None, 2, 1, None)(1) is compiled.unsure
