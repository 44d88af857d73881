"""Bringing a database to the state that the application expects, before it answers anybody."""

import asyncio

from sqlalchemy.exc import DBAPIError

from catalysis import Database, MigrationError
from catalysis.migrations import upgrade
from catalysis.starter.app.migrate import migration_config
from catalysis.starter.app.seed import install_demo, install_roles


async def prepare(database: Database, *, with_demo: bool) -> None:
    """Migrate to the newest revision, put in roles and permissions, and people to play with if wanted.

    Raises:
        MigrationError: the database cannot be reached, or refuses.
    """
    try:
        await upgrade(database, config=migration_config())
    except MigrationError:
        # aiosqlite (0.22) does not wait for the thread of a connection it could not open, which complains aloud
        # if the loop is closed before it has said that it stopped.
        await asyncio.sleep(0.1)
        raise
    try:
        async with database.session() as db:
            await install_roles(db)
            if with_demo:
                await install_demo(db)
    except DBAPIError as failure:
        raise MigrationError(f"The database refuses its first data: {failure.orig}.") from None
