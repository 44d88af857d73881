"""2. The HTTP client goes away in the middle of a query: nothing stays in a transaction, and no connection is lost.

A server of its own (uvicorn), a socket that is dropped.  A plain route runs to its end, and a stream is cancelled.

Mutation seen to fail: `Lease.give_up` does nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Any
from uuid import uuid4

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from sqlalchemy import func, text
from sqlmodel import select

from catalysis import Database, DatabaseDep, DatabaseSettings
from catalysis.integrations.fastapi import lifespan
from tests.faults.checks import eventually, goes_on, seen_from_outside
from tests.models import Label, made
from tests.servers import free_port


def application(database: Database) -> FastAPI:
    app = FastAPI(lifespan=lifespan(database))

    @app.get("/plain")
    async def plain(db: DatabaseDep) -> int:
        db.add(Label(name=f"never committed {uuid4()}"))
        await db.flush()
        await db.exec(select(Label, func.pg_sleep(0.3)))
        await db.rollback()
        return 1

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            async with database.session() as session, session.begin():
                yield "begun"
                await session.exec(select(Label, func.pg_sleep(30)))
                yield "ended"

        return StreamingResponse(body())

    @app.get("/watched")
    async def watched(request: Request, db: DatabaseDep) -> int:
        """As those write it who want a query to end with its client."""
        query = asyncio.create_task(db.execute(text("SELECT pg_sleep(30)")))
        while not await request.is_disconnected():  # noqa: ASYNC110 - Starlette has no event for it
            await asyncio.sleep(0.01)
        query.cancel()
        await asyncio.gather(query, return_exceptions=True)
        await db.rollback()
        return 1

    return app


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[int]:
    port = free_port()
    config = uvicorn.Config(app, port=port, log_level="critical", loop="none", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    server.capture_signals = nullcontext  # pytest's are its own
    running = asyncio.create_task(server.serve())
    await eventually(lambda: server.started, "the server did not start")
    try:
        yield port
    finally:
        server.should_exit = True
        await running


async def ask_and_leave(port: int, path: str, is_running: Callable[[], Any]) -> None:
    """Send a request and drop the socket when it is under way."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
    await eventually(is_running, f"{path} never began")
    writer.transport.abort()


@pytest.mark.parametrize("path", ["/plain", "/stream", "/watched"])
async def test_clients_that_leave_leave_nothing(postgres_url: str, path: str):
    settings = DatabaseSettings(url=postgres_url, pool_size=3, max_overflow=0)
    async with made(settings) as database, seen_from_outside(postgres_url) as server:
        async with database.session() as session:
            session.add(Label(name="x"))
            await session.commit()

        async def is_running() -> bool:
            return bool(await server.backends(state="active", query="pg_sleep"))

        async with served(application(database)) as port:
            await asyncio.gather(*[ask_and_leave(port, path, is_running) for _ in range(3)])
            await server.none_in_transaction()
            await server.none_running("pg_sleep")
            await goes_on(database)
            await server.none_in_transaction()
