"""The routes of the two applications that have sessions: the very same code, on the models and the session given."""

from typing import Any
from uuid import UUID

from fastapi import FastAPI, HTTPException, Response
from sqlalchemy.orm import joinedload
from sqlmodel import select

from bench.http.answers import TaskAnswer, TaskWithTwoAnswer, Twenties, rendered


def add_routes(app: FastAPI, task_model: Any, a_session: Any, twenties: Twenties) -> None:
    """`a_session` is the `Depends(...)` that gives one."""
    by_key_routes(app, task_model, a_session, twenties)
    list_routes(app, task_model, a_session)


def by_key_routes(app: FastAPI, task_model: Any, a_session: Any, twenties: Twenties) -> None:
    """One row, and twenty of them one by one."""

    @app.get("/task/{task}", response_model=TaskAnswer)
    async def one(task: UUID, session: Any = a_session) -> Any:
        found = await session.get(task_model, task)
        if found is None:
            raise HTTPException(404)
        return found

    @app.get("/raw/{task}")
    async def raw(task: UUID, session: Any = a_session) -> Response:
        found = await session.get(task_model, task)
        if found is None:
            raise HTTPException(404)
        body = rendered(found.id, found.title, found.number, found.done)
        return Response(body, media_type="application/json")

    @app.get("/twenty", response_model=list[TaskAnswer])
    async def twenty(session: Any = a_session) -> Any:
        _, keys = twenties.next()
        return [await session.get(task_model, key) for key in keys]

    @app.get("/updates", response_model=list[TaskAnswer])
    async def updates(session: Any = a_session) -> Any:
        turn, keys = twenties.next()
        found = [await session.get_one(task_model, key) for key in keys]
        for task in found:
            task.title = f"turn {turn}"
        await session.commit()
        return found


def list_routes(app: FastAPI, task_model: Any, a_session: Any) -> None:
    """Twenty rows by one query, bare and with two relationships."""

    def of(user: UUID) -> Any:
        mine = select(task_model).where(task_model.user_id == user)
        return mine.order_by(task_model.number.desc()).limit(20)

    @app.get("/tasks/{user}", response_model=list[TaskAnswer])
    async def tasks(user: UUID, session: Any = a_session) -> Any:
        return (await session.exec(of(user))).all()

    @app.get("/board/{user}", response_model=list[TaskWithTwoAnswer])
    async def board(user: UUID, session: Any = a_session) -> Any:
        query = of(user).options(joinedload(task_model.user), joinedload(task_model.category))
        return (await session.exec(query)).all()
