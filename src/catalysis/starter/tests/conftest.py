"""One migrated database for the whole run, emptied after each test; the application over it; people to be."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import inspect
from sqlmodel import SQLModel

from catalysis import Database
from catalysis.migrations import downgrade, upgrade
from catalysis.starter.app.main import create_app
from catalysis.starter.app.migrate import migration_config
from catalysis.starter.app.passwords import hash_password
from catalysis.starter.app.settings import AppSettings
from catalysis.starter.app.tokens import sign_token
from catalysis.starter.tests.world import PASSWORD, World, make_world

SETTINGS = AppSettings.load(secret_key="only for tests, and long enough for HS256")


async def _migrate(url: str) -> None:
    database = Database(url)
    try:
        async with database.engine.connect() as connection:
            if await connection.run_sync(lambda sync: inspect(sync).get_table_names()):
                pytest.exit(
                    "The tests empty their database: let TEST_DATABASE_URL name one that is empty already."
                )
        await upgrade(database, config=migration_config())
    finally:
        await database.close()


async def _take_back(url: str) -> None:
    database = Database(url)
    try:
        await downgrade(database, "base", config=migration_config())
        async with database.engine.begin() as connection:
            await connection.exec_driver_sql("DROP TABLE alembic_version")
    finally:
        await database.close()


@pytest.fixture(scope="session")
def database_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A migrated database without rows."""
    file: Path = tmp_path_factory.mktemp("database") / "test.db"
    url = os.environ.get("TEST_DATABASE_URL") or f"sqlite:///{file}"
    asyncio.run(_migrate(url))
    yield url
    asyncio.run(_take_back(url))


@pytest.fixture(scope="session")
def password_hash() -> str:
    """Of `PASSWORD`, which all people of the tests have: made once, because it is slow on purpose."""
    return asyncio.run(hash_password(PASSWORD))


@pytest.fixture(scope="session")
def app(database_url: str) -> FastAPI:
    return create_app(SETTINGS, Database(database_url))


@pytest.fixture
async def database(app: FastAPI) -> AsyncIterator[Database]:
    """The application's database, emptied after the test."""
    database: Database = app.state.database
    yield database
    async with database.engine.begin() as connection:
        for table in reversed(SQLModel.metadata.sorted_tables):
            await connection.execute(table.delete())
    await database.close()


@pytest.fixture
async def world(database: Database, password_hash: str) -> World:
    """People, groups, categories and tasks."""
    async with database.session() as db:
        return await make_world(db, password_hash)


Login = Callable[[str], httpx.AsyncClient]


@pytest.fixture
async def login(app: FastAPI, world: World) -> AsyncIterator[Login]:
    """`login("ann")` is a client that bears Ann's token; `login("")` bears none."""
    clients: list[httpx.AsyncClient] = []

    def as_(username: str) -> httpx.AsyncClient:
        token = username and sign_token(world.users[username], SETTINGS)
        client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://test",
            headers={"Authorization": f"Bearer {token}"} if token else {},
        )
        clients.append(client)
        return client

    yield as_
    for client in clients:
        await client.aclose()


@pytest.fixture
def admin(login: Login) -> httpx.AsyncClient:
    return login("admin")


@pytest.fixture
def ann(login: Login) -> httpx.AsyncClient:
    """A member like any other."""
    return login("ann")


@pytest.fixture
def bob(login: Login) -> httpx.AsyncClient:
    """Another one."""
    return login("bob")
