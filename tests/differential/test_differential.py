"""Whatever a program does on stock `AsyncSession` it does on `Session`: same results, states, errors and rows."""

import asyncio
import os
import shutil
import warnings
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session as SyncSession

from catalysis import Session
from tests.conftest import fresh_postgres_url
from tests.differential.models import Base, rows
from tests.differential.programs import Player, Step, programs

one_by_one = partial(Session, batch_loading=False)
"""A touch loads for its instance alone, as stock does; what batches load is compared in `tests/loading`."""
FOLDER = TemporaryDirectory(prefix="catalysis-differential-")
TEMPLATE = Path(FOLDER.name) / "template.db"


def template() -> Path:
    if not TEMPLATE.exists():
        engine = create_engine(f"sqlite:///{TEMPLATE}")
        Base.metadata.create_all(engine)
        with SyncSession(engine) as session:
            session.add_all(rows())
            session.commit()
        engine.dispose()
    return TEMPLATE


async def contents(engine: Any) -> Any:
    async with engine.connect() as connection:
        return {
            table.name: sorted(map(repr, (await connection.execute(select(table))).all()))
            for table in Base.metadata.sorted_tables
        }


async def trace(make: Any, url: str, program: list[Step], expire: bool) -> Any:
    engine = create_async_engine(url)
    try:
        session = make(engine, expire_on_commit=expire)
        player = Player(session)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = await player.play(program)
            player.kept.clear()
            await session.close()
        return traced, await contents(engine)
    finally:
        await engine.dispose()


def compare(program: list[Step], one: Any, two: Any) -> None:
    for number, (stock, ours) in enumerate(zip(one[0], two[0], strict=True)):
        difference = first_difference(stock, ours)
        assert difference is None, f"step {number} of {program}: {difference}"
    assert one[1] == two[1], f"after {program}: {first_difference(one[1], two[1])}"


def first_difference(one: Any, two: Any, where: str = "") -> str | None:
    """Where two traces part, and how: a whole trace is too long to read."""
    if one == two:
        return None
    if isinstance(one, dict) and isinstance(two, dict) and one.keys() == two.keys():
        pairs = [(key, one[key], two[key]) for key in one]
    elif isinstance(one, (list, tuple)) and isinstance(two, (list, tuple)) and len(one) == len(two):
        pairs = [(str(n), *pair) for n, pair in enumerate(zip(one, two, strict=True))]
    else:
        return f"at {where}: stock {one!r}, ours {two!r}"
    return next(found for key, x, y in pairs if (found := first_difference(x, y, f"{where}/{key}")))


def run_on_sqlite(name: str, make: Any, program: list[Step], expire: bool) -> Any:
    path = Path(FOLDER.name) / f"{name}-{os.getpid()}.db"
    shutil.copyfile(template(), path)
    return asyncio.run(trace(make, f"sqlite+aiosqlite:///{path}", program, expire))


class OnPostgres:
    """Runs programs on one PostgreSQL database, which is filled anew from a copy before each."""

    def __init__(self, url: str) -> None:
        self.url = url
        tables = [table.name for table in Base.metadata.sorted_tables]
        self.refill = f"TRUNCATE {', '.join(tables)} CASCADE;" + "".join(
            f"INSERT INTO {name} SELECT * FROM copy_{name};" for name in tables
        )
        asyncio.run(self.prepare(tables))

    async def prepare(self, tables: list[str]) -> None:
        engine = create_async_engine(self.url)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with AsyncSession(engine) as session:
            session.add_all(rows())
            await session.commit()
            for name in tables:
                await session.execute(text(f"CREATE TABLE copy_{name} AS SELECT * FROM {name}"))
            await session.commit()
        await engine.dispose()

    async def once(self, make: Any, program: list[Step], expire: bool) -> Any:
        connection = await asyncpg.connect(self.url.replace("+asyncpg", ""))
        try:
            await connection.execute(self.refill)
        finally:
            await connection.close()
        return await trace(make, self.url, program, expire)

    def __call__(self, name: str, make: Any, program: list[Step], expire: bool) -> Any:
        return asyncio.run(self.once(make, program, expire))


