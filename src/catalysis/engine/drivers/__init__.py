"""One module a driver: how its engine is made and what its database can do.  Above, nobody asks which it is."""

from typing import Any

from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from catalysis.engine.drivers import asyncpg, sqlite
from catalysis.settings import DatabaseSettings


def make_engine(url: URL, settings: DatabaseSettings, given: dict[str, Any]) -> AsyncEngine:
    """An engine for `url`, as `settings` and the driver want it; `given` options win over both.

    Parameters stay out of logs and exceptions unless `hide_parameters=False` is given.
    """
    options: dict[str, Any] = {"echo": settings.echo, "hide_parameters": True}
    if url.get_driver_name() == "aiosqlite":
        engine = create_async_engine(url, **options | sqlite.engine_options(url, settings) | given)
        sqlite.prepare(engine.sync_engine)
        return engine
    options |= {
        "pool_size": settings.pool_size,
        "max_overflow": settings.max_overflow,
        "pool_timeout": settings.pool_timeout,
        "pool_recycle": settings.pool_recycle,
    }
    if url.get_driver_name() == "asyncpg":
        options |= asyncpg.engine_options(settings)
    return create_async_engine(url, **options | given)
