"""Other ORMs for asyncio over the same tables, each as its own documentation writes it.  PostgreSQL only."""

import asyncio
from typing import Any
from urllib.parse import urlsplit

from piccolo.columns import UUID, Boolean, ForeignKey, Integer, Text, Timestamptz
from piccolo.engine.postgres import PostgresEngine
from piccolo.query.functions.aggregate import Count as PiccoloCount
from piccolo.table import Table
from pydantic import TypeAdapter
from tortoise import Tortoise, fields
from tortoise.functions import Count
from tortoise.models import Model

from bench.models import TaskDTO
from bench.operations import Keys

_LIST = TypeAdapter(list[TaskDTO])


class _Times(Model):
    id = fields.UUIDField(primary_key=True)
    created_at = fields.DatetimeField()
    updated_at = fields.DatetimeField()
    deleted_at = fields.DatetimeField(null=True)

    class Meta:
        abstract = True


class User(_Times):
    name = fields.TextField()
    tasks: Any

    class Meta:
        table = "bench_user"


class Category(_Times):
    name = fields.TextField()
    tasks: Any

    class Meta:
        table = "bench_category"


class Task(_Times):
    title = fields.TextField()
    number = fields.IntField()
    done = fields.BooleanField()
    user: Any = fields.ForeignKeyField("models.User", related_name="tasks")
    category: Any = fields.ForeignKeyField("models.Category", related_name="tasks")

    class Meta:
        table = "bench_task"


def _dtos(rows: Any) -> bytes:
    return _LIST.dump_json([TaskDTO.model_validate(each) for each in rows])


class TortoiseORM:
    """Tortoise ORM on asyncpg."""

    name = "Tortoise"

    @classmethod
    async def open(cls, url: str) -> "TortoiseORM":
        parts = urlsplit(url)
        address = (
            f"asyncpg://{parts.username}@{parts.hostname}:{parts.port}{parts.path}?minsize=10&maxsize=10"
        )
        await Tortoise.init(db_url=address, modules={"models": [__name__]})
        return cls()

    async def one(self, keys: Keys) -> Any:
        return await Task.get(id=keys.one)

    def _twenty(self, keys: Keys) -> Any:
        return Task.filter(user_id=keys.user).order_by("-number").limit(20)

    async def twenty(self, keys: Keys) -> Any:
        return await self._twenty(keys)

    async def thousand(self, keys: Keys) -> Any:
        return await Task.all().order_by("number").limit(1_000)

    async def with_two(self, keys: Keys) -> Any:
        found = await Task.all().order_by("number").limit(1_000).select_related("user", "category")
        return [(each, each.user.name, each.category.name) for each in found]

    async def with_children(self, keys: Keys) -> Any:
        return [
            (user.name, list(user.tasks))
            for user in await User.all().order_by("name").prefetch_related("tasks")
        ]

    async def page(self, keys: Keys) -> Any:
        total = await Task.filter(user_id=keys.user).count()
        return await self._twenty(keys), total

    async def group_count(self, keys: Keys) -> Any:
        return await Category.annotate(count=Count("tasks")).group_by("name").values_list("name", "count")

    async def json(self, keys: Keys) -> Any:
        return _dtos(await self._twenty(keys))

    async def concurrent(self, keys: Keys) -> Any:
        return await asyncio.gather(*[Task.get(id=key) for key in keys.many])

    async def close(self) -> None:
        await Tortoise.close_connections()


class PiccoloUser(Table, tablename="bench_user"):
    id = UUID(primary_key=True)
    created_at = Timestamptz()
    updated_at = Timestamptz()
    deleted_at = Timestamptz(null=True)
    name = Text()


class PiccoloCategory(Table, tablename="bench_category"):
    id = UUID(primary_key=True)
    created_at = Timestamptz()
    updated_at = Timestamptz()
    deleted_at = Timestamptz(null=True)
    name = Text()


class PiccoloTask(Table, tablename="bench_task"):
    id = UUID(primary_key=True)
    created_at = Timestamptz()
    updated_at = Timestamptz()
    deleted_at = Timestamptz(null=True)
    title = Text()
    number = Integer()
    done = Boolean()
    user = ForeignKey(PiccoloUser, db_column_name="user_id")
    category = ForeignKey(PiccoloCategory, db_column_name="category_id")


class Piccolo:
    """Piccolo on asyncpg, objects and not dictionaries."""

    name = "Piccolo"

    @classmethod
    async def open(cls, url: str) -> "Piccolo":
        parts = urlsplit(url)
        config = {
            "host": parts.hostname,
            "port": parts.port,
            "user": parts.username,
            "database": parts.path[1:],
        }
        engine = PostgresEngine(config=config)  # which asks the server for its version, so it is made here
        for table in (PiccoloUser, PiccoloCategory, PiccoloTask):
            table._meta.db = engine
        await engine.start_connection_pool(min_size=10, max_size=10)
        return cls(engine)

    def __init__(self, engine: PostgresEngine) -> None:
        self.engine = engine

    async def one(self, keys: Keys) -> Any:
        return await PiccoloTask.objects().get(PiccoloTask.id == keys.one)

    def _twenty(self, keys: Keys) -> Any:
        query = PiccoloTask.objects().where(PiccoloTask.user == keys.user)
        return query.order_by(PiccoloTask.number, ascending=False).limit(20)

    async def twenty(self, keys: Keys) -> Any:
        return await self._twenty(keys)

    async def thousand(self, keys: Keys) -> Any:
        return await PiccoloTask.objects().order_by(PiccoloTask.number).limit(1_000)

    async def with_two(self, keys: Keys) -> Any:
        query = PiccoloTask.objects(PiccoloTask.user, PiccoloTask.category)
        found = await query.order_by(PiccoloTask.number).limit(1_000)
        return [(each, each.user.name, each.category.name) for each in found]

    async def with_children(self, keys: Keys) -> Any:
        users = await PiccoloUser.objects().order_by(PiccoloUser.name)
        children: dict[Any, list[Any]] = {user.id: [] for user in users}
        for task in await PiccoloTask.objects().where(PiccoloTask.user.is_in([user.id for user in users])):
            children[task.user].append(task)
        return [(user.name, children[user.id]) for user in users]

    async def page(self, keys: Keys) -> Any:
        total = await PiccoloTask.count().where(PiccoloTask.user == keys.user)
        return await self._twenty(keys), total

    async def group_count(self, keys: Keys) -> Any:
        name = PiccoloTask.category.name
        rows = await PiccoloTask.select(name.as_alias("name"), PiccoloCount()).group_by(name)
        return [(row["name"], row["count"]) for row in rows]

    async def json(self, keys: Keys) -> Any:
        return _dtos(await self._twenty(keys))

    async def concurrent(self, keys: Keys) -> Any:
        return await asyncio.gather(*[PiccoloTask.objects().get(PiccoloTask.id == key) for key in keys.many])

    async def close(self) -> None:
        await self.engine.close_connection_pool()
