"""Running one program on two equal databases, and telling the traces apart."""

import asyncio
import os
import re
import shutil
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import asyncpg
from hypothesis import assume
from sqlalchemy import create_engine, text
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session as SyncSession

from catalysis import Session
from tests.differential.programs import Step

one_by_one = partial(Session, batch_loading=False)
"""A touch loads for its instance alone, as stock does; what batches load is compared in `tests/loading`."""
FOLDER = TemporaryDirectory(prefix="catalysis-differential-")


@dataclass(frozen=True)
class Subject:
    """What programs are about."""

    base: Any
    rows: Callable[[], list[Any]]
    """What every program starts from."""
    player: Callable[[Any], Any]
    """Given a session, something with `play(program)`, which returns a trace, and `kept`, the instances."""
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    """Entered for each run: what both sides have to find alike."""
    set_up: Callable[[Any], None] = field(default=lambda engine: None)
    """Told of each synchronous engine made."""

    @property
    def tables(self) -> list[Any]:
        return self.base.metadata.sorted_tables

    async def contents(self, engine: Any) -> Any:
        """Every table's rows, as the driver reads them: a type may refuse what has been written."""
        quote = engine.dialect.identifier_preparer.format_table
        async with engine.connect() as connection:
            return {
                table.name: sorted(
                    map(repr, (await connection.exec_driver_sql(f"SELECT * FROM {quote(table)}")).all())
                )
                for table in self.tables
            }

    async def trace(self, make: Any, url: str, program: list[Step], expire: bool) -> Any:
        engine = create_async_engine(url)
        self.set_up(engine.sync_engine)
        try:
            with self.around(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                session = make(engine, expire_on_commit=expire)
                player = self.player(session)
                traced = await player.play(program)
                player.kept.clear()
                await session.close()
            return traced, await self.contents(engine)
        finally:
            await engine.dispose()


class OnSqlite:
    """Runs programs on a copy of one file, each in a loop of its own."""

    only_ours = None

    def __init__(self, subject: Subject, name: str) -> None:
        self.subject = subject
        self.name = name

    @cached_property
    def template(self) -> Path:
        path = Path(FOLDER.name) / f"{self.name}.db"
        engine = create_engine(f"sqlite:///{path}")
        self.subject.base.metadata.create_all(engine)
        with SyncSession(engine) as session:
            session.add_all(self.subject.rows())
            session.commit()
        engine.dispose()
        return path

    def __call__(self, name: str, make: Any, program: list[Step], expire: bool) -> Any:
        path = Path(FOLDER.name) / f"{self.name}-{name}-{os.getpid()}.db"
        shutil.copyfile(self.template, path)
        return asyncio.run(self.subject.trace(make, f"sqlite+aiosqlite:///{path}", program, expire))


class OnPostgres:
    """Runs programs on one PostgreSQL database, which is filled anew from a copy before each."""

    only_ours = re.compile(r"StaleDataError.*expected to (update|delete) ([2-9]|\d\d+) row")
    """The one difference that is intended: SQLAlchemy does not count the rows of an executemany on asyncpg."""

    def __init__(self, subject: Subject, url: str) -> None:
        self.subject = subject
        self.url = url
        quote = asyncpg_dialect.dialect().identifier_preparer.quote
        self.tables = {quote(each.name): quote(f"copy_{each.name}") for each in subject.tables}
        columns = {
            quote(table.name): ", ".join(quote(each.name) for each in table.columns if not each.computed)
            for table in subject.tables
        }
        self.refill = f"""
            SET session_replication_role = replica; -- no triggers, and no order to keep
            TRUNCATE {", ".join(self.tables)} CASCADE;
            SELECT setval(format('%I', sequencename)::regclass, 100) FROM pg_sequences;
        """ + "".join(
            f"INSERT INTO {name} ({columns[name]}) SELECT {columns[name]} FROM {copy};"
            for name, copy in self.tables.items()
        )
        asyncio.run(self.prepare())

    async def prepare(self) -> None:
        engine = create_async_engine(self.url)
        async with engine.begin() as connection:
            await connection.run_sync(self.subject.base.metadata.create_all)
        async with AsyncSession(engine) as session:
            session.add_all(self.subject.rows())
            await session.commit()
            for name, copy in self.tables.items():
                await session.execute(text(f"CREATE TABLE {copy} AS SELECT * FROM {name}"))
            await session.commit()
        await engine.dispose()

    async def once(self, make: Any, program: list[Step], expire: bool) -> Any:
        connection = await asyncpg.connect(self.url.replace("+asyncpg", ""))
        try:
            await connection.execute(self.refill)
        finally:
            await connection.close()
        return await self.subject.trace(make, self.url, program, expire)

    def __call__(self, name: str, make: Any, program: list[Step], expire: bool) -> Any:
        return asyncio.run(self.once(make, program, expire))


def check(run: Any, program: list[Step], expire: bool) -> None:
    """Run on both sides and compare; what stock itself does in more than one way is left out."""
    stock = run("stock", AsyncSession, program, expire)
    ours = run("ours", one_by_one, program, expire)
    if stock != ours:
        # SQLAlchemy's unit of work walks sets, so that a program may end in more than one way on stock itself.
        assume(all(run("stock", AsyncSession, program, expire) == stock for _ in range(6)))
    compare(program, stock, ours, run.only_ours)


def compare(program: list[Step], one: Any, two: Any, only_ours: re.Pattern[str] | None = None) -> None:
    """Compare two traces, and what each left; as far as ours fails where that is intended."""
    for number, (stock, ours) in enumerate(zip(one[0], two[0], strict=True)):
        if only_ours is not None and len(ours) > 1 and only_ours.search(str(ours[1])):
            return
        if fails_at_another_row(stock, ours) or sends_no_savepoint(stock, ours):
            return
        difference = first_difference(stock, ours)
        if difference is not None and FIRST_ROWS.search(difference):
            return
        assert difference is None, f"step {number} of {program}: {difference}"
    assert one[1] == two[1], f"after {program}: {first_difference(one[1], two[1])}"


FIRST_ROWS = re.compile(r"/updated_at: stock 'datetime")
"""Ours has what each row got; of rows changed by one executemany, SQLAlchemy gives all the default of the first.

Source: `_emit_update_statements` hands `compiled_parameters[0]` to `_postfetch` for every record.
"""
SEVERAL = "several unflushed"
"""Ends the outcome of a step that failed with more than one instance to flush."""


def sends_no_savepoint(stock: Any, ours: Any) -> bool:
    """Whether a savepoint that nothing was sent in, and which ours then does not send, told stock of an aborted
    transaction.
    """
    return stock[0][0] == "nested" and "25P02" in str(stock[1]) and ours[1] is None


def fails_at_another_row(stock: Any, ours: Any) -> bool:
    """Whether both failed to flush several rows, each at one of them.

    SQLAlchemy binds all rows of one `VALUES` first, where ours are sent one after the other, so that of several rows
    that are refused another may come first.
    """
    return (
        len(ours) > 1
        and stock[1] != ours[1]
        and all(isinstance(each[1], tuple) and each[1] and each[1][-1] == SEVERAL for each in (stock, ours))
    )


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
