"""8. A response that streams long after its query: the lease is back before the stream starts, also after an error.

Mutation seen to fail: `get_session` leaves the session to `fastapi_inner_astack`, the stack of the request (the
connection is lent while the body is sent).
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy import text
from sqlmodel import select

from catalysis import Database, DatabaseDep
from catalysis.integrations.fastapi import add_error_handlers
from tests.faults.checks import goes_on
from tests.models import Label


def application(database: Database) -> FastAPI:
    app = FastAPI()
    app.state.database = database
    add_error_handlers(app)

    async def body() -> AsyncIterator[str]:
        for _ in range(3):
            yield f"{database.pool_figures().lent} "
            await asyncio.sleep(0.02)

    @app.get("/read")
    async def read(db: DatabaseDep) -> StreamingResponse:
        await db.exec(select(Label))
        return StreamingResponse(body())

    @app.get("/in-transaction")
    async def in_transaction(db: DatabaseDep) -> StreamingResponse:
        await db.execute(text("SELECT 1"))
        assert database.pool_figures().lent == 1
        return StreamingResponse(body())

    @app.get("/failing")
    async def failing(db: DatabaseDep) -> StreamingResponse:
        await db.execute(text("SELECT 1"))
        raise LookupError

    @app.get("/fails-in-the-body")
    async def fails_in_the_body(db: DatabaseDep) -> StreamingResponse:
        await db.execute(text("SELECT 1"))

        async def broken() -> AsyncIterator[str]:
            yield f"{database.pool_figures().lent} "
            raise LookupError

        return StreamingResponse(broken())

    return app


async def asked(database: Database, path: str) -> Any:
    transport = httpx.ASGITransport(app=application(database), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get(path)


@pytest.mark.parametrize("path", ["/read", "/in-transaction"])
async def test_the_lease_is_back_before_a_stream_starts(database: Database, path: str):
    assert (await asked(database, path)).text == "0 0 0 "


@pytest.mark.parametrize("path", ["/failing", "/fails-in-the-body"])
async def test_an_error_gives_it_back_too(database: Database, path: str):
    reply = await asked(database, path)
    assert reply.text in ("0 ", "Internal Server Error")
    await goes_on(database)
