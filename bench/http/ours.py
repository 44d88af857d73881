"""The application on Catalysis, as its README has it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from fastapi import FastAPI, HTTPException, Response
from sqlalchemy.orm import joinedload
from sqlmodel import col, select

from bench.http.answers import POOL, TaskAnswer, TaskWithTwoAnswer, Twenties, rendered
from bench.models import Task
from catalysis import Database, DatabaseDep, DatabaseSettings
from catalysis.integrations.fastapi import add_error_handlers, lifespan


def application(url: str) -> FastAPI:
    """The routes, over a database of their own."""
    database = Database(DatabaseSettings(url=url, pool_size=POOL, max_overflow=0))
    twenties: Twenties

    @asynccontextmanager
    async def live(app: FastAPI) -> AsyncIterator[dict[str, Database]]:
        nonlocal twenties
        async with lifespan(database)(app) as state:
            async with database.session() as session:
                found = await session.exec(select(Task.id).order_by(col(Task.number)))
                twenties = Twenties(list(found.all()))
            yield state

    app = FastAPI(lifespan=live)
    add_error_handlers(app)

    @app.get("/task/{task}", response_model=TaskAnswer)
    async def one(task: UUID, session: DatabaseDep) -> Any:
        found = await session.get(Task, task)
        if found is None:
            raise HTTPException(404)
        return found

    @app.get("/raw/{task}")
    async def raw(task: UUID, session: DatabaseDep) -> Response:
        found = await session.get(Task, task)
        if found is None:
            raise HTTPException(404)
        body = rendered(found.id, found.title, found.number, found.done)
        return Response(body, media_type="application/json")

    @app.get("/twenty", response_model=list[TaskAnswer])
    async def twenty(session: DatabaseDep) -> Any:
        _, keys = twenties.next()
        return [await session.get(Task, key) for key in keys]

    @app.get("/updates", response_model=list[TaskAnswer])
    async def updates(session: DatabaseDep) -> Any:
        turn, keys = twenties.next()
        found = [await session.get_one(Task, key) for key in keys]
        for task in found:
            task.title = f"turn {turn}"
        await session.commit()
        return found

    @app.get("/tasks/{user}", response_model=list[TaskAnswer])
    async def tasks(user: UUID, session: DatabaseDep) -> Any:
        query = select(Task).where(Task.user_id == user).order_by(col(Task.number).desc()).limit(20)
        return (await session.exec(query)).all()

    @app.get("/board/{user}", response_model=list[TaskWithTwoAnswer])
    async def board(user: UUID, session: DatabaseDep) -> Any:
        query = select(Task).where(Task.user_id == user).order_by(col(Task.number).desc()).limit(20)
        query = query.options(joinedload(Task.user), joinedload(Task.category))  # pyright: ignore[reportArgumentType]
        return (await session.exec(query)).all()

    return app
