"""One migrated database for the whole run, emptied after each test; the application over it; people to be."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import Table, inspect
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import SQLModel

from catalysis import Database
from catalysis.migrations import downgrade, upgrade
from catalysis.starter.app.main import create_app
from catalysis.starter.app.migrate import migration_config
from catalysis.starter.app.passwords import hash_password
from catalysis.starter.app.settings import AppSettings
from catalysis.starter.app.tokens import sign_token
from catalysis.starter.tests.world import PASSWORD, World, make_world

Rows = dict[Table, list[dict[str, Any]]]
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


async def _make_world(url: str) -> tuple[World, Rows]:
    database = Database(url)
    try:
        async with database.session() as db:
            world = await make_world(db, await hash_password(PASSWORD))
        async with database.engine.begin() as connection:
            rows = {
                table: [dict(row._mapping) for row in await connection.execute(table.select())]
                for table in SQLModel.metadata.sorted_tables
            }
            await _empty(connection)
        return world, rows
    finally:
        await database.close()


async def _empty(connection: AsyncConnection) -> None:
    for table in reversed(SQLModel.metadata.sorted_tables):
        await connection.execute(table.delete())


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
def first_world(database_url: str) -> tuple[World, Rows]:
    """The world and its rows, which each test gets a copy of: making it takes ten times as long."""
    return asyncio.run(_make_world(database_url))


@pytest.fixture(scope="session")
def app(database_url: str) -> FastAPI:
    return create_app(SETTINGS, Database(database_url))


@pytest.fixture
async def database(app: FastAPI) -> AsyncIterator[Database]:
    """The application's database, emptied after the test."""
    database: Database = app.state.database
    yield database
    async with database.engine.begin() as connection:
        await _empty(connection)
    await database.close()


@pytest.fixture
async def world(database: Database, first_world: tuple[World, Rows]) -> World:
    """People, groups, categories and tasks."""
    world, rows = first_world
    async with database.engine.begin() as connection:
        for table, contents in rows.items():
            await connection.execute(table.insert(), contents)
    return world


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
