"""Enum types: made, changed and dropped with the columns that use them."""

from collections.abc import Sequence
from contextlib import nullcontext
from io import StringIO
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import ARRAY, CheckConstraint, Column, Enum, Index, Integer, MetaData, String, Table, text

from catalysis.database import Database
from catalysis.errors import MigrationError
from catalysis.migrations import check, downgrade, revise, upgrade
from catalysis.models import NAMING_CONVENTION
from tests.migrations.conftest import migrate_to, set_models
from tests.migrations.models import METADATA


def mood(*values: str, **options: Any) -> Enum:
    return Enum(*values, name="mood", **options)


def table(*columns: Column[Any], **more: Sequence[Column[Any]]) -> MetaData:
    """A table `person` with the columns, and more tables."""
    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    for name, its_columns in {"person": columns, **more}.items():
        Table(name, metadata, Column("id", Integer, primary_key=True), *its_columns)
    return metadata


async def types(database: Database) -> list[str]:
    """The enum types there are."""
    async with database.engine.connect() as connection:
        return list(
            await connection.scalars(text("SELECT typname FROM pg_type WHERE typtype = 'e' ORDER BY 1"))
        )


async def run(database: Database, *statements: str) -> None:
    async with database.engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def ask(database: Database, query: str) -> list[Any]:
    async with database.engine.connect() as connection:
        return list((await connection.execute(text(query))).scalars())


def edit(revision: Path, line: str) -> None:
    """Add a line at the end of its `upgrade()`."""
    revision.write_text(revision.read_text().replace("    # ### end", f"    {line}\n    # ### end", 1))


async def test_a_type_lives_as_long_as_columns_use_it(database: Database, config: Config) -> None:
    none, one = table(), table(Column("mood", mood("good", "bad")))
    two = table(Column("mood", mood("good", "bad")), pet=[Column("mood", mood("good", "bad"))])
    await migrate_to(database, config, none)
    assert "op.create_enum('mood', ['good', 'bad'])" in (await migrate_to(database, config, one)).read_text()
    assert "_enum('mood'" not in (await migrate_to(database, config, two)).read_text()
    assert "_enum('mood'" not in (await migrate_to(database, config, one)).read_text()
    last = (await migrate_to(database, config, none)).read_text()
    if database.engine.dialect.name == "postgresql":
        assert "op.drop_enum('mood')" in last
        assert await types(database) == []
    await downgrade(database, "base", config=config)
    await upgrade(database, config=config)


async def test_values_are_added_where_they_belong(postgres: Database, config: Config) -> None:
    await migrate_to(postgres, config, table(Column("mood", mood("b", "d"))))
    await run(postgres, "INSERT INTO person VALUES (1, 'b'), (2, 'd')")
    set_models(config, table(Column("mood", mood("a", "b", "c", "d", "e"))))
    assert await check(postgres, config=config) == [
        "enum mood differs: ['b', 'd'] in the database, ['a', 'b', 'c', 'd', 'e'] in the models"
    ]
    revision = await revise(postgres, "values", config=config)
    assert revision is not None
    assert "op.alter_enum('mood', ['a', 'b', 'c', 'd', 'e'])" in revision.read_text()
    # a value is of use in the revision that adds it
    edit(revision, "op.execute(\"UPDATE person SET mood = 'e'\")")
    await upgrade(postgres, config=config)
    assert await check(postgres, config=config) == []
    assert await ask(postgres, "SELECT mood::text FROM person") == ["e", "e"]


async def test_values_go_and_change_places_with_all_that_names_them(
    postgres: Database, config: Config
) -> None:
    def models(*values: str) -> MetaData:
        metadata = table(
            Column("mood", mood(*values), server_default="bad", nullable=False),
            Column("moods", ARRAY(mood(*values)), server_default=text("'{good}'")),
            Column("note", String),
        )
        person = metadata.tables["person"]
        Index("ix_person_bad", person.c.note, postgresql_where=person.c.mood == "bad", unique=True)
        person.append_constraint(CheckConstraint("mood <> 'good' OR note IS NULL", name="good"))
        return metadata

    await migrate_to(postgres, config, models("good", "fair", "bad"))
    await run(postgres, "INSERT INTO person (id, mood, moods) VALUES (1, 'good', '{good,bad}')")
    await migrate_to(postgres, config, models("bad", "good"))
    await run(postgres, "INSERT INTO person (id) VALUES (2)")
    assert await ask(postgres, "SELECT moods::text FROM person ORDER BY id") == ["{good,bad}", "{good}"]
    assert await ask(postgres, "SELECT mood::text FROM person ORDER BY mood") == ["bad", "good"]
    checks = "SELECT conname FROM pg_constraint WHERE contype = 'c' AND conrelid = 'person'::regclass"
    assert await ask(postgres, checks) == ["ck_person_good"]
    await downgrade(postgres, "-1", config=config)
    await downgrade(postgres, "base", config=config)
    assert await types(postgres) == []


