"""The figures that are scraped are those of the statements that were sent, and no value is on the page."""

import asyncio
import re

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel import select

from catalysis import Database, DatabaseDep
from catalysis.events import is_heard
from catalysis.integrations.fastapi import lifespan
from catalysis.integrations.prometheus import instrument, metrics_app, metrics_router
from tests.models import Label


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def forget(registry: CollectorRegistry) -> None:
    """End what measures for good."""
    from catalysis.integrations.prometheus import _measured

    measured = _measured[registry]
    while measured._begun:
        measured._end(None)
    assert not is_heard()


async def test_what_is_measured(database: Database, registry: CollectorRegistry):
    end = instrument(database, registry=registry)
    system = database.address.system

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"catalysis_{name}", labels)

    async with database.session() as session:
        for _ in range(3):
            await session.exec(select(Label))
        await session.execute(text("SELECT 'canary'"))
        with pytest.raises(DBAPIError):
            await session.execute(text("SELECT 'canary' FROM nowhere"))
        await session.rollback()
        await session.execute(text("SELECT 1"))
        seconds = "statement_duration_seconds"
        assert value(f"{seconds}_count", system=system, operation="SELECT", native="true") == 3
        assert value(f"{seconds}_count", system=system, operation="SELECT", native="false") == 3
        assert 0 < value(f"{seconds}_sum", system=system, operation="SELECT", native="true") < 5
        error = "ProgrammingError" if system == "postgresql" else "OperationalError"
        assert value("statement_errors_total", system=system, operation="SELECT", error=error) == 1
        assert value("transaction_duration_seconds_count", system=system, outcome="rollback") == 1
        assert value("transactions_open") == 1
        address = database.address
        name = f"{address.host}:{address.port}/{address.name}" if address.host else address.name
        shown = await asyncio.to_thread(generate_latest, registry)  # as a thread that serves metrics
        assert value("pool_connections", database=name, state="used") == 1
        assert value("pool_connections_max", database=name) == 20
    assert b"canary" not in shown
    assert b"nowhere" not in shown
    end()
    end()
    assert generate_latest(registry) == b""
    assert not is_heard()


async def test_several_of_one_registry_measure_once(
    database: Database, registry: CollectorRegistry, tmp_path
):
    other = Database(f"sqlite:///{tmp_path / 'other.db'}")
    ends = [instrument(each, registry=registry) for each in (database, other, None)]
    async with database.session() as session:
        await session.exec(select(Label))
    shown = generate_latest(registry).decode()
    assert re.findall(r"duration_seconds_count\{.*\} (\S+)", shown) == ["1.0"]
    assert len(re.findall(r"^catalysis_pool_connections\{.*used", shown, re.MULTILINE)) == 2
    for end in ends:
        end()
    await other.close()
    assert not is_heard()


async def scraped(app, path: str) -> str:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return answer.text


@pytest.mark.parametrize("given", [True, False])
async def test_a_router_of_fastapi(database: Database, registry: CollectorRegistry, given: bool):
    app = FastAPI(lifespan=lifespan(database))
    app.include_router(metrics_router(database if given else None, registry=registry))

    @app.get("/labels")
    async def labels(db: DatabaseDep) -> int:
        return len((await db.exec(select(Label))).all())

    async with app.router.lifespan_context(app):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            await client.get("/labels")
        shown = await scraped(app, "/metrics")
    system = database.address.system
    line = f'catalysis_statement_duration_seconds_count{{native="true",operation="SELECT",system="{system}"}} 1.0'
    assert line in shown
    assert 'state="idle"' in shown
    assert "/metrics" not in app.openapi()["paths"]
    forget(registry)


async def test_an_application_of_asgi(database: Database, registry: CollectorRegistry):
    app = metrics_app(database, registry=registry)
    async with database.session() as session:
        await session.exec(select(Label))
    assert 'operation="SELECT"' in await scraped(app, "/")
    forget(registry)
