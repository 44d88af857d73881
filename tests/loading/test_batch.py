"""One touch loads for all peers: who they are, in which chunks, and what is inherited."""

import asyncio
import gc
import re
import warnings
import weakref
from typing import Any

import pytest
from sqlalchemy import Column, ForeignKey, Integer, Table, event, insert, inspect, select
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import (
    aliased,
    declarative_base,
    defaultload,
    defer,
    joinedload,
    relationship,
    selectinload,
    with_loader_criteria,
)
from sqlalchemy.orm import lazyload as lazyload_option

from catalysis import (
    AttributeNotLoaded,
    LoadedWhenTouched,
    RelationshipNotLoaded,
    Session,
    count,
    include_deleted,
    load,
    managed,
    watch_queries,
)
from catalysis.loading import batch
from tests.loading.models import ITEMS, SHELVES, Item, Shelf, shelves_of
from tests.models import Job, Person, Team, made


async def test_each_kind_of_relationship_costs_one_statement(engine: Any) -> None:
    async def work() -> None:
        async with Session(engine) as session:
            shelves = await shelves_of(session)
            assert [[item.size for item in shelf.items] for shelf in shelves] == [[3, 2, 1, 0]] * SHELVES
            assert [sorted(shelf.by_name) for shelf in shelves] == [[f"item {i}" for i in range(4)]] * SHELVES
            assert all(
                item.shelf is shelf for shelf in shelves for item in shelf.items
            )  # in the identity map
            twins = [item.twin for shelf in shelves for item in shelf.items]
            assert sum(twin is None for twin in twins) == SHELVES
            assert [len(item.twins) for item in shelves[0].items] == [0, 0, 0, 3]
            assert [item.note for item in shelves[1].items] == [f"note 2.{i}" for i in (3, 2, 1, 0)]

    with watch_queries() as queries:
        await managed(work())
    queries.assert_statements(5)  # shelves, items, by_name, twins, notes; twin and shelf were there
    assert all(query.native for query in queries)


async def test_chunks_around_the_touched_one(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "CHUNK", 3)

    async def work() -> None:
        async with Session(engine) as session:
            shelves = await shelves_of(session)
            _ = shelves[4].items
            assert [n for n, shelf in enumerate(shelves) if "items" in shelf.__dict__] == [4, 5, 6]
            _ = shelves[0].items
            assert [n for n, shelf in enumerate(shelves) if "items" in shelf.__dict__] == [0, 1, 2, 4, 5, 6]
            session.expire_all()
            _ = shelves[6].name
            assert [n for n, shelf in enumerate(shelves) if "name" in shelf.__dict__] == [4, 5, 6]

    await managed(work())


async def test_peers_are_those_of_one_result(engine: Any) -> None:
    async def work() -> None:
        async with Session(engine) as session:
            some = (await session.scalars(select(Shelf).where(Shelf.id < 3).order_by(Shelf.id))).all()
            one = await session.get(Shelf, 5)
            _ = some[0].items
            assert ["items" in shelf.__dict__ for shelf in (*some, one)] == [True, True, False]
            everything = await shelves_of(session)  # meets the three again
            _ = everything[6].items
            assert all("items" in shelf.__dict__ for shelf in everything)

    with watch_queries() as queries:
        await managed(work())
    queries.assert_statements(5)


async def test_peers_are_weak(engine: Any) -> None:
    async def work() -> None:
        async with Session(engine) as session:
            shelves = await shelves_of(session)
            gone = weakref.ref(shelves[3])
            _ = shelves[0].name
            session.expire(shelves[0])
            _ = shelves[0].name  # makes the group
            del shelves[3]
            gc.collect()
            assert gone() is None
            _ = shelves[0].items
            assert all("items" in shelf.__dict__ for shelf in shelves)

    await managed(work())


async def test_a_session_that_has_batched_is_no_cycle(engine: Any) -> None:
    """It would keep its identity map, and the references to all peers, until the collector came by."""

    async def work() -> weakref.ref[Any]:
        async with Session(engine) as session:
            shelves = await shelves_of(session)
            _ = [item.shelf for item in shelves[0].items], shelves[0].by_name
            return weakref.ref(session.sync_session)

    await managed(work())
    gc.disable()
    try:
        assert (await managed(work()))() is None
    finally:
        gc.enable()


