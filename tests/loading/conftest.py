"""The shelves in a database."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from catalysis import (
    Session,
)
from tests.loading.models import ITEMS, SHELVES, Base, Item, Shelf


@pytest.fixture
async def engine(backend_url: str) -> AsyncIterator[Any]:
    engine = create_async_engine(backend_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with Session(engine) as session:
        for s in range(1, SHELVES + 1):
            items = [
                Item(
                    id=s * 10 + i,
                    name=f"item {i}",
                    size=i,
                    note=f"note {s}.{i}",
                    twin_id=s * 10 if i else None,
                )
                for i in range(ITEMS)
            ]
            session.add(Shelf(id=s, name=f"shelf {s}"))
            await session.flush()
            for item in items:
                item.shelf_id = s
                session.add(item)
                await session.flush()
        await session.commit()
    yield engine
    await engine.dispose()
