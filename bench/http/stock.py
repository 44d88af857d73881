"""The application on SQLModel, as its documentation has it; Catalysis is not even imported in its process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from fastapi import Depends, FastAPI
from sqlalchemy import DateTime
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlmodel import Field, Relationship, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from bench.http.answers import POOL, Twenties
from bench.http.sessions import add_routes


def _now() -> datetime:
    return datetime.now(UTC)


TIME: Any = DateTime(timezone=True)
"""SQLModel declares that it wants a class, and takes an instance."""


class Row(SQLModel):
    id: UUID = Field(primary_key=True)
    created_at: datetime = Field(sa_type=TIME)
    updated_at: datetime = Field(sa_type=TIME, sa_column_kwargs={"onupdate": _now})
    deleted_at: datetime | None = Field(sa_type=TIME)


class User(Row, table=True):
    __tablename__ = "bench_user"
    name: str


class Category(Row, table=True):
    __tablename__ = "bench_category"
    name: str


class Task(Row, table=True):
    __tablename__ = "bench_task"
    title: str
    number: int
    done: bool
    user_id: UUID = Field(foreign_key="bench_user.id")
    category_id: UUID = Field(foreign_key="bench_category.id")
    user: User = Relationship()
    category: Category = Relationship()


def application(url: str) -> FastAPI:
    """The routes, over an engine of their own."""
    engine = create_async_engine(url, pool_size=POOL, max_overflow=0)
    make_session = async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)
    twenties = Twenties()

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with make_session() as session:
            yield session

    @asynccontextmanager
    async def live(app: FastAPI) -> AsyncIterator[None]:
        async with make_session() as session:
            twenties.keys = list(await session.exec(select(Task.id).order_by(col(Task.number))))
        yield
        await engine.dispose()

    app = FastAPI(lifespan=live)
    add_routes(app, Task, Depends(get_session), twenties)
    return app
