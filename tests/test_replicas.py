"""Databases with replicas: what they cost, who looks after them, what is told of them.  Faults: `tests/faults`."""

import ast
import asyncio
import gc
import inspect
import re
import weakref
from collections.abc import AsyncIterator, Iterator
from contextvars import Context
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Request, Response
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import registry
from sqlalchemy.pool import NullPool
from sqlmodel import select
from sybil.document import Document
from sybil.parsers.markdown import CodeBlockParser

from catalysis import (
    Database,
    DatabaseSettings,
    ModelWithIdAndTimestamps,
    PoolExhausted,
    Session,
    SettingsError,
)
from catalysis.inspector import add_inspector
from catalysis.integrations.fastapi import add_error_handlers, health_router, lifespan
from catalysis.integrations.opentelemetry import instrument as instrument_spans
from catalysis.integrations.prometheus import instrument
from catalysis.integrations.slow_queries import log_slow_queries
from tests.faults.checks import eventually
from tests.models import Label, made
from tests.proxy import counted
from tests.replication import Heard, Servers, in_rotation, looked_again, reading_from_replicas, sql


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    servers = Servers.start()
    yield servers
    servers.stop()


def watching() -> list[asyncio.Task[None]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == "catalysis replicas"]


# --- What it costs --------------------------------------------------------------------------------


async def test_without_replicas_there_is_nothing_of_it(postgres_url: str):
    async with made(postgres_url) as database, database.session() as session:
        assert session.sync_session.route is None
        assert session.on_primary() is session
        assert watching() == []
        assert (database.replica_engines, database.replica_health()) == ((), ())
        assert (await database.health()).replicas == ()
        assert database.addresses == {database.address}


async def test_a_read_is_one_round_trip_to_the_replica_and_none_to_the_primary(servers: Servers):
    async with (
        counted(servers.primary.url()) as (primary, at_primary),
        counted(servers.replicas[0].url()) as (replica, at_replica),
        reading_from_replicas(servers, url=primary, replicas=(replica,)) as database,
        database.session() as session,
    ):
        (replicas,) = database._replicas.values()
        replicas._task.cancel()  # what it asks is not the reads'
        await asyncio.wait([replicas._task])
        await session.exec(select(Label))  # which prepares it
        for counter in (at_primary, at_replica):
            counter.reset()
        for _ in range(5):
            await session.exec(select(Label))
        assert (at_primary.count, at_replica.count) == (0, 5)


async def test_sessions_of_another_engine_are_not_routed(servers: Servers):
    """A session that the database made, and that was told to go elsewhere by `binds`; and one that it did not make."""
    heard = Heard()
    async with reading_from_replicas(servers) as database:
        other = create_async_engine(servers.primary.url())
        async with database.session(binds={Label: other}) as session:
            await session.exec(select(Label))
        async with Session(database.engine) as session:
            await session.exec(select(Label))
        await other.dispose()
    heard.end()
    assert heard.take() == [servers.primary.port] * 2


async def test_what_runs_in_transactions_runs_at_the_primary(servers: Servers):
    heard = Heard()
    async with reading_from_replicas(servers) as database:
        heard.take()
        async with database.session() as session:
            async with session.begin():
                await session.exec(select(Label))
            async for _ in await session.stream(select(Label)):
                pass
            await session.exec(select(Label).with_for_update())
        assert set(heard.take()) == {servers.primary.port}

        async def read() -> None:
            async with database.session() as session:
                await session.exec(select(Label))

        await asyncio.create_task(read(), context=Context())  # another request's
        assert heard.take() == [servers.replicas[0].port]
    heard.end()


async def test_leases_and_an_empty_pool_are_the_replicas_too(servers: Servers):
    given = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.2}
    async with reading_from_replicas(servers, **given) as database:
        (replica,) = database.replica_engines
        async with database.session() as session:
            await session.exec(select(Label))
            assert database.pool_figures().lent == 0
            (place,) = database.addresses - {database.address}
            assert (database.pools()[place].open, database.pools()[place].lent) == (1, 0)
            async with replica.connect():
                assert database.pools()[place].lent == 1
                assert database.pool_figures().lent == 0
                with pytest.raises(PoolExhausted, match=r"engine\.connect"):
                    await session.exec(select(Label))
                await looked_again(database)
                assert database.replica_health()[0].in_rotation, "it is busy, and well"
        assert database.leases() == ()


