"""SQLModel sessions: stock ones, and Catalysis's with the same code; and SQLAlchemy's own with plain models."""

import asyncio
from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy.orm import joinedload, selectinload
from sqlmodel import col, func, select

from bench.models import Category, Task, TaskDTO, User
from bench.operations import Keys

_LIST = TypeAdapter(list[TaskDTO])


class Sessions:
    """The operations as the documentation of SQLModel and SQLAlchemy writes them."""

    def __init__(
        self, name: str, make: Callable[[], Any], models: tuple[Any, Any, Any] = (User, Category, Task)
    ) -> None:
        self.name, self.make = name, make
        self.user, self.category, self.task = models

    async def all(self, session: Any, query: Any) -> Any:
        return (await session.exec(query)).all()

    async def rows(self, session: Any, query: Any) -> Any:
        return (await session.exec(query)).all()

    async def one(self, keys: Keys) -> Any:
        async with self.make() as session:
            return await session.get(self.task, keys.one)

    def _twenty(self, keys: Keys) -> Any:
        task = self.task
        return select(task).where(task.user_id == keys.user).order_by(col(task.number).desc()).limit(20)

    async def twenty(self, keys: Keys) -> Any:
        async with self.make() as session:
            return await self.all(session, self._twenty(keys))

    async def thousand(self, keys: Keys) -> Any:
        async with self.make() as session:
            return await self.all(session, select(self.task).order_by(self.task.number).limit(1_000))

    async def with_two(self, keys: Keys) -> Any:
        task = self.task
        query = select(task).order_by(task.number).limit(1_000)
        async with self.make() as session:
            found = await self.all(session, query.options(joinedload(task.user), joinedload(task.category)))
            return [(each, each.user.name, each.category.name) for each in found]

    async def with_children(self, keys: Keys) -> Any:
        async with self.make() as session:
            query = select(self.user).order_by(self.user.name).options(selectinload(self.user.tasks))
            return [(user.name, user.tasks) for user in await self.all(session, query)]

    async def page(self, keys: Keys) -> Any:
        task = self.task
        async with self.make() as session:
            (total,) = await self.all(session, select(func.count(task.id)).where(task.user_id == keys.user))
            return await self.all(session, self._twenty(keys)), total

    async def group_count(self, keys: Keys) -> Any:
        task, category = self.task, self.category
        query = select(category.name, func.count(task.id)).join(task, task.category_id == category.id)
        async with self.make() as session:
            return await self.rows(session, query.group_by(category.name))

    async def json(self, keys: Keys) -> Any:
        async with self.make() as session:
            found = await self.all(session, self._twenty(keys))
        return _LIST.dump_json([TaskDTO.model_validate(each) for each in found])

    async def concurrent(self, keys: Keys) -> Any:
        async def get(key: Any) -> Any:
            async with self.make() as session:
                return await session.get(self.task, key)

        return await asyncio.gather(*[get(key) for key in keys.many])

    async def close(self) -> None:
        """The engine is closed by who made it."""
