"""SQLAlchemy by itself: its ORM with plain declarative models, and its Core."""

import asyncio
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy import DateTime, ForeignKey, func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from bench.contenders.sessions import Sessions
from bench.models import TaskDTO
from bench.operations import Keys

_LIST = TypeAdapter(list[TaskDTO])


class Base(DeclarativeBase):
    type_annotation_map = {datetime: DateTime(timezone=True)}


class _Times:
    id: Mapped[UUID] = mapped_column(primary_key=True)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]


class User(_Times, Base):
    __tablename__ = "bench_user"
    name: Mapped[str]
    tasks: Mapped[list["Task"]] = relationship(back_populates="user")


class Category(_Times, Base):
    __tablename__ = "bench_category"
    name: Mapped[str]


class Task(_Times, Base):
    __tablename__ = "bench_task"
    title: Mapped[str]
    number: Mapped[int]
    done: Mapped[bool]
    user_id: Mapped[UUID] = mapped_column(ForeignKey("bench_user.id"))
    category_id: Mapped[UUID] = mapped_column(ForeignKey("bench_category.id"))
    user: Mapped[User] = relationship(back_populates="tasks")
    category: Mapped[Category] = relationship()


class ORM(Sessions):
    """SQLAlchemy's ORM: the same statements, by `execute` and `scalars`."""

    def __init__(self, engine: AsyncEngine) -> None:
        def make() -> AsyncSession:
            return AsyncSession(engine, expire_on_commit=False)

        super().__init__("SQLAlchemy ORM", make, (User, Category, Task))

    async def all(self, session: Any, query: Any) -> Any:
        return (await session.scalars(query)).all()

    async def rows(self, session: Any, query: Any) -> Any:
        return (await session.execute(query)).all()


class Core:
    """SQLAlchemy Core: rows and no instances."""

    name = "SQLAlchemy Core"
    user, category, task = User.__table__, Category.__table__, Task.__table__

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    async def _all(self, query: Any) -> Any:
        async with self.engine.connect() as connection:
            return (await connection.execute(query)).all()

    async def one(self, keys: Keys) -> Any:
        return (await self._all(select(self.task).where(self.task.c.id == keys.one)))[0]

    def _twenty(self, keys: Keys) -> Any:
        task = self.task
        return select(task).where(task.c.user_id == keys.user).order_by(task.c.number.desc()).limit(20)

    async def twenty(self, keys: Keys) -> Any:
        return await self._all(self._twenty(keys))

    async def thousand(self, keys: Keys) -> Any:
        return await self._all(select(self.task).order_by(self.task.c.number).limit(1_000))

    async def with_two(self, keys: Keys) -> Any:
        user, category, task = self.user, self.category, self.task
        query = select(
            task, user.c.name.label("user_name"), category.c.name.label("category_name"), user, category
        )
        query = query.join(user, user.c.id == task.c.user_id).join(
            category, category.c.id == task.c.category_id
        )
        found = await self._all(query.order_by(task.c.number).limit(1_000))
        return [(each, each.user_name, each.category_name) for each in found]

    async def with_children(self, keys: Keys) -> Any:
        async with self.engine.connect() as connection:
            users = (await connection.execute(select(self.user).order_by(self.user.c.name))).all()
            wanted = self.task.c.user_id.in_([user.id for user in users])
            children: dict[Any, list[Any]] = {user.id: [] for user in users}
            for task in await connection.execute(select(self.task).where(wanted)):
                children[task.user_id].append(task)
        return [(user.name, children[user.id]) for user in users]

    async def page(self, keys: Keys) -> Any:
        async with self.engine.connect() as connection:
            query = select(func.count(self.task.c.id)).where(self.task.c.user_id == keys.user)
            total = (await connection.execute(query)).scalar_one()
            return (await connection.execute(self._twenty(keys))).all(), total

    async def group_count(self, keys: Keys) -> Any:
        category, task = self.category, self.task
        query = select(category.c.name, func.count(task.c.id)).join(task, task.c.category_id == category.c.id)
        return await self._all(query.group_by(category.c.name))

    async def json(self, keys: Keys) -> Any:
        return _LIST.dump_json([TaskDTO.model_validate(each) for each in await self.twenty(keys)])

    async def concurrent(self, keys: Keys) -> Any:
        async def get(key: Any) -> Any:
            return (await self._all(select(self.task).where(self.task.c.id == key)))[0]

        return await asyncio.gather(*[get(key) for key in keys.many])

    async def close(self) -> None:
        """The engine is closed by who made it."""
