"""One module a driver: how its engine is made and what its database can do.  Above, nobody asks which it is."""

from typing import Any

from sqlalchemy.engine import URL, Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import QueuePool

from catalysis.engine.drivers import asyncpg, sqlite
from catalysis.engine.drivers.base import Answer, Cursor, Driver, Position
from catalysis.settings import DatabaseSettings

_DRIVERS: dict[str, Driver] = {"asyncpg": asyncpg.AsyncpgDriver(), "aiosqlite": sqlite.SqliteDriver()}


OWN_HOOKS = sqlite.OWN_HOOKS
"""Listeners of an engine's statements that the native path does without."""


def is_driven(dialect: Dialect) -> bool:
    """Whether Catalysis speaks to the dialect's driver by itself."""
    return dialect.driver in _DRIVERS


def driver_of(dialect: Dialect) -> Driver:
    """The driver of a dialect that `is_driven`."""
    return _DRIVERS[dialect.driver]


def was_stale(failure: DBAPIError) -> bool:
    """Whether a driver says that a prepared statement no longer fits its tables; made anew, it will."""
    cause = getattr(failure.orig, "__cause__", None)
    return isinstance(cause, Exception) and any(driver.was_stale(cause) for driver in _DRIVERS.values())


def make_engine(url: URL, settings: DatabaseSettings, given: dict[str, Any]) -> AsyncEngine:
    """An engine for `url`, as `settings` and the driver want it; `given` options win over both.

    `connect_args`, and `server_settings` in them, are merged key by key.  Parameters stay out of logs and
    exceptions unless `hide_parameters=False` is given.
    """
    embedded = url.get_driver_name() == "aiosqlite"
    options: dict[str, Any] = {"echo": settings.echo, "hide_parameters": True}
    options |= _pool_options(url, settings, given) | given
    if embedded:
        options["connect_args"] = _merged(sqlite.connect_args(settings), given.get("connect_args", {}))
    elif url.get_driver_name() == "asyncpg":
        options["connect_args"] = _merged(asyncpg.connect_args(settings), given.get("connect_args", {}))
    engine = create_async_engine(url, **options)
    if embedded:
        sqlite.prepare(engine.sync_engine, given.get("isolation_level"))
        if options["hide_parameters"]:
            sqlite.quieten()
    elif url.get_driver_name() == "asyncpg":
        asyncpg.prepare(engine.sync_engine, settings)
    return engine


def _pool_options(url: URL, settings: DatabaseSettings, given: dict[str, Any]) -> dict[str, Any]:
    """What a pool that queues is told; others refuse it, as those of a database in memory, or `NullPool`."""
    dialect: Any = url.get_dialect()
    if "pool" in given or not issubclass(given.get("poolclass") or dialect.get_pool_class(url), QueuePool):
        return {}
    return {
        "pool_size": settings.pool_size,
        "max_overflow": settings.max_overflow,
        "pool_timeout": settings.pool_timeout,
        "pool_recycle": settings.pool_recycle,
        # The one used last knows the statements that are prepared, and is warm at the server; the others may go idle.
        "pool_use_lifo": True,
    }


def _merged(ours: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    merged = ours | given
    for key in ours.keys() & given.keys():
        if isinstance(ours[key], dict):
            merged[key] = ours[key] | given[key]
    return merged


__all__ = [
    "OWN_HOOKS",
    "Answer",
    "Cursor",
    "Driver",
    "Position",
    "driver_of",
    "is_driven",
    "make_engine",
    "was_stale",
]
