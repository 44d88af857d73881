"""The starter's migrations make what its models say, and take it back."""

from sqlalchemy import inspect

from catalysis import Database
from catalysis.migrations import check, current, downgrade, upgrade
from catalysis.starter.app.migrate import migration_config


async def tables(database: Database) -> set[str]:
    async with database.engine.connect() as connection:
        return set(await connection.run_sync(lambda sync: inspect(sync).get_table_names()))


async def test_up_check_down_and_up_again(backend_url):
    database, config = Database(backend_url), migration_config()
    try:
        await upgrade(database, config=config)
        assert await check(database, config=config) == []
        made = await tables(database)
        assert {"user", "role", "permission", "group", "membership", "category", "task"} < made

        await downgrade(database, "base", config=config)
        assert await tables(database) == {"alembic_version"}
        assert await current(database, config=config) == []

        await upgrade(database, config=config)
        assert await tables(database) == made
        assert await check(database, config=config) == []
    finally:
        await database.close()