# --- Who looks after them -------------------------------------------------------------------------


async def test_closing_ends_the_looking_and_all_connections(servers: Servers):
    async def connections(server) -> int:
        return await sql(
            server,
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
        )

    async with reading_from_replicas(servers) as database:
        async with database.session() as session:
            await session.exec(select(Label))
        assert len(watching()) == 1
        database.session()
        assert len(watching()) == 1
    assert watching() == []
    for server in (servers.primary, *servers.replicas):

        async def none(server=server) -> bool:
            return await connections(server) == 0

        await eventually(none, "a connection is left")
    async with database.session() as session:  # it may be used again
        await session.exec(select(Label))
    await in_rotation(database, 1)
    await database.close()


async def test_a_database_that_is_dropped_is_looked_after_no_longer(servers: Servers):
    database = Database(servers.settings())
    await in_rotation(database, 1)
    gone = weakref.ref(database)
    (task,) = watching()
    engines = (database.engine, *database.replica_engines)
    del database
    gc.collect()
    assert gone() is None
    await asyncio.wait_for(task, 5)
    for engine in engines:
        await engine.dispose()


def test_the_looking_keeps_no_loop_from_closing(servers: Servers, recwarn: pytest.WarningsRecorder):
    """Each loop has its own; and one that is closed with the looking under way takes it along."""
    database = Database(servers.settings())

    async def use() -> None:
        await in_rotation(database, 1)
        async with database.session() as session:
            await session.exec(select(Label))

    for _ in range(2):
        asyncio.run(use())
    gc.collect()
    assert [str(each.message) for each in recwarn if "never awaited" in str(each.message)] == []
    assert database.replica_health() == () or len(database.replica_health()) == 1

    async def close() -> None:
        await database.close()

    asyncio.run(close())


async def test_it_is_begun_again_after_somebody_has_cancelled_it(servers: Servers):
    async with reading_from_replicas(servers) as database:
        (task,) = watching()
        task.cancel()
        await asyncio.wait([task])
        database.session()
        assert len(watching()) == 1
        await looked_again(database)


async def test_it_survives_whatever_goes_wrong(servers: Servers, monkeypatch: pytest.MonkeyPatch):
    async with reading_from_replicas(servers) as database:

        async def broken(*_: object) -> None:
            raise ZeroDivisionError

        with monkeypatch.context() as patched:
            patched.setattr("catalysis.engine.drivers.asyncpg.AsyncpgDriver.position", broken)
            await in_rotation(database, 0)
            assert database.replica_health()[0].trouble == "ZeroDivisionError"
        await in_rotation(database, 1)


# --- What is told ---------------------------------------------------------------------------------


async def test_events_metrics_health_and_the_inspector_show_them(servers: Servers):
    async with reading_from_replicas(servers) as database:
        registry, app = CollectorRegistry(), FastAPI(lifespan=lifespan(database))
        end = instrument(database, registry=registry)
        app.include_router(health_router())
        add_inspector(app, database, enabled=True)
        heard = Heard()
        async with app.router.lifespan_context(app), database.session() as session:
            await session.exec(select(Label))
            (place,) = {each.database for each in heard.events}
            assert place is not None
            assert (place.role, place.port) == ("replica", servers.replicas[0].port)
            assert place in database.addresses
            shown = generate_latest(registry).decode()
            for name in ("catalysis_replica_in_rotation", "catalysis_replica_lag_seconds"):
                assert re.search(
                    rf'^{name}\{{database="[^"]*",replica="[^"]*:{place.port}/', shown, re.MULTILINE
                )
            assert len(re.findall(r"^catalysis_pool_connections\{.*used", shown, re.MULTILINE)) == 2
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(app, client=("127.0.0.1", 1)), base_url="http://127.0.0.1"
            ) as client:
                (reported,) = (await client.get("/health/ready")).json()["replicas"]
                assert (reported["in_rotation"], reported["trouble"]) == (True, None)
                page = (await client.get("/_catalysis/transactions")).text
                assert f":{place.port}" in page
                assert "in rotation" in page
            end()
        heard.end()