def check(run: Any, program: list[Step], expire: bool) -> None:
    stock = run("stock", AsyncSession, program, expire)
    ours = run("ours", one_by_one, program, expire)
    if stock != ours:
        # SQLAlchemy's unit of work walks sets, so that a program may end in more than one way on stock itself.
        assume(all(run("stock", AsyncSession, program, expire) == stock for _ in range(6)))
    compare(program, stock, ours)


FOUND: list[list[Step]] = [
    # A lazy load names its parameter, anonymously, and two loaders of one relationship name it differently.
    [
        ("stream", 36, 5, 1),
        ("delete", 6),
        ("nested", 4),
        ("merge", 3, 2),
        ("query", 56, 3, 4, 1),
        ("delete", 6),
    ],
    # A flush that loads takes the transaction's connection in the turn that it has already.
    [
        *[("query", 13, 7, 6, 5), ("query", 76, 6, 4, 6), ("expire", 5, 7), ("expire_all",), ("forget", 0)],
        *[
            ("set", 2, 0, 7),
            ("relate", 1, 2, 3),
            ("query", 7, 6, 7, 4),
            ("set", 0, 4, 9),
            ("stream", 33, 0, 5),
        ],
    ],
    # A composite is not loaded to find out whether its columns changed.
    [
        ("get", 5, 3, 1),
        ("get", 2, 0, 4),
        ("expire", 5, 7),
        ("set", 0, 0, 5),
        ("set", 5, 0, 7),
        ("merge", 4, 2),
    ],
    # What does not compile has begun a transaction all the same.
    [("get", 5, 2, 5), ("expire_all",), ("rollback",), ("refresh", 6, 9), ("get", 5, 8, 2)],
]
"""Programs on which the two once differed."""


@pytest.mark.parametrize("number", range(len(FOUND)))
@pytest.mark.parametrize("expire", [True, False])
def test_differences_that_were_found(number: int, expire: bool):
    stock = run_on_sqlite("stock", AsyncSession, FOUND[number], expire)
    compare(FOUND[number], stock, run_on_sqlite("ours", one_by_one, FOUND[number], expire))


quick = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
long = settings(
    quick,
    max_examples=int(os.environ.get("CATALYSIS_PROGRAMS", "5000")),
    phases=[
        Phase.explicit,
        Phase.reuse,
        Phase.generate,
    ],  # shrinking would take hours; the trace is short enough
)


@quick
@given(programs, st.booleans())
def test_programs_on_sqlite(program: list[Step], expire: bool):
    check(run_on_sqlite, program, expire)


@pytest.mark.long
@long
@given(programs, st.booleans())
def test_many_programs_on_sqlite(program: list[Step], expire: bool):
    check(run_on_sqlite, program, expire)


@pytest.mark.long
def test_many_programs_on_postgres():
    run = OnPostgres(asyncio.run(fresh_postgres_url()))

    @long
    @given(programs, st.booleans())
    def programs_on_postgres(program: list[Step], expire: bool):
        check(run, program, expire)

    programs_on_postgres()


def test_a_difference_is_seen():
    """The oracle is no oracle if it cannot tell: a session that forgets an attribute is found out."""

    class Forgetful(Session):
        async def execute(self, *args: Any, **options: Any) -> Any:
            result = await super().execute(*args, **options)
            for instance in self.sync_session.identity_map.values():
                self.expire(instance, ["name"])
            return result

    program = [("query", 0, 0, 0, 0)]
    stock = run_on_sqlite("stock", AsyncSession, program, False)
    assert run_on_sqlite("ours", one_by_one, program, False) == stock
    assert run_on_sqlite("ours", Forgetful, program, False) != stock
