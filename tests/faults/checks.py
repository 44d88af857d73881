"""What every fault must leave behind: nothing lent, nothing open at the server, and a database that goes on."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlmodel import select

from catalysis import Database, DatabaseSettings
from tests.models import Label, made
from tests.proxy import Faults, faulty

PATIENCE = 20
"""Seconds: far beyond what anything here takes; a bound against hanging, not a measure."""


async def eventually(holds: Callable[[], Any], what: str) -> None:
    """Wait until it holds; the server, a thread or another task needs a moment."""
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                found = holds()
                if asyncio.iscoroutine(found):
                    found = await found
                if found:
                    return
                await asyncio.sleep(0.005)
    except TimeoutError:
        pass
    raise AssertionError(what)


class Server:
    """The server as somebody else sees it."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._turn = asyncio.Lock()

    async def backends(self, *, state: str = "", query: str = "") -> list[int]:
        """The process numbers of the database's other backends, in a state like this and with such a query."""
        async with self._turn:
            found = await self._backends(state, query)
        return [row["pid"] for row in found]

    async def _backends(self, state: str, query: str) -> Any:
        return await self.connection.fetch(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND backend_type = 'client backend' AND state LIKE $1 AND query LIKE $2",
            state + "%",
            f"%{query}%",
        )

    async def none_in_transaction(self) -> None:
        """Wait until no backend is idle in a transaction."""
        await eventually(self._none_idle, "a backend stayed in a transaction")

    async def _none_idle(self) -> bool:
        return not await self.backends(state="idle in transaction")

    async def none_running(self, query: str) -> None:
        """Wait until no backend runs such a query."""

        async def none() -> bool:
            return not await self.backends(state="active", query=query)

        await eventually(none, f"{query} still runs")

    async def waits_at(self, event: str) -> bool:
        """Whether a backend waits at such a wait event: before, a cancel request may be lost on it."""
        asked = "SELECT 1 FROM pg_stat_activity WHERE wait_event = $1 AND datname = current_database()"
        async with self._turn:
            return bool(await self.connection.fetchval(asked, event))

    async def kill_all(self) -> int:
        """Terminate every other backend of the database; how many there were."""
        pids = await self.backends()
        for pid in pids:
            await self.connection.fetchval("SELECT pg_terminate_backend($1, 5000)", pid)
        return len(pids)


@asynccontextmanager
async def seen_from_outside(url: str) -> AsyncIterator[Server]:
    """A connection of its own to the same server."""
    at = make_url(url)
    connection = await asyncpg.connect(
        host=at.host, port=at.port, user=at.username, database=at.database, statement_cache_size=0
    )
    try:
        yield Server(connection)
    finally:
        await connection.close()


@asynccontextmanager
async def through_a_proxy(url: str, **settings: Any) -> AsyncIterator[tuple[Database, Faults, Database]]:
    """A database with a pool of one connection behind a proxy, the proxy's faults, and the same database without."""
    async with made(url) as direct, faulty(url) as (through, faults):
        given = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 5} | settings
        database = Database(DatabaseSettings(url=through, **given))
        try:
            yield database, faults, direct
        finally:
            faults.clear()
            await database.close()


async def names(database: Database) -> list[str]:
    """Of the labels that are there."""
    async with database.session() as session:
        return sorted((await session.exec(select(Label.name))).all())


async def goes_on(database: Database) -> None:
    """The pool has lost no place, and the next session reads and writes."""
    await eventually(lambda: database.pool_figures().lent == 0, "a connection was not given back")
    async with asyncio.timeout(PATIENCE), database.session() as session:
        await session.exec(select(Label.name).limit(1))
        await session.execute(text("CREATE TEMP TABLE next (id int)"))
        await session.rollback()
    assert database.pool_figures().lent == 0