async def test_spans_and_slow_statements_are_those_of_replicas_too(servers: Servers, caplog):
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    async with reading_from_replicas(servers) as database:
        end = instrument_spans(database, tracer_provider=provider, meter_provider=MeterProvider())
        async with log_slow_queries(database, 1e-9, plan=False), database.session() as session:
            await session.exec(select(Label))
        end()
    (span,) = spans.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["catalysis.server.role"] == "replica"
    assert span.attributes["server.port"] == servers.replicas[0].port
    assert [each.name for each in caplog.records if each.name == "catalysis.slow"] == ["catalysis.slow"]


# --- The page -------------------------------------------------------------------------------------

PAGE = Path(__file__).parent.parent / "docs" / "replicas.md"


class Base(ModelWithIdAndTimestamps, registry=registry()):
    pass


class Task(Base, table=True):
    title: str


async def test_the_python_of_the_page_runs(servers: Servers):
    blocks = list(Document.parse(str(PAGE), CodeBlockParser("python", lambda example: None)).examples())
    app = FastAPI()
    app.state.database = None
    add_error_handlers(app)
    names: dict[str, Any] = {"app": app, "Task": Task, "select": select, "Session": Session}
    names |= {"Annotated": Annotated, "Depends": Depends, "Request": Request, "Response": Response}
    names |= {"AsyncIterator": AsyncIterator, "Database": Database}
    async with reading_from_replicas(servers) as database:
        await database.create_all(Task.metadata)
        made = []
        for block in blocks:
            code = compile(str(block.parsed), str(PAGE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, names)
            if inspect.iscoroutine(result):
                await result
            made.append(names.get("db"))
            names["db"] = database
        assert [each is database for each in made] == [False, True, True, False]
        assert [len(each.addresses) for each in (made[0], made[3])] == [3, 3]
        assert [each.title for each in names["found"]] == ["new"]
        await sql(servers.replicas[0], "SELECT pg_wal_replay_pause()")
        try:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:

                @app.get("/tasks")
                async def tasks(session: Annotated[Session, Depends(names["get_db"])]) -> int:
                    return len((await session.exec(select(Task))).all())

                assert (await client.post("/tasks", params={"title": "y"})).status_code == 201
                await looked_again(database)
                assert (await client.get("/tasks")).json() == 2
                client.cookies.clear()
                assert (await client.get("/tasks", headers={"cookie": "written=x"})).status_code == 422
        finally:
            await sql(servers.replicas[0], "SELECT pg_wal_replay_resume()")


# --- Settings -------------------------------------------------------------------------------------


def test_one_url_of_several_hosts_is_a_replica_for_each():
    several = "postgresql://u:p%40@h1:5432,h2:5433/d?ssl=require"
    database = Database("postgresql://u@h1/d", replicas=[several, "postgresql://u@h2:5433/d"])
    places = {(each.host, each.port, each.role) for each in database.addresses}
    assert places == {("h1", None, "primary"), ("h1", 5432, "replica"), ("h2", 5433, "replica")}


def test_replicas_beside_settings_go_before_theirs():
    settings = DatabaseSettings(url="postgresql://h/d", replicas=("postgresql://r1/d",), pool_size=3)
    database = Database(settings, replicas=["postgresql://r2/d"])
    assert database.settings.replicas == ("postgresql+asyncpg://r2/d",)
    assert database.settings.pool_size == 3
    assert Database(settings).settings is settings


@pytest.mark.parametrize("option", [{"pool": NullPool(lambda: None)}, {"async_creator": lambda: None}])
def test_options_that_lead_to_one_server_exclude_replicas(option):
    with pytest.raises(SettingsError, match="leads to one server"):
        Database("postgresql://h/d", replicas=["postgresql://r/d"], **option)


async def test_a_pool_of_another_kind(servers: Servers):
    database = Database(servers.settings(), poolclass=NullPool)
    await in_rotation(database, 1)
    async with database.session() as session:
        await session.exec(select(Label))
    await database.close()
