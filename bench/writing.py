"""Writing: what is timed by hand on the drivers, and through a session whose code is the guides' own."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import aiosqlite
import asyncpg
from sqlalchemy.orm import configure_mappers, registry
from sqlmodel import Field, SQLModel, col, select, update

from bench.contenders.drivers import TASK, task_of
from bench.models import TASKS
from bench.operations import Keys
from catalysis.models import uuid7

NEW = 1_000
TITLES = {
    "one": "insert one, commit, refresh",
    "thousand": "construct and insert 1,000",
    "refreshed": "the same, each refreshed",
    "change": "load 1,000, change each, commit",
    "set_based": "one set-based UPDATE of 1,000",
}
COLUMNS = TASK.split(", ")
CHANGE = "UPDATE bench_task SET done = $1, updated_at = $2 WHERE id = $3"
LOAD = f"SELECT {TASK} FROM bench_task WHERE number < {NEW} ORDER BY number"
SET_BASED = f"UPDATE bench_task SET done = NOT done, updated_at = $1 WHERE number < {NEW}"
Work = Callable[[], Awaitable[Any]]


def insert(numbered: bool) -> str:
    marks = [f"${n + 1}" if numbered else "?" for n in range(len(COLUMNS))]
    return f"INSERT INTO bench_task ({TASK}) VALUES ({', '.join(marks)})"


def by_asyncpg(pool: asyncpg.Pool, keys: Keys) -> dict[str, Work]:
    """Hand-written on asyncpg's default pool."""
    sql = insert(numbered=True)

    async def one() -> None:
        await pool.fetchrow(f"{sql} RETURNING *", *_rows(keys, 1)[0])

    async def thousand() -> None:
        async with pool.acquire() as connection:
            await connection.executemany(sql, _rows(keys, NEW))

    async def change() -> None:
        async with pool.acquire() as connection, connection.transaction():
            found = await connection.fetch(LOAD)
            now = _now()
            await connection.executemany(CHANGE, [(not row["done"], now, row["id"]) for row in found])

    async def set_based() -> None:
        await pool.execute(SET_BASED, _now())

    return {"one": one, "thousand": thousand, "refreshed": thousand, "change": change, "set_based": set_based}


def by_aiosqlite(connection: aiosqlite.Connection, keys: Keys) -> dict[str, Work]:
    """Hand-written on one aiosqlite connection, with the same types."""
    sql = insert(numbered=False)

    def rows(number: int) -> list[list[Any]]:
        return [[_bound(value) for value in row] for row in _rows(keys, number)]

    async def one() -> None:
        async with connection.execute(f"{sql} RETURNING *", rows(1)[0]) as cursor:
            task_of((await cursor.fetchall())[0])
        await connection.commit()

    async def thousand() -> None:
        await connection.executemany(sql, rows(NEW))
        await connection.commit()

    async def change() -> None:
        async with connection.execute(LOAD) as cursor:
            found = [task_of(row) for row in await cursor.fetchall()]
        now = _bound(_now())
        changed = [(not task["done"], now, task["id"].hex) for task in found]
        await connection.executemany(CHANGE.replace("$1", "?").replace("$2", "?").replace("$3", "?"), changed)
        await connection.commit()

    async def set_based() -> None:
        await connection.execute(SET_BASED.replace("$1", "?"), (_bound(_now()),))
        await connection.commit()

    return {"one": one, "thousand": thousand, "refreshed": thousand, "change": change, "set_based": set_based}


def by_session(make: Callable[[], Any], task: Any, keys: Keys) -> dict[str, Work]:
    """As the guides write it, with the session that `make` opens and the model given."""
    owner, category = keys.user, keys.category

    def made(number: int) -> Any:
        return task(title="new", number=TASKS + number, user_id=owner, category_id=category)

    async def one() -> None:
        async with make() as session:
            new = made(0)
            session.add(new)
            await session.commit()
            await session.refresh(new)

    async def thousand() -> None:
        async with make() as session:
            session.add_all([made(number) for number in range(NEW)])
            await session.commit()

    async def refreshed() -> None:
        async with make() as session:
            new = [made(number) for number in range(NEW)]
            session.add_all(new)
            await session.commit()
            for each in new:
                await session.refresh(each)

    async def change() -> None:
        async with make() as session:
            query = select(task).where(task.number < NEW).order_by(col(task.number))
            for each in (await session.exec(query)).all():
                each.done = not each.done
            await session.commit()

    async def set_based() -> None:
        async with make() as session:
            statement = update(task).where(task.number < NEW).values(done=~task.done)
            await session.exec(statement.execution_options(synchronize_session=False))
            await session.commit()

    return {
        "one": one,
        "thousand": thousand,
        "refreshed": refreshed,
        "change": change,
        "set_based": set_based,
    }


def _rows(keys: Keys, number: int) -> list[tuple[Any, ...]]:
    now = _now()
    return [
        (uuid7(), now, now, None, "new", TASKS + each, False, keys.user, keys.category)
        for each in range(number)
    ]


def _bound(value: Any) -> Any:
    if isinstance(value, UUID):
        return value.hex
    return value.strftime("%Y-%m-%d %H:%M:%S.%f") if isinstance(value, datetime) else value


def _now() -> datetime:
    return datetime.now(UTC)


class _Plain(SQLModel, registry=registry()):
    pass


class StockTask(_Plain, table=True):
    """The model without anything of Catalysis: it is constructed as SQLModel does."""

    __tablename__ = "bench_task"
    id: UUID = Field(default_factory=uuid7, primary_key=True)
    created_at: datetime = Field(default=None, sa_column_kwargs={"default": _now})
    updated_at: datetime = Field(default=None, sa_column_kwargs={"default": _now, "onupdate": _now})
    deleted_at: datetime | None = Field(default=None)
    title: str
    number: int = Field(index=True)
    done: bool = False
    user_id: UUID
    category_id: UUID


configure_mappers()
_constructor: Any = StockTask.__init__
type.__setattr__(StockTask, "__init__", _constructor._sa_original_init)
