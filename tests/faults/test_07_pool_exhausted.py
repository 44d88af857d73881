"""7. The pool is empty: a typed error within the timeout, which says who holds the connections; then all is well.

Mutations seen to fail: `note_lent` does nothing (the statement is not named); `CommittingTransaction.taken` is never
set (the transaction is not named); the scope's coroutine is not kept (the managed line is not named).
"""

import asyncio
import inspect
import time
from typing import Any

import pytest
from sqlalchemy import func, text
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlmodel import select

from catalysis import CannotConnect, CatalysisError, Database, DatabaseSettings, PoolExhausted, managed
from tests.faults.checks import eventually, goes_on, seen_from_outside
from tests.models import Label, made

HERE = __file__


def line_of(function: Any, marker: str) -> int:
    lines, first = inspect.getsourcelines(function)
    return first + next(number for number, line in enumerate(lines) if marker in line)


async def hold(database: Database, until: asyncio.Event) -> None:
    async with database.session() as session:  # opened here
        await session.connection()
        await until.wait()  # now here


async def ask_slowly(database: Database) -> None:
    async with database.session() as session:
        await session.exec(select(func.count(Label.id)))


async def exhausted(database: Database, *, by_sqlalchemy: bool) -> PoolExhausted:
    started = time.monotonic()
    with pytest.raises(PoolExhausted) as caught:
        async with database.session() as session:
            await session.execute(text("SELECT 1") if by_sqlalchemy else select(Label))
    assert 0.2 < time.monotonic() - started < 10
    return caught.value


@pytest.fixture(params=[True, False], ids=["by SQLAlchemy", "native"])
def by_sqlalchemy(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.mark.parametrize("enter", [lambda work: work, managed], ids=["plain", "managed"])
async def test_the_error_says_who_holds_the_connections(backend_url: str, by_sqlalchemy: bool, enter: Any):
    settings = DatabaseSettings(url=backend_url, pool_size=2, max_overflow=0, pool_timeout=0.3)
    async with made(settings) as database:
        until = asyncio.Event()
        holding = [asyncio.create_task(enter(hold(database, until))) for _ in range(2)]
        await eventually(lambda: database.pool_figures().lent == 2, "they do not hold")
        error = await exhausted(database, by_sqlalchemy=by_sqlalchemy)
        assert isinstance(error, CatalysisError)
        assert isinstance(error, PoolTimeout), "SQLAlchemy's handlers match"
        opened, now = line_of(hold, "# opened here"), line_of(hold, "# now here")
        assert f"{HERE}:{opened}: a transaction 2 times, the longest for 0." in str(error)
        assert f"now at {HERE}:{now}" in str(error)
        assert "DATABASE_POOL_SIZE" in str(error)
        until.set()
        await asyncio.gather(*holding)
        await goes_on(database)


async def test_statements_and_bare_connections_hold_too(postgres_url: str, by_sqlalchemy: bool):
    settings = DatabaseSettings(url=postgres_url, pool_size=2, max_overflow=0, pool_timeout=0.3)
    async with made(settings) as database:
        async with database.engine.connect(), seen_from_outside(postgres_url) as server:
            await server.connection.execute("BEGIN; LOCK TABLE label IN ACCESS EXCLUSIVE MODE")
            asking = asyncio.create_task(ask_slowly(database))
            await eventually(lambda: database.pool_figures().lent == 2, "it does not ask")
            error = await exhausted(database, by_sqlalchemy=by_sqlalchemy)
            opened = line_of(ask_slowly, "database.session()")
            assert f"{HERE}:{opened}: a statement for 0." in str(error)
            assert "1 taken without a session" in str(error)
            await server.connection.execute("ROLLBACK")
            await asking
        await goes_on(database)


async def test_what_is_lent_can_be_asked_for_at_any_time(database: Database):
    until = asyncio.Event()
    assert database.leases() == ()
    holding = asyncio.create_task(hold(database, until))
    await eventually(lambda: database.pool_figures().lent == 1, "it does not hold")
    (lease,) = database.leases()
    assert lease.in_transaction
    assert lease.site
    assert (lease.site.file, lease.site.line) == (HERE, line_of(hold, "# opened here"))
    until.set()
    await holding
    assert database.leases() == ()


async def _takes_its_time(down: asyncio.Event) -> tuple[asyncio.Server, int]:
    """A server that takes a client, thinks, and lets nobody in."""

    async def accept(_: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        await down.wait()
        client.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


async def test_who_waits_behind_one_that_is_not_let_in_tries_too(by_sqlalchemy: bool):
    """It is the server that is away; nobody holds a connection that they would have to wait for.

    Mutation seen to fail: `hand_on` does nothing (they waited for the whole `pool_timeout`, and "all 0 are lent").
    """
    down = asyncio.Event()
    server, port = await _takes_its_time(down)
    url = f"postgresql+asyncpg://postgres@127.0.0.1:{port}/postgres"
    database = Database(DatabaseSettings(url=url, pool_size=1, max_overflow=0, pool_timeout=60))

    async def ask() -> None:
        async with database.session() as session:
            await session.execute(text("SELECT 1") if by_sqlalchemy else select(Label))

    async with server:
        asking = [asyncio.create_task(ask()) for _ in range(5)]
        await eventually(lambda: database.pool_figures().lent == 1, "nobody tries")
        down.set()
        async with asyncio.timeout(30):
            outcomes = await asyncio.gather(*asking, return_exceptions=True)
        await database.close()
    assert [type(each) for each in outcomes] == [CannotConnect] * 5
