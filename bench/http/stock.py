"""The application on SQLModel, as its documentation has it; Catalysis is not even imported in its process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, FastAPI, HTTPException, Response
from sqlalchemy import DateTime
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import joinedload
from sqlmodel import Field, Relationship, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from bench.http.answers import POOL, TaskAnswer, TaskWithTwoAnswer, Twenties, rendered


def _now() -> datetime:
    return datetime.now(UTC)


class Row(SQLModel):
    id: UUID = Field(primary_key=True)
    created_at: datetime = Field(sa_type=DateTime(timezone=True))  # pyright: ignore[reportArgumentType]
    updated_at: datetime = Field(
        sa_type=DateTime(timezone=True),  # pyright: ignore[reportArgumentType]
        sa_column_kwargs={"onupdate": _now},
    )
    deleted_at: datetime | None = Field(sa_type=DateTime(timezone=True))  # pyright: ignore[reportArgumentType]


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
    twenties: Twenties

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with make_session() as session:
            yield session

    SessionDep = Annotated[AsyncSession, Depends(get_session)]  # noqa: N806 - a type

    @asynccontextmanager
    async def live(app: FastAPI) -> AsyncIterator[None]:
        nonlocal twenties
        async with make_session() as session:
            found = await session.exec(select(Task.id).order_by(col(Task.number)))
            twenties = Twenties(list(found.all()))
        yield
        await engine.dispose()

    app = FastAPI(lifespan=live)

    @app.get("/task/{task}", response_model=TaskAnswer)
    async def one(task: UUID, session: SessionDep) -> Any:
        found = await session.get(Task, task)
        if found is None:
            raise HTTPException(404)
        return found

    @app.get("/raw/{task}")
    async def raw(task: UUID, session: SessionDep) -> Response:
        found = await session.get(Task, task)
        if found is None:
            raise HTTPException(404)
        body = rendered(found.id, found.title, found.number, found.done)
        return Response(body, media_type="application/json")

    @app.get("/twenty", response_model=list[TaskAnswer])
    async def twenty(session: SessionDep) -> Any:
        _, keys = twenties.next()
        return [await session.get(Task, key) for key in keys]

    @app.get("/updates", response_model=list[TaskAnswer])
    async def updates(session: SessionDep) -> Any:
        turn, keys = twenties.next()
        found = [await session.get_one(Task, key) for key in keys]
        for task in found:
            task.title = f"turn {turn}"
        await session.commit()
        return found

    @app.get("/tasks/{user}", response_model=list[TaskAnswer])
    async def tasks(user: UUID, session: SessionDep) -> Any:
        query = select(Task).where(Task.user_id == user).order_by(col(Task.number).desc()).limit(20)
        return (await session.exec(query)).all()

    @app.get("/board/{user}", response_model=list[TaskWithTwoAnswer])
    async def board(user: UUID, session: SessionDep) -> Any:
        query = select(Task).where(Task.user_id == user).order_by(col(Task.number).desc()).limit(20)
        query = query.options(joinedload(Task.user), joinedload(Task.category))  # pyright: ignore[reportArgumentType]
        return (await session.exec(query)).all()

    return app
