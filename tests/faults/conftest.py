"""Fixtures of the fault suite."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.servers import PgBouncer


@pytest.fixture
async def pgbouncer(postgres_url: str) -> AsyncIterator[PgBouncer]:
    """PgBouncer in transaction mode in front of the server, with four connections to the test's database."""
    if PgBouncer.find() is None:
        pytest.skip("PgBouncer is not installed here (Debian: apt-get install pgbouncer)")
    bouncer = await asyncio.to_thread(PgBouncer.start, postgres_url)
    try:
        yield bouncer
    finally:
        await asyncio.to_thread(bouncer.stop)