async def test_a_value_in_use_does_not_go(postgres: Database, config: Config) -> None:
    await migrate_to(postgres, config, table(Column("mood", mood("good", "bad"))))
    await run(postgres, "INSERT INTO person VALUES (1, 'bad')")
    set_models(config, table(Column("mood", mood("good"))))
    await revise(postgres, "less", config=config)
    with pytest.raises(
        MigrationError, match=r"_less\.py, line \d+: Rows of person still hold in mood a value"
    ):
        await upgrade(postgres, config=config)
    assert await ask(postgres, "SELECT mood::text FROM person") == ["bad"]


async def test_text_becomes_an_enum_and_text_again(database: Database, config: Config) -> None:
    words, moods = table(Column("mood", String(10))), table(Column("mood", mood("good", "bad")))
    await migrate_to(database, config, words)
    await run(database, "INSERT INTO person VALUES (1, 'bad')")
    if database.engine.dialect.name == "postgresql":
        await migrate_to(database, config, moods)
        await migrate_to(database, config, words)
        assert await types(database) == []
        await downgrade(database, "-2", config=config)
    else:  # an enum is text there
        set_models(config, moods)
        assert await check(database, config=config) == []
    assert await ask(database, "SELECT mood FROM person") == ["bad"]


async def test_an_enum_of_its_own_schema(postgres: Database, config: Config) -> None:
    await run(postgres, "CREATE SCHEMA feelings")
    await migrate_to(postgres, config, table(Column("mood", mood("good", schema="feelings"))))
    await migrate_to(postgres, config, table(Column("mood", mood("good", "bad", schema="feelings"))))
    await migrate_to(postgres, config, table(Column("mood", mood("bad", schema="feelings"))))
    await downgrade(postgres, "base", config=config)
    assert await types(postgres) == []
    await run(postgres, "DROP SCHEMA feelings")


async def test_enums_left_alone(database: Database, config: Config) -> None:
    stored_as_text = mood("good", "bad", native_enum=False)
    revision = await migrate_to(database, config, table(Column("mood", stored_as_text)))
    assert "_enum('mood'" not in revision.read_text()


async def test_altering_what_is_not_there(postgres: Database, config: Config) -> None:
    set_models(config, table())
    revision = await revise(postgres, "nothing", config=config)
    assert revision is not None
    edit(revision, "op.alter_enum('nope', ['a'])")
    with pytest.raises(MigrationError, match="There is no enum type 'nope' to alter"):
        await upgrade(postgres, config=config)


async def test_offline_the_types_come_first(
    sqlite: Database, postgres: Database, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", postgres.settings.url)
    await migrate_to(sqlite, config, METADATA)
    config.output_buffer = StringIO()
    command.upgrade(config, "head", sql=True)
    script = config.output_buffer.getvalue()
    assert script.count("CREATE TYPE status AS ENUM") == 1
    connection = await asyncpg.connect(postgres.settings.url.replace("+asyncpg", ""))
    await connection.execute(script)
    await connection.close()
    assert await check(postgres, config=config) == []


async def test_an_enum_is_not_altered_offline(
    sqlite: Database, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_models(config, table())
    revision = await revise(sqlite, "mood", config=config)
    assert revision is not None
    edit(revision, "op.alter_enum('mood', ['a'])")
    for url, outcome in {
        "postgresql://localhost/x": pytest.raises(MigrationError, match="cannot run offline"),
        sqlite.settings.url: nullcontext(),
    }.items():
        monkeypatch.setenv("DATABASE_URL", url)
        config.output_buffer = StringIO()
        with outcome:
            command.upgrade(config, "head", sql=True)