async def test_pending_changes_are_kept(engine: Any) -> None:
    async def work() -> None:
        async with Session(engine, autoflush=False) as session:
            items = (await session.scalars(select(Item).order_by(Item.id))).all()
            await session.scalars(select(Shelf).where(Shelf.id == 1))
            target = await session.get(Shelf, 7)
            items[0].shelf = target
            items[1].name = "renamed"
            items[2].shelf_id = 7
            _ = items[4].shelf
            assert items[0].shelf is target
            assert items[2].shelf is target
            assert items[1].name == "renamed"
            assert items[1] in session.dirty
            await session.rollback()

    await managed(work())


async def test_a_pending_append_is_kept(engine: Any) -> None:
    async def work() -> None:
        async with Session(engine, autoflush=False) as session:
            shelves = await shelves_of(session)
            extra = Item(
                id=500, name="extra", size=9, shelf=shelves[1]
            )  # a pending change of an unloaded list
            _ = shelves[0].items
            assert extra in shelves[1].items
            assert len(shelves[1].items) == ITEMS + 1
            await session.rollback()

    await managed(work())


async def test_pending_appends_are_flushed(backend_url: str) -> None:
    """Both of the touched instance and of its peers, in a table that nothing else writes."""
    async with made(backend_url) as database:
        async with database.session() as session:
            session.add_all([Person(name=f"p{n}", teams=[Team(name=f"t{n}")]) for n in range(3)])
            await session.commit()

        async def work() -> None:
            async with database.session(autoflush=False) as session:
                people = (await session.scalars(select(Person).order_by(Person.name))).all()
                extra = Team(name="extra")
                session.add(extra)
                extra.people.extend(people)  # a pending append to `teams`, which is not loaded
                assert [len(person.teams) for person in people] == [2, 2, 2]
                assert all(list(inspect(person).attrs.teams.history.added) == [extra] for person in people)
                await session.commit()

        await managed(work())
        async with database.session() as session:
            people = (await session.scalars(select(Person))).all()
            assert await load(people, count(Person.teams)) == [2, 2, 2]


async def test_rows_that_an_association_table_holds_twice(backend_url: str) -> None:
    """Lazy loading gives them once, and so does a batch."""
    base = declarative_base()
    pairs = Table("pair", base.metadata, Column("a", ForeignKey("one.id")), Column("b", ForeignKey("one.id")))

    class One(base):
        __tablename__ = "one"
        id = Column(Integer, primary_key=True)
        others = relationship(
            "One", secondary=pairs, primaryjoin="One.id == pair.c.a", secondaryjoin="One.id == pair.c.b"
        )

    engine = create_async_engine(backend_url)
    async with engine.begin() as connection:
        await connection.run_sync(base.metadata.create_all)
        await connection.execute(insert(One), [{"id": n} for n in range(1, 4)])
        await connection.execute(insert(pairs), [{"a": a, "b": 2} for a in (1, 1, 2, 3, 3)])
    async with Session(engine) as session:
        ones = (await session.scalars(select(One).order_by(One.id))).all()
        await managed(as_said(lambda: ones[0].others))
        assert [[other.id for other in one.others] for one in ones] == [[2], [2], [2]]
        assert await load(ones, count(One.others)) == [1, 1, 1]
    await engine.dispose()


async def as_said(touch: Any) -> None:
    touch()


async def test_options_of_the_result_are_inherited(engine: Any) -> None:
    async def work() -> None:
        async with Session(engine) as session:
            small = with_loader_criteria(Item, Item.size < 2)
            shelves = await shelves_of(session, small)
            assert [[item.size for item in shelf.items] for shelf in shelves] == [[1, 0]] * SHELVES
            session.expunge_all()
            nested = lazyload_option(Shelf.items).joinedload(Item.twin)
            shelves = await shelves_of(session, nested)
            assert all("twin" in item.__dict__ for shelf in shelves for item in shelf.items)
            session.expunge_all()
            shelves = await shelves_of(session, lazyload_option(Shelf.items.and_(Item.size > 2)))
            assert [[item.size for item in shelf.items] for shelf in shelves] == [[3]] * SHELVES

    await managed(work())


async def test_it_is_in_the_transaction(engine: Any) -> None:
    async def work() -> None:
        async with Session(engine) as session, session.begin():
            shelves = await shelves_of(session)
            session.add(Item(id=900, name="new", size=5, shelf_id=1))  # flushed by the touch
            assert [len(shelf.items) for shelf in shelves] == [ITEMS + 1] + [ITEMS] * (SHELVES - 1)
            await session.rollback()

    await managed(work())


