"""One PostgreSQL server for the whole run, one database for each worker, one empty schema for each test."""

import os
from collections.abc import AsyncIterator

import asyncpg
import pytest

from catalysis import Database
from catalysis.engine import routing
from tests.models import made
from tests.servers import PostgresServer

SERVER_VARIABLE = "CATALYSIS_TEST_POSTGRES_PORT"
_server: PostgresServer | None = None


def pytest_configure(config: pytest.Config) -> None:
    global _server
    if SERVER_VARIABLE not in os.environ:  # the controller; xdist's workers inherit the variable
        _server = PostgresServer.start()
        os.environ[SERVER_VARIABLE] = str(_server.port)


def pytest_unconfigure(config: pytest.Config) -> None:
    if _server is not None:
        _server.stop()
        del os.environ[SERVER_VARIABLE]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test is nobody's part: what others wrote is not its own, which a replica would have to have (`routing`)."""
    routing._writes.set(None)


async def fresh_postgres_url() -> str:
    """The URL of this worker's database, emptied."""
    port = os.environ[SERVER_VARIABLE]
    name = "test_" + os.environ.get("PYTEST_XDIST_WORKER", "main")
    admin = await asyncpg.connect(host="127.0.0.1", port=int(port), user="postgres", database="postgres")
    try:
        if not await admin.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
            await admin.execute(f'CREATE DATABASE "{name}"')
    finally:
        await admin.close()
    own = await asyncpg.connect(host="127.0.0.1", port=int(port), user="postgres", database=name)
    try:
        found = await own.fetch(
            "SELECT quote_ident(nspname) AS name FROM pg_namespace WHERE nspname !~ '^pg_|^information_schema$'"
        )
        dropped = ", ".join(each["name"] for each in found)  # tests make schemas of their own too
        await own.execute(f"DROP SCHEMA {dropped or 'public'} CASCADE; CREATE SCHEMA public")
    finally:
        await own.close()
    return f"postgresql+asyncpg://postgres@127.0.0.1:{port}/{name}"


@pytest.fixture
async def postgres_url() -> str:
    """An empty PostgreSQL database."""
    return await fresh_postgres_url()


@pytest.fixture
async def postgres(postgres_url: str) -> AsyncIterator[Database]:
    """The same, as a `Database`."""
    database = Database(postgres_url)
    yield database
    await database.close()


@pytest.fixture(params=["sqlite", "postgres"])
async def backend_url(request: pytest.FixtureRequest, tmp_path) -> str:
    """An empty database on each backend."""
    if request.param == "postgres":
        return await fresh_postgres_url()
    return f"sqlite+aiosqlite:///{tmp_path / 'test.db'}"


@pytest.fixture
async def database(backend_url: str) -> AsyncIterator[Database]:
    """A `Database` with the tables of `tests.models`, on each backend."""
    async with made(backend_url) as database:
        yield database
