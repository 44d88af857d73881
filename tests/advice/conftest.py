"""A filled shop on each backend."""

from collections.abc import AsyncIterator

import pytest

from catalysis import Database
from tests.advice.shop import open_shop


@pytest.fixture
async def shop(backend_url: str) -> AsyncIterator[Database]:
    """On each backend."""
    database = Database(backend_url)
    await open_shop(database)
    yield database
    await database.close()


@pytest.fixture
async def postgres_shop(postgres_url: str) -> AsyncIterator[Database]:
    """On PostgreSQL."""
    database = Database(postgres_url)
    await open_shop(database)
    yield database
    await database.close()