async def test_a_touch_waits_for_the_flush_of_another_task(engine: Any) -> None:
    async with Session(engine) as session:
        shelves = await shelves_of(session)

        async def touched() -> int:
            return sum(len(shelf.items) for shelf in shelves)

        session.add_all(Item(id=1000 + n, name="new", size=1, shelf_id=1) for n in range(20))
        _, *found = await asyncio.gather(session.flush(), managed(touched()), managed(touched()))
        assert found == [SHELVES * ITEMS + 20] * 2
        await session.rollback()


async def test_expired_by_a_commit(engine: Any) -> None:
    async def work() -> None:
        async with Session(engine) as session:
            made_here = [Shelf(id=100 + n, name=f"made {n}") for n in range(5)]
            session.add_all(made_here)
            await session.commit()
            with watch_queries() as queries:
                assert [shelf.name for shelf in made_here] == [f"made {n}" for n in range(5)]
                assert [shelf.items for shelf in made_here] == [[]] * 5
            queries.assert_statements(2)

    await managed(work())


async def test_deferred_columns_in_awaitable_attrs(engine: Any) -> None:
    async with Session(engine) as session:
        items = (await session.scalars(select(Item).options(defer(Item.size)).order_by(Item.id))).all()
        with watch_queries() as queries:
            assert [await item.awaitable_attrs.size for item in items] == [0, 1, 2, 3] * SHELVES
            assert len({await item.awaitable_attrs.note for item in items}) == SHELVES * ITEMS
            assert len({await item.awaitable_attrs.shelf for item in items}) == SHELVES
        queries.assert_statements(3)


async def test_alone_if_told_so(engine: Any) -> None:
    async def work() -> None:
        async with Session(engine, batch_loading=False) as session:
            assert sum(len(shelf.items) for shelf in await shelves_of(session)) == SHELVES * ITEMS

    with watch_queries() as queries:
        await managed(work())
    queries.assert_statements(1 + SHELVES)
    (repeated,) = queries.repeated()
    assert repeated.count == SHELVES
    assert repeated.file == __file__


async def test_a_listener_of_the_session_sees_the_statement(engine: Any) -> None:
    seen: list[bool] = []

    async def work() -> None:
        async with Session(engine) as session:

            @event.listens_for(session.sync_session, "do_orm_execute")
            def hear(state: Any) -> None:
                seen.append(state.is_relationship_load)

            assert sum(len(shelf.items) for shelf in await shelves_of(session)) == SHELVES * ITEMS

    await managed(work())
    assert seen == [False, True]


async def test_deleting_one_loads_nothing_for_the_others(engine: Any) -> None:
    async with Session(engine) as session:
        shelves = await shelves_of(session)
        await session.delete(shelves[0])
        assert not any("items" in shelf.__dict__ for shelf in shelves[1:])
        await session.rollback()


# --- Soft delete ----------------------------------------------------------------------------------


async def test_marked_rows_stay_out_unless_asked_for(backend_url: str) -> None:
    async with made(backend_url) as database:
        async with database.session() as session:
            for n in range(3):
                session.add(
                    Person(name=f"p{n}", jobs=[Job(title="a"), Job(title="b")], teams=[Team(name=f"t{n}")])
                )
            await session.commit()
        async with database.session() as session:
            await session.delete((await session.scalars(select(Job).limit(1))).one())
            await session.delete((await session.scalars(select(Team).limit(1))).one())
            await session.commit()

        async def work(*options: Any) -> tuple[int, int]:
            async with database.session() as session:
                people = (await session.scalars(select(Person).options(*options))).all()
                return sum(len(each.jobs) for each in people), sum(len(each.teams) for each in people)

        with watch_queries() as queries:
            assert await managed(work()) == (5, 2)
            assert await managed(work(include_deleted())) == (6, 3)
        queries.assert_statements(6)
        async with database.session() as session:
            people = (await session.scalars(select(Person))).all()
            assert sum(await load(people, count(Person.jobs))) == 5
            assert sum(await load(people, count(Person.teams))) == 2


async def test_columns_of_marked_instances_are_loaded(backend_url: str) -> None:
    async with made(backend_url) as database, database.session(expire_on_commit=True) as session:
        people = [Person(name=f"p{n}") for n in range(3)]
        session.add_all(people)
        await session.commit()
        await session.delete(people[1])
        await session.commit()
        assert await session.run_sync(lambda _: [person.name for person in people]) == ["p0", "p1", "p2"]


