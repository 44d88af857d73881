"""10. The server stops answering, and nobody closes anything: a typed error within a bound, and recovery.

Mutations seen to fail: `command_timeout` is not given to asyncpg (each waits for ever); `raise_translated` without its
branch for `TimeoutError` (a bare TimeoutError, and the dead connection goes back to the pool); `closes_in_time` does
nothing (closing waits for ever).
"""

import asyncio
import pickle
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlmodel import func, select

from catalysis import (
    CannotConnect,
    CatalysisError,
    CommitOutcomeUnknown,
    Database,
    DatabaseSettings,
    NoAnswer,
    Session,
)
from tests.faults.checks import eventually, goes_on, names, seen_from_outside, through_a_proxy
from tests.models import Label, made


async def _stream(session: Session) -> None:
    async for _ in await session.stream(select(Label)):
        pass


async def _in_transaction(session: Session) -> None:
    await session.exec(select(Label, func.now()))


async def _flush(session: Session) -> None:
    session.add(Label(name="lost"))
    await session.flush()


WORK: dict[str, Callable[[Session], Awaitable[Any]]] = {
    "a read": lambda session: session.exec(select(Label)),
    "a read in a transaction": _in_transaction,
    "by SQLAlchemy": lambda session: session.execute(text("SELECT 1")),
    "a stream": _stream,
    "a flush": _flush,
}


@pytest.mark.parametrize("name", WORK)
async def test_a_black_hole_is_a_typed_error_in_time(postgres_url: str, name: str):
    async with through_a_proxy(postgres_url, answer_timeout=0.4, connect_timeout=0.5) as (
        database,
        faults,
        _,
    ):
        await goes_on(database)
        faults.freeze()
        started = time.monotonic()
        with pytest.raises(NoAnswer, match="DATABASE_ANSWER_TIMEOUT") as caught:
            async with asyncio.timeout(15), database.session() as session:
                await WORK[name](session)
        assert 0.3 < time.monotonic() - started < 10
        assert isinstance(caught.value, CatalysisError)
        assert isinstance(caught.value, OperationalError)
        assert caught.value.connection_invalidated
        assert isinstance(pickle.loads(pickle.dumps(caught.value)), NoAnswer)
        faults.thaw()
        await goes_on(database)


async def test_a_function_is_not_replayed_into_a_black_hole(postgres_url: str):
    async with through_a_proxy(postgres_url, answer_timeout=0.4) as (database, faults, direct):
        runs = 0

        async def work(session: Session) -> None:
            nonlocal runs
            runs += 1
            session.add(Label(name="x"))
            await session.flush()
            faults.freeze()
            session.add(Label(name="y"))
            await session.flush()

        with pytest.raises(NoAnswer):
            async with asyncio.timeout(15):
                await database.transaction(work)
        faults.thaw()
        assert runs == 1
        assert await names(direct) == []
        await goes_on(database)


async def test_in_commit_the_outcome_is_unknown(postgres_url: str):
    async with through_a_proxy(postgres_url, answer_timeout=0.4) as (database, faults, _):
        async with database.session() as session:
            session.add(Label(name="x"))
            await session.flush()
            faults.freeze()
            with pytest.raises(CommitOutcomeUnknown):
                async with asyncio.timeout(15):
                    await session.commit()
            faults.thaw()
            await session.rollback()
        await goes_on(database)


async def test_connecting_ends_in_time(postgres_url: str):
    async with through_a_proxy(postgres_url, connect_timeout=0.4, answer_timeout=0.4) as (
        database,
        faults,
        _,
    ):
        faults.freeze()
        for work in WORK.values():
            with pytest.raises(CannotConnect, match="DATABASE_CONNECT_TIMEOUT"):
                async with asyncio.timeout(15), database.session() as session:
                    await work(session)
        assert not (await database.health(timeout=5)).ready
        faults.thaw()
        await goes_on(database)


async def test_closing_ends_in_time(postgres_url: str):
    """Asked to close, asyncpg waits for the server to do so too."""
    async with through_a_proxy(postgres_url) as (database, faults, _):
        await goes_on(database)
        faults.freeze()
        async with asyncio.timeout(15):
            await database.close()


