"""Hand-written code on the bare drivers: what everything else is measured against."""

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import aiosqlite
import asyncpg
from pydantic import TypeAdapter

from bench.models import TaskDTO
from bench.operations import Keys

_LIST = TypeAdapter(list[TaskDTO])
TASK = "id, created_at, updated_at, deleted_at, title, number, done, user_id, category_id"
_OF_TASK = ", ".join(f"t.{name}" for name in TASK.split(", "))
OTHER = "id, created_at, updated_at, deleted_at, name"
_TWO = ", ".join(f"{alias}.{name} AS {alias}_{name}" for alias in "uc" for name in OTHER.split(", "))
ONE = f"SELECT {TASK} FROM bench_task WHERE id = $1"
TWENTY = f"SELECT {TASK} FROM bench_task WHERE user_id = $1 ORDER BY number DESC LIMIT 20"
THOUSAND = f"SELECT {TASK} FROM bench_task ORDER BY number LIMIT 1000"
WITH_TWO = (
    f"SELECT {_OF_TASK}, {_TWO} FROM bench_task t JOIN bench_user u ON u.id = t.user_id "
    "JOIN bench_category c ON c.id = t.category_id ORDER BY t.number LIMIT 1000"
)
USERS = f"SELECT {OTHER} FROM bench_user ORDER BY name"
COUNT = "SELECT count(id) FROM bench_task WHERE user_id = $1"
GROUPS = "SELECT c.name, count(t.id) FROM bench_category c JOIN bench_task t ON t.category_id = c.id GROUP BY c.name"


class Asyncpg:
    """asyncpg with its default pool; its records are the rows."""

    name = "asyncpg"
    CHILDREN = f"SELECT {TASK} FROM bench_task WHERE user_id = ANY($1)"

    def __init__(self, pool: Any) -> None:
        self.pool = pool

    @classmethod
    async def open(cls, url: str) -> "Asyncpg":
        return cls(await asyncpg.create_pool(url))

    async def one(self, keys: Keys) -> Any:
        return await self.pool.fetchrow(ONE, keys.one)

    async def twenty(self, keys: Keys) -> Any:
        return await self.pool.fetch(TWENTY, keys.user)

    async def thousand(self, keys: Keys) -> Any:
        return await self.pool.fetch(THOUSAND)

    async def with_two(self, keys: Keys) -> Any:
        return [(row, row["u_name"], row["c_name"]) for row in await self.pool.fetch(WITH_TWO)]

    async def with_children(self, keys: Keys) -> Any:
        async with self.pool.acquire() as connection:
            users = await connection.fetch(USERS)
            tasks = await connection.fetch(self.CHILDREN, [user["id"] for user in users])
        children: dict[Any, list[Any]] = {user["id"]: [] for user in users}
        for task in tasks:
            children[task["user_id"]].append(task)
        return [(user["name"], children[user["id"]]) for user in users]

    async def page(self, keys: Keys) -> Any:
        async with self.pool.acquire() as connection:
            total = await connection.fetchval(COUNT, keys.user)
            return await connection.fetch(TWENTY, keys.user), total

    async def group_count(self, keys: Keys) -> Any:
        return [tuple(row) for row in await self.pool.fetch(GROUPS)]

    async def json(self, keys: Keys) -> Any:
        rows = await self.pool.fetch(TWENTY, keys.user)
        dtos = [TaskDTO(id=r["id"], title=r["title"], number=r["number"], done=r["done"]) for r in rows]
        return _LIST.dump_json(dtos)

    async def concurrent(self, keys: Keys) -> Any:
        return await asyncio.gather(*[self.pool.fetchrow(ONE, key) for key in keys.many])

    async def close(self) -> None:
        await self.pool.close()


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).replace(tzinfo=UTC)


def _other(row: Any) -> dict[str, Any]:
    key, created, updated, deleted, name = row
    return {
        "id": UUID(key),
        "created_at": _time(created),
        "updated_at": _time(updated),
        "deleted_at": _time(deleted),
        "name": name,
    }


def task_of(row: Any) -> dict[str, Any]:
    key, created, updated, deleted, title, number, done, user, category = row
    return {
        "id": UUID(key),
        "created_at": _time(created),
        "updated_at": _time(updated),
        "deleted_at": _time(deleted),
        "title": title,
        "number": number,
        "done": bool(done),
        "user_id": UUID(user),
        "category_id": UUID(category),
    }


class Aiosqlite:
    """One aiosqlite connection, as its documentation has it: a cursor, its rows, dictionaries of Python's types."""

    name = "aiosqlite"

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self.connection = connection

    @classmethod
    async def open(cls, path: str) -> "Aiosqlite":
        return cls(await aiosqlite.connect(path))

    async def _all(self, sql: str, *parameters: Any) -> Any:
        async with self.connection.execute(sql.replace("$1", "?"), parameters) as cursor:
            return await cursor.fetchall()

    async def _get(self, key: UUID) -> Any:
        async with self.connection.execute(ONE.replace("$1", "?"), (key.hex,)) as cursor:
            row = await cursor.fetchone()
        return None if row is None else task_of(row)

    async def one(self, keys: Keys) -> Any:
        return await self._get(keys.one)

    async def twenty(self, keys: Keys) -> Any:
        return [task_of(row) for row in await self._all(TWENTY, keys.user.hex)]

    async def thousand(self, keys: Keys) -> Any:
        return [task_of(row) for row in await self._all(THOUSAND)]

    async def with_two(self, keys: Keys) -> Any:
        found = [(task_of(row[:9]), _other(row[9:14]), _other(row[14:])) for row in await self._all(WITH_TWO)]
        return [(task, user["name"], category["name"]) for task, user, category in found]

    async def with_children(self, keys: Keys) -> Any:
        users = [_other(row) for row in await self._all(USERS)]
        places = ", ".join("?" * len(users))
        sql = f"SELECT {TASK} FROM bench_task WHERE user_id IN ({places})"
        children: dict[Any, list[Any]] = {user["id"]: [] for user in users}
        for row in await self._all(sql, *[user["id"].hex for user in users]):
            task = task_of(row)
            children[task["user_id"]].append(task)
        return [(user["name"], children[user["id"]]) for user in users]

    async def page(self, keys: Keys) -> Any:
        ((total,),) = await self._all(COUNT, keys.user.hex)
        return await self.twenty(keys), total

    async def group_count(self, keys: Keys) -> Any:
        return await self._all(GROUPS)

    async def json(self, keys: Keys) -> Any:
        return _LIST.dump_json(
            [TaskDTO(**{name: row[name] for name in TaskDTO.model_fields}) for row in await self.twenty(keys)]
        )

    async def concurrent(self, keys: Keys) -> Any:
        return await asyncio.gather(*[self._get(key) for key in keys.many])

    async def close(self) -> None:
        await self.connection.close()