async def test_options_of_an_alias(engine: Any) -> None:
    async def work() -> None:
        async with Session(engine) as session:
            alias = aliased(Shelf)
            query = select(alias).order_by(alias.id).options(defer(alias.name))
            shelves = (await session.scalars(query)).all()
            assert [shelf.name for shelf in shelves] == [f"shelf {n}" for n in range(1, SHELVES + 1)]
            assert [len(shelf.items) for shelf in shelves] == [ITEMS] * SHELVES

    with watch_queries() as queries:
        await managed(work())
    queries.assert_statements(3)


# --- Errors and strictness ------------------------------------------------------------------------


async def test_the_error_names_the_statement(engine: Any) -> None:
    async with Session(engine) as session:
        shelves = (await session.scalars(select(Shelf).order_by(Shelf.id))).all()
        line = test_the_error_names_the_statement.__code__.co_firstlineno + 2
        with pytest.raises(RelationshipNotLoaded) as raised:
            _ = shelves[0].items
        for part in ("Shelf.items", "selectinload(Shelf.items)", f"{__file__}:{line}", "FROM shelf ORDER BY"):
            assert part in str(raised.value)
        session.expire_all()
        with pytest.raises(AttributeNotLoaded, match=r"Shelf\.id|Shelf\.name"):
            _ = shelves[0].name
        lone = await session.run_sync(lambda sync: sync.scalars(select(Item).where(Item.id == 13)).one())
        with pytest.raises(RelationshipNotLoaded, match=r"Item was loaded by the statement at .*test_batch"):
            _ = lone.twin


@pytest.mark.parametrize("eager", [joinedload, selectinload])
async def test_the_option_that_the_error_names_works_when_pasted(engine: Any, eager: Any) -> None:
    statement = select(Shelf).options(eager(Shelf.items)).order_by(Shelf.id)
    async with Session(engine) as session:
        shelves = (await session.scalars(statement)).unique().all()
        with pytest.raises(RelationshipNotLoaded) as raised:
            _ = shelves[0].items[0].twins
    said = re.search(r"Add \.options\((.*)\) to the statement that loads Shelf", str(raised.value))
    assert said is not None
    assert "POSTCOMPILE" not in str(raised.value)
    mended = statement.options(eval(said[1], globals() | {"defaultload": defaultload}))
    async with Session(engine) as session:
        items = (await session.scalars(mended)).unique().all()[0].items
        assert [len(item.twins) for item in items] == [0, 0, 0, 3]


async def test_the_error_names_a_stream_and_an_alias(engine: Any) -> None:
    other = aliased(Shelf)
    async with Session(engine) as session:
        streamed = [each async for each in await session.stream_scalars(select(Shelf))]
        with pytest.raises(RelationshipNotLoaded, match=r"Shelf was loaded by the statement at .*test_batch"):
            _ = streamed[0].items
        session.expunge_all()
        found = (await session.scalars(select(other))).all()
        with pytest.raises(
            RelationshipNotLoaded, match="Add selectinload\\(\\) of items, from your alias of Shelf"
        ):
            _ = found[0].items


async def test_an_unknown_strictness_of_a_relationship(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(inspect(Shelf).relationships["items"].info, "strict_loading", "stop")

    async def work() -> None:
        async with Session(engine) as session:
            _ = (await shelves_of(session))[0].items

    with pytest.raises(
        ValueError, match=r"strict_loading in info of Shelf\.items='stop': say one of 'allow'"
    ):
        await managed(work())


async def test_strictness(engine: Any) -> None:
    async def work(strict: Any) -> None:
        async with Session(engine, strict_loading=strict) as session:
            shelves = await shelves_of(session)
            if strict == "allow":
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    assert shelves[0].items
            elif strict == "warn":
                with pytest.warns(LoadedWhenTouched, match=r"Shelf\.items was not loaded.*selectinload"):
                    assert shelves[0].items
            else:
                with pytest.raises(RelationshipNotLoaded, match="strict_loading"):
                    _ = shelves[0].items
                session.expire(shelves[0], ["name"])
                with pytest.raises(AttributeNotLoaded, match="strict_loading"):
                    _ = shelves[0].name
                await load(shelves, Shelf.items)  # said out loud
                assert shelves[0].items
            with pytest.warns(LoadedWhenTouched, match="warned") as caught:
                assert shelves[0].warned
            assert caught[0].filename == __file__
            with pytest.raises(RelationshipNotLoaded, match="refused"):
                _ = shelves[0].refused

    for strict in ("allow", "warn", "raise"):
        await managed(work(strict))
