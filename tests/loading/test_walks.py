"""Object graphs walked in random order in a managed scope are what stock SQLAlchemy's lazy loading returns."""

import asyncio
import random
import shutil
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, event, inspect, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session as SyncSession
from sqlalchemy.orm import load_only, selectinload

from catalysis import Session, managed, watch_queries
from catalysis.loading import batch
from tests.conftest import fresh_postgres_url
from tests.differential.models import MODELS, Animal, Author, Base, Book, Branch, Passport, Stamp, Tag, rows

FOLDER = TemporaryDirectory(prefix="catalysis-walks-")
ORDERED = {(Author, "books"), (Book, "tags"), (Branch, "children")}
QUERIES = [
    *(select(model).order_by(*inspect(model).primary_key) for model in MODELS),
    select(Book).options(load_only(Book.title)).order_by(Book.id.desc()),
    select(Author).where(Author.id > 2).order_by(Author.id),
    select(Book).options(selectinload(Book.author)).order_by(Book.id),
    select(Tag).join(Tag.books).order_by(Tag.id),
]
SELECTIN = len(MODELS) + 2
"""This one sends a second statement by itself."""
CHANGES = {"expire", "expire_all", "commit", "leave", "rename"}
"""After these an attribute may be loaded more than once."""
Step = tuple[Any, ...]
steps = st.one_of(
    st.tuples(st.just("query"), st.integers(0, len(QUERIES) - 1)),
    *(st.tuples(st.just("touch"), st.integers(0, 200), st.integers(0, 20)) for _ in range(6)),
    st.tuples(st.just("all"), st.integers(0, 20)),
    st.tuples(st.just("expire"), st.integers(0, 200)),
    st.tuples(st.just("expire_all")),
    st.tuples(st.just("leave"), st.integers(0, 200)),
    st.tuples(st.just("rename"), st.integers(0, 200)),
    st.tuples(st.just("commit")),
)


def shuffled_rows(seed: int) -> list[Any]:
    """The rows of the differential test, led to each other by chance."""
    chance, given_rows = random.Random(seed), rows()
    of = {kind: [each for each in given_rows if isinstance(each, kind)] for kind in MODELS}
    for book in of[Book]:
        book.author = chance.choice([*of[Author], None])
        book.tags = chance.sample(of[Tag], chance.randint(0, 3))
    for stamp in of[Stamp]:
        stamp.passport = chance.choice([*of[Passport], None])
    return given_rows


def seen(value: Any, ordered: bool) -> Any:
    if isinstance(value, list | set):
        found = [seen(each, ordered) for each in value]
        return found if ordered else sorted(found, key=repr)
    state = inspect(value, raiseerr=False)
    return (type(value).__name__, state.identity) if getattr(state, "is_instance", False) else repr(value)


