"""What SQLite's way of altering tables, by making them anew, must not lose."""

import pytest
from alembic.config import Config
from sqlalchemy import Column, ForeignKey, Index, Integer, MetaData, String, Table, func, text

from catalysis.database import Database
from catalysis.errors import MigrationError
from catalysis.migrations import check, revise, upgrade
from catalysis.models import NAMING_CONVENTION
from tests.migrations.conftest import migrate_to, set_models


def family(name: Column[str], *indexed: str) -> MetaData:
    """A parent with the name, and children that go when it goes."""
    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    parent = Table("parent", metadata, Column("id", Integer, primary_key=True), name)
    Table(
        "child",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("parent_id", ForeignKey("parent.id", ondelete="CASCADE"), nullable=False),
    )
    if indexed:
        Index("ix_parent_lower", func.lower(parent.c[indexed[0]]))
    return metadata


ROWS = ("INSERT INTO parent VALUES (1, 'a')", "INSERT INTO child VALUES (7, 1)")


async def run(database: Database, *statements: str) -> None:
    async with database.engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def test_children_survive_the_rebuilding_of_their_parent(database: Database, config: Config) -> None:
    await migrate_to(database, config, family(Column("name", String(10))))
    await run(database, *ROWS)
    await migrate_to(database, config, family(Column("name", String(20), nullable=False)))
    async with database.engine.connect() as connection:
        assert (await connection.execute(text("SELECT id, parent_id FROM child"))).all() == [(7, 1)]
    with pytest.raises(Exception, match=r"(?i)foreign key"):  # they are enforced again
        await run(database, "INSERT INTO child VALUES (8, 99)")


async def test_a_revision_that_orphans_rows_changes_nothing(sqlite: Database, config: Config) -> None:
    await migrate_to(sqlite, config, family(Column("name", String(10))))
    await run(sqlite, *ROWS)
    revision = await revise(sqlite, "orphans", autogenerate=False, config=config)
    assert revision is not None
    revision.write_text(revision.read_text().replace("    pass", '    op.execute("DELETE FROM parent")', 1))
    with pytest.raises(MigrationError, match="1 in 'child' without their 'parent'"):
        await upgrade(sqlite, config=config)
    async with sqlite.engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM parent"))).scalar_one() == 1


async def test_orphans_from_before_do_not_stop_an_upgrade_with_nothing_to_do(
    sqlite: Database, config: Config
) -> None:
    await migrate_to(sqlite, config, family(Column("name", String(10))))
    async with sqlite.engine.connect() as connection:
        await connection.execute(text("PRAGMA foreign_keys = OFF"))
        await connection.execute(text("INSERT INTO child VALUES (8, 99)"))
        await connection.commit()
        await connection.execute(text("PRAGMA foreign_keys = ON"))
    assert await upgrade(sqlite, config=config) == []


async def test_expression_indexes_and_triggers_survive(sqlite: Database, config: Config) -> None:
    await migrate_to(sqlite, config, family(Column("name", String(10)), "name"))
    trigger = "CREATE TRIGGER noted AFTER UPDATE ON parent BEGIN DELETE FROM child WHERE id = 0; END"
    await run(sqlite, *ROWS, trigger)
    await migrate_to(sqlite, config, family(Column("name", String(10), nullable=False), "name"))
    async with sqlite.engine.connect() as connection:
        assert (
            await connection.scalars(text("SELECT sql FROM sqlite_master WHERE type = 'trigger'"))
        ).all() == [trigger]


async def test_a_trigger_that_does_not_fit_any_more_is_named(sqlite: Database, config: Config) -> None:
    await migrate_to(sqlite, config, family(Column("name", String(10)), "name"))
    revision = await revise(sqlite, "rename", autogenerate=False, config=config)
    assert revision is not None
    change = (
        '    with op.batch_alter_table("parent") as batch_op:\n'
        '        batch_op.alter_column("name", new_column_name="title", existing_type=sa.String(10), nullable=False)'
    )
    revision.write_text(revision.read_text().replace("    pass", change, 1))
    with pytest.raises(MigrationError, match="does not fit it any more: CREATE INDEX ix_parent_lower"):
        await upgrade(sqlite, config=config)
    set_models(config, family(Column("name", String(10)), "name"))
    revision.unlink()
    assert await check(sqlite, config=config) == []


async def test_a_database_in_memory(config: Config) -> None:
    database = Database("sqlite://")
    await migrate_to(database, config, family(Column("name", String(10))))
    await run(database, *ROWS)
    with pytest.raises(Exception, match=r"(?i)foreign key"):
        await run(database, "INSERT INTO child VALUES (8, 99)")
    await database.close()