async def test_the_servers_own_bound_comes_first_and_keeps_the_connection(postgres_url: str):
    """With `statement_timeout` the answer is an error of the server's, and the connection goes on."""
    settings = DatabaseSettings(url=postgres_url, statement_timeout=0.2, pool_size=1, max_overflow=0)
    assert settings.longest_answer == pytest.approx(5.2)
    async with made(settings) as database, seen_from_outside(postgres_url) as server:
        async with database.session() as session:
            before = (await session.execute(text("SELECT pg_backend_pid()"))).scalar_one()
            with pytest.raises(DBAPIError, match="statement timeout") as caught:
                await session.execute(text("SELECT pg_sleep(30)"))
            assert not isinstance(caught.value, NoAnswer)
            await session.rollback()
            assert (await session.execute(text("SELECT pg_backend_pid()"))).scalar_one() == before
        assert await server.backends() == [before]


async def test_a_statement_that_is_only_slow_is_stopped_at_the_server_too(postgres_url: str):
    settings = DatabaseSettings(url=postgres_url, answer_timeout=0.5, pool_size=1, max_overflow=0)
    async with made(settings) as database, seen_from_outside(postgres_url) as server:
        for statement in (text("SELECT pg_sleep(30)"), select(func.pg_sleep(30))):
            async with database.session() as session:
                with pytest.raises(NoAnswer):
                    await session.execute(statement)
            await server.none_running("pg_sleep")
        await goes_on(database)


async def test_tcp_finds_out_that_a_server_is_gone(postgres_url: str):
    """What a statement that may take an hour relies on; a route that drops packets cannot be made here."""
    for seconds, expected in ((60.0, (30, 10, 3, 60_000)), (4.0, (2, 1, 3, 4_000))):
        async with made(DatabaseSettings(url=postgres_url, keepalive=seconds)) as database:
            sock = await _socket_of(database)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            options = (
                socket.TCP_KEEPIDLE,
                socket.TCP_KEEPINTVL,
                socket.TCP_KEEPCNT,
                socket.TCP_USER_TIMEOUT,
            )
            assert tuple(sock.getsockopt(socket.IPPROTO_TCP, option) for option in options) == expected
    async with made(DatabaseSettings(url=postgres_url, keepalive="inf")) as database:
        assert not (await _socket_of(database)).getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


async def _socket_of(database: Database) -> Any:
    async with database.engine.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        return raw._transport.get_extra_info("socket")


# --- Transactions ---------------------------------------------------------------------------------


async def _set_at_the_server(url: str, name: str, **settings: Any) -> str:
    async with made(DatabaseSettings(url=url, **settings)) as database, database.session() as session:
        return (await session.execute(text(f"SHOW {name}"))).scalar_one()


async def test_transactions_are_bounded_at_the_server(postgres_url: str):
    idle = "idle_in_transaction_session_timeout"
    assert await _set_at_the_server(postgres_url, idle) == "10min"
    assert await _set_at_the_server(postgres_url, idle, idle_transaction_timeout=1.5) == "1500ms"
    assert await _set_at_the_server(postgres_url, idle, idle_transaction_timeout="inf") == "0"
    assert await _set_at_the_server(postgres_url, "transaction_timeout") == "0"
    assert await _set_at_the_server(postgres_url, "transaction_timeout", transaction_timeout=3) == "3s"


@pytest.mark.parametrize("which", ["idle_transaction_timeout", "transaction_timeout"])
async def test_a_transaction_that_takes_too_long_is_ended(postgres_url: str, which: str):
    settings = DatabaseSettings(url=postgres_url, pool_size=1, max_overflow=0, **{which: 0.2})
    async with made(settings) as database, seen_from_outside(postgres_url) as server:
        async with database.session() as session:
            session.add(Label(name="lost"))
            await session.flush()
            raw = await (await session.connection()).get_raw_connection()
            await server.none_in_transaction()
            await eventually(raw.driver_connection.is_closed, "the driver was not told")
            with pytest.raises(DBAPIError) as caught:
                await session.commit()
            assert not isinstance(caught.value, CommitOutcomeUnknown), (
                "the driver knew before it sent anything"
            )
            await session.rollback()
        assert await names(database) == []
        await goes_on(database)
