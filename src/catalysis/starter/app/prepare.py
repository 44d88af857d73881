"""Bringing a database to the state that the application expects, before it answers anybody."""

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
    await upgrade(database, config=migration_config())
    try:
        async with database.session() as db:
            await install_roles(db)
            if with_demo:
                await install_demo(db)
    except DBAPIError as failure:
        raise MigrationError(f"The database refuses its first data: {failure.orig}.") from None