class Walk:
    """One walk over a synchronous session; ours is handed out inside a managed scope."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.met: list[Any] = []
        self.trace: list[Any] = []
        self.needed: dict[Any, int] = {}
        self.sent: list[str] = []

    def take(self, program: list[Step]) -> None:
        for name, *numbers in program:
            try:
                getattr(self, name)(*numbers)
            except SQLAlchemyError as error:
                self.trace.append(type(error))

    def query(self, number: int) -> None:
        found = self.session.scalars(QUERIES[number]).unique().all()
        self.met += [each for each in found if not any(each is known for known in self.met)]
        self.trace.append([seen(each, True) for each in found])

    def pick(self, number: int) -> Any:
        return self.met[number % len(self.met)] if self.met else None

    def touch(self, number: int, attribute: int) -> None:
        if (instance := self.pick(number)) is not None:
            keys = sorted(inspect(type(instance)).attrs.keys())
            self.read(instance, keys[attribute % len(keys)])

    def all(self, attribute: int) -> None:
        for number in range(len(self.met)):
            self.touch(number, attribute)

    def read(self, instance: Any, key: str) -> None:
        state: Any = inspect(instance)
        if key in state.unloaded:
            group = (state.runid, state.mapper.base_mapper, key in state.mapper.relationships and key)
            known = self.session.identity_map.all_states()
            alike = sum((each.runid, each.mapper.base_mapper) == group[:2] for each in known)
            self.needed[group] = max(alike, self.needed.get(group, 0))
        value = getattr(instance, key)
        self.trace.append((seen(instance, True), key, seen(value, (type(instance), key) in ORDERED)))
        several = isinstance(value, list | set)  # whose order is chance, but for some
        for each in sorted(value, key=lambda each: repr(seen(each, True))) if several else [value]:
            if hasattr(each, "_sa_instance_state") and not any(each is known for known in self.met):
                self.met.append(each)

    def expire(self, number: int) -> None:
        if (instance := self.pick(number)) is not None:
            self.session.expire(instance)

    def expire_all(self) -> None:
        self.session.expire_all()

    def leave(self, number: int) -> None:
        # Not of a relationship with delete-orphan: whether that deletes depends on what was loaded, on stock too.
        if isinstance(instance := self.pick(number), Animal):
            instance.keeper = None

    def rename(self, number: int) -> None:
        if isinstance(instance := self.pick(number), Author):
            instance.name = "renamed"

    def commit(self) -> None:
        self.session.commit()


def on_stock(url: str, program: list[Step]) -> tuple[Any, int]:
    engine = create_engine(url)
    sent: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda _c, _cu, sql, *_: sent.append(sql))
    with SyncSession(engine) as session:
        walk = Walk(session)
        walk.take(program)
    engine.dispose()
    return walk.trace, sum(sql.startswith("SELECT") for sql in sent)


async def on_ours(url: str, program: list[Step]) -> tuple[Walk, int]:
    engine = create_async_engine(url)
    try:
        async with Session(engine) as session:
            walk = Walk(session.sync_session)

            async def go() -> None:
                walk.take(program)

            with watch_queries() as queries:
                await managed(go())
            await session.rollback()
    finally:
        await engine.dispose()
    walk.sent = [query.sql for query in queries]
    return walk, sum(query.sql.startswith("SELECT") for query in queries)


def database(seed: int, name: str) -> str:
    path = Path(FOLDER.name) / f"{seed}.db"
    if not path.exists():
        engine = create_engine(f"sqlite:///{path}")
        Base.metadata.create_all(engine)
        with SyncSession(engine) as session:
            session.add_all(shuffled_rows(seed))
            session.commit()
        engine.dispose()
    return shutil.copyfile(path, Path(FOLDER.name) / f"{name}.db").as_posix()


def compare(program: list[Step], seed: int, chunk: int) -> None:
    stock, sent_by_stock = on_stock(f"sqlite:///{database(seed, 'stock')}", program)
    walk, sent = asyncio.run(on_ours(f"sqlite+aiosqlite:///{database(seed, 'ours')}", program))
    assert walk.trace == stock
    queries = sum(1 + (step == ("query", SELECTIN)) for step in program if step[0] == "query")
    bound = queries + sum(ceil(alike / chunk) for alike in walk.needed.values())
    if not any(step[0] in CHANGES for step in program):
        assert sent <= bound
    if not any(step[0] in ("leave", "rename") for step in program):  # a flush looks at what is loaded
        assert sent <= sent_by_stock, walk.sent


@given(
    st.lists(steps, min_size=2, max_size=14).map(lambda given: [("query", 1), *given]),
    st.integers(0, 3),
    st.sampled_from([2, 3, 500]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
def test_a_walk_is_the_same(program: list[Step], seed: int, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "CHUNK", chunk)
        compare(program, seed, chunk)


@pytest.mark.long
@given(
    st.lists(steps, min_size=2, max_size=25).map(lambda given: [("query", 1), *given]),
    st.integers(0, 30),
    st.sampled_from([2, 3, 500]),
)
@settings(max_examples=3_000, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
def test_many_walks_are_the_same(program: list[Step], seed: int, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "CHUNK", chunk)
        compare(program, seed, chunk)


FOUND: list[list[Step]] = [
    [("query", 1), ("commit",), ("all", 0)],  # peers with expired keys were taken for peers with the same key
]


@pytest.mark.parametrize("number", range(len(FOUND)))
def test_walks_that_differed(number: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "CHUNK", 3)
        compare(FOUND[number], 0, 3)


async def test_a_walk_on_postgres() -> None:
    url = await fresh_postgres_url()
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.run_sync(lambda sync: _fill(sync, 1))
    await engine.dispose()
    program: list[Step] = [("query", number) for number in range(len(QUERIES))]
    program += [("all", attribute) for attribute in range(14)]
    program += [("expire_all",), *(("all", attribute) for attribute in range(14))]
    stock, sent_by_stock = on_stock(f"sqlite:///{database(1, 'stock')}", program)
    walk, sent = await on_ours(url, program)
    assert walk.trace == stock
    assert sent < sent_by_stock


def _fill(connection: Any, seed: int) -> None:
    with SyncSession(connection) as session:
        session.add_all(shuffled_rows(seed))
        session.commit()
