"""The application on asyncpg, written by hand."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
from fastapi import FastAPI, HTTPException, Response

from bench.http.answers import POOL, TaskAnswer, TaskWithTwoAnswer, Twenties, rendered

TASK = "id, created_at, updated_at, deleted_at, title, number, done, user_id, category_id"
ONE = f"SELECT {TASK} FROM bench_task WHERE id = $1"
LIST = f"SELECT {TASK} FROM bench_task WHERE user_id = $1 ORDER BY number DESC LIMIT 20"
BOARD = (
    "SELECT t.id, t.title, t.number, t.done, t.user_id, t.category_id, u.name AS user_name, c.name AS category_name "
    "FROM bench_task t JOIN bench_user u ON u.id = t.user_id JOIN bench_category c ON c.id = t.category_id "
    "WHERE t.user_id = $1 ORDER BY t.number DESC LIMIT 20"
)
UPDATE = "UPDATE bench_task SET title = $2, updated_at = $3 WHERE id = $1"


def application(url: str) -> FastAPI:
    """The routes, over a pool of their own."""
    twenties = Twenties()

    @asynccontextmanager
    async def live(app: FastAPI) -> AsyncIterator[None]:
        async with asyncpg.create_pool(url.replace("+asyncpg", ""), min_size=POOL, max_size=POOL) as pool:
            app.state.pool = pool
            found = await pool.fetch("SELECT id FROM bench_task ORDER BY number")
            twenties.keys = [row["id"] for row in found]
            yield

    app = FastAPI(lifespan=live)
    by_key_routes(app, twenties)
    list_routes(app)
    return app


def by_key_routes(app: FastAPI, twenties: Twenties) -> None:
    """One row, and twenty of them one by one."""

    @app.get("/task/{task}", response_model=TaskAnswer)
    async def one(task: UUID) -> Any:
        row = await app.state.pool.fetchrow(ONE, task)
        if row is None:
            raise HTTPException(404)
        return dict(row)

    @app.get("/raw/{task}")
    async def raw(task: UUID) -> Response:
        row = await app.state.pool.fetchrow(ONE, task)
        if row is None:
            raise HTTPException(404)
        body = rendered(row["id"], row["title"], row["number"], row["done"])
        return Response(body, media_type="application/json")

    @app.get("/twenty", response_model=list[TaskAnswer])
    async def twenty() -> Any:
        _, keys = twenties.next()
        async with app.state.pool.acquire() as connection:
            return [dict(await connection.fetchrow(ONE, key)) for key in keys]

    @app.get("/updates", response_model=list[TaskAnswer])
    async def updates() -> Any:
        turn, keys = twenties.next()
        async with app.state.pool.acquire() as connection:
            found = [dict(await connection.fetchrow(ONE, key)) for key in keys]
            now = datetime.now(UTC)
            for row in found:
                row["title"] = f"turn {turn}"
            # One transaction, and one wait for all twenty: asyncpg pipelines them between its own BEGIN and COMMIT.
            await connection.executemany(UPDATE, [(row["id"], row["title"], now) for row in found])
        return found


def list_routes(app: FastAPI) -> None:
    """Twenty rows by one query, bare and with two relationships."""

    @app.get("/tasks/{user}", response_model=list[TaskAnswer])
    async def tasks(user: UUID) -> Any:
        return [dict(row) for row in await app.state.pool.fetch(LIST, user)]

    @app.get("/board/{user}", response_model=list[TaskWithTwoAnswer])
    async def board(user: UUID) -> Any:
        return [
            {
                **dict(row),
                "user": {"id": row["user_id"], "name": row["user_name"]},
                "category": {"id": row["category_id"], "name": row["category_name"]},
            }
            for row in await app.state.pool.fetch(BOARD, user)
        ]
