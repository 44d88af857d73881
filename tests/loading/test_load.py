"""`load()`, and what is computed of a relationship for many objects."""

from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import (
    defer,
    joinedload,
    selectinload,
)

from catalysis import (
    Session,
    count,
    exists,
    load,
    top,
    total,
    watch_queries,
)
from tests.loading.models import ITEMS, SHELVES, Item, Shelf, shelves_of


async def test_load_goes_from_one_to_the_next(engine: Any) -> None:
    async with Session(engine) as session:
        shelves = await shelves_of(session)
        with watch_queries() as queries:
            await load(shelves, Shelf.items, Item.note, Item.twins, Shelf.by_name)
            await load(shelves, Shelf.items)
        queries.assert_statements(4)
        assert [item.note for item in shelves[0].items] == [f"note 1.{i}" for i in (3, 2, 1, 0)]
        assert len(shelves[0].by_name["item 0"].twins) == 3
        await load(shelves[0], Shelf.warned)
        assert "warned" not in shelves[1].__dict__


async def test_load_of_those_whose_key_is_not_loaded(engine: Any) -> None:
    async with Session(engine) as session:
        items = (await session.scalars(select(Item).options(defer(Item.shelf_id)).order_by(Item.id))).all()
        session.expire(items[0])
        with watch_queries() as queries:
            await load(items, Item.shelf)
        queries.assert_statements(1)
        assert [item.shelf.id for item in items if item.shelf] == [1] * 4 + [
            n for n in range(2, SHELVES + 1) for _ in range(ITEMS)
        ]


async def test_load_leaves_what_was_deleted(engine: Any) -> None:
    """Mutation seen to fail: `_calls` does not look at what was committed."""
    async with Session(engine, autoflush=False) as session:
        items = (await session.scalars(select(Item).where(Item.id < 30).order_by(Item.id))).all()
        del items[0].shelf
        await load(items, Item.shelf)
        await session.flush()
        stored = (await session.scalars(select(Item.shelf_id).order_by(Item.id).limit(3))).all()
        assert stored == [None, 1, 1]
        await session.rollback()


async def test_load_of_a_synonym(engine: Any) -> None:
    async with Session(engine) as session:
        items = (await session.scalars(select(Item).where(Item.id < 14).order_by(Item.id))).all()
        await load(items, Item.remark)
        assert [item.note for item in items] == [f"note 1.{i}" for i in range(4)]


async def test_load_refuses_what_cannot_be(engine: Any) -> None:
    async with Session(engine) as session:
        shelves = await shelves_of(session)
        with watch_queries() as queries, pytest.raises(Exception, match="none of the objects is a Item"):
            await load(shelves, Item.note, Shelf.items)
        queries.assert_statements(0)  # it is told before anything is sent
        with pytest.raises(Exception, match="takes mapped instances"):
            await load([1], Shelf.items)
        with pytest.raises(Exception, match="is computed for Item objects"):
            await load(shelves, count(Item.twins))
        with pytest.raises(Exception, match="takes a relationship"):
            count(Shelf.name)
        for mistaken in ("items", None, selectinload(Shelf.items), Shelf.items.and_(Item.size > 1), Shelf):
            with pytest.raises(Exception, match="takes mapped attributes as they are"):
                await load(shelves, mistaken)
        with pytest.raises(Exception, match="takes mapped attributes as they are"):
            await load(shelves, count(Shelf.items), exists(Shelf.items))
        with pytest.raises(Exception, match="takes a relationship"):
            count(Shelf.items.and_(Item.size > 1))
        with pytest.raises(Exception, match="at least 1"):
            top(Shelf.items, 0)
        await load([], Shelf.items)
        await load(Shelf(id=77), Shelf.items)  # no row, nothing to load
        session.expunge_all()
        with pytest.raises(Exception, match="belongs to no session"):
            await load(shelves, Shelf.items)


async def test_computed(engine: Any) -> None:
    async with Session(engine) as session:
        shelves = await shelves_of(session)
        items = (await session.scalars(select(Item).where(Item.id < 20).order_by(Item.id))).all()
        with watch_queries() as queries:
            assert await load(shelves, count(Shelf.items)) == [ITEMS] * SHELVES
            assert await load(shelves, count(Shelf.items, Item.size > 1)) == [2] * SHELVES
            assert await load(items, count(Item.twins)) == [3, 0, 0, 0]
            assert await load(items, exists(Item.twins)) == [True, False, False, False]
            assert await load(items, exists(Item.twin)) == [False, True, True, True]
            assert await load(shelves, exists(Shelf.items, Item.size > 5)) == [False] * SHELVES
            assert await load(shelves, total(Shelf.items, Item.size)) == [6] * SHELVES
            assert await load(items, total(Item.twins, Item.size)) == [6, 0, 0, 0]
            first = await load(shelves, top(Shelf.items, 2, order_by=Item.size.desc()))
            assert [[item.size for item in some] for some in first] == [[3, 2]] * SHELVES
            assert first[0][0] is await session.get(Item, 13)
            assert [len(some) for some in await load(items, top(Item.twins, 2, order_by=Item.id))] == [
                2,
                0,
                0,
                0,
            ]
            assert await load(reversed(shelves[:2]), count(Shelf.items)) == [ITEMS] * 2
        queries.assert_statements(11)
        assert await load([], count(Shelf.items)) == []
        assert await load(Shelf(id=99, name="new"), count(Shelf.items)) == [0]


async def test_computed_sees_what_is_not_flushed(engine: Any) -> None:
    async with Session(engine) as session:
        shelves = await shelves_of(session)
        session.add(Item(id=900, name="new", size=5, shelf_id=1))
        assert (await load(shelves, count(Shelf.items)))[0] == ITEMS + 1
        assert (await session.scalar(select(func.count()).select_from(Item))) == SHELVES * ITEMS + 1
        await session.rollback()


async def test_independent_loads_run_at_once(engine: Any) -> None:
    """Outside a transaction the statements of one `load` do not wait for each other."""
    async with Session(engine) as session:
        shelves = await shelves_of(session)
        options = [joinedload(Item.twin)]
        assert options
        with watch_queries() as queries:
            await load(shelves, Shelf.items, Shelf.by_name, Shelf.warned)
        queries.assert_statements(3)
        assert engine.pool.checkedin() == 3 or "sqlite" in str(engine.url)
