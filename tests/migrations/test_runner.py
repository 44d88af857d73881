"""Running revisions: whole or not at all, and with a clear line when it fails."""

import asyncio
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import Script
from sqlalchemy import Column, Integer, MetaData, Table, inspect, text

from catalysis.database import Database
from catalysis.errors import MigrationError
from catalysis.migrations import Step, check, current, downgrade, load_config, revise, upgrade
from tests.migrations.conftest import set_models


@pytest.fixture(autouse=True)
def _some_models(config: Config) -> None:
    metadata = MetaData()
    Table("thing", metadata, Column("id", Integer, primary_key=True))
    set_models(config, metadata)


def written(config: Config, *bodies: str) -> list[Path]:
    """A revision for each of the bodies of `upgrade()`."""
    paths: list[Path] = []
    for number, body in enumerate(bodies):
        script = command.revision(config, f"step {number}")
        assert isinstance(script, Script)
        path = Path(script.path)
        path.write_text(
            path.read_text().replace("    pass", "\n".join(f"    {line}" for line in body.split("\n")), 1)
        )
        paths.append(path)
    return paths


def table(name: str) -> str:
    return f'op.create_table("{name}", sa.Column("id", sa.Integer, primary_key=True))'


async def tables(database: Database) -> set[str]:
    async with database.engine.connect() as connection:
        names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    return set(names) - {"alembic_version"}


async def test_steps_are_told_and_returned(database: Database, config: Config) -> None:
    written(config, table("a"), table("b"))
    told: list[Step] = []
    steps = await upgrade(database, config=config, on_step=told.append)
    assert [(step.message, step.up) for step in steps] == [("step 0", True), ("step 1", True)]
    assert told == steps
    assert await current(database, config=config) == [steps[1].revision]
    assert await upgrade(database, config=config) == []
    back = await downgrade(database, "base", config=config)
    assert [(step.message, step.up) for step in back] == [("step 1", False), ("step 0", False)]
    assert await current(database, config=config) == []


async def test_databases_are_migrated_side_by_side(
    sqlite: Database, postgres: Database, config: Config
) -> None:
    written(config, table("a"))
    steps = await asyncio.gather(*(upgrade(each, config=config) for each in (sqlite, postgres, sqlite)))
    assert sorted(map(len, steps)) == [0, 1, 1]


async def test_a_revision_that_fails_half_way_leaves_nothing(database: Database, config: Config) -> None:
    (path,) = written(config, table("a") + "\n" + "op.execute('SELECT nonsense')")
    with pytest.raises(MigrationError) as failure:
        await upgrade(database, config=config)
    assert "step_0.py, line 23: " in str(failure.value)
    assert "nonsense" in str(failure.value)
    assert "\n" not in str(failure.value)
    assert await tables(database) == set()
    assert await current(database, config=config) == []
    kept = "revision" if database.engine.dialect.name == "postgresql" else "run"
    assert str(failure.value).endswith(f"Nothing of this {kept} was kept.")
    path.write_text(path.read_text().replace("nonsense", "1"))
    assert len(await upgrade(database, config=config)) == 1


async def test_a_programming_error_in_a_revision_has_its_line(database: Database, config: Config) -> None:
    (path,) = written(config, table("a") + "\n" + "nonsense()")
    with pytest.raises(
        MigrationError, match=r"step_0\.py, line 23: NameError: name 'nonsense' is not defined"
    ):
        await upgrade(database, config=config)
    assert await tables(database) == set()
    path.write_text("not Python")
    with pytest.raises(MigrationError, match=r"step_0\.py, line 1: "):
        await upgrade(database, config=config)


async def test_an_autocommit_block_runs_on_both(database: Database, config: Config) -> None:
    index = "op.create_index('ix', 'a', ['id'], postgresql_concurrently=True)"
    block = f"with op.get_context().autocommit_block():\n    {index}"
    written(config, table("a"), f"{block}\n{table('b')}")
    await upgrade(database, config=config)
    assert await tables(database) == {"a", "b"}


async def test_the_database_is_ahead_of_the_code(database: Database, config: Config) -> None:
    paths = written(config, table("a"), table("b"))
    steps = await upgrade(database, config=config)
    paths[1].unlink()
    for command_ in (upgrade(database, config=config), check(database, config=config)):
        with pytest.raises(MigrationError, match=f"at revision '{steps[1].revision}', which is not in"):
            await command_
    assert await current(database, config=config) == [steps[1].revision]
    with pytest.raises(MigrationError, match="There is no revision 'nope'"):
        await upgrade(database, "nope", config=config)


async def test_several_heads(database: Database, config: Config) -> None:
    written(config, table("a"), table("b"))
    await upgrade(database, config=config)
    command.revision(config, "beside", head="base", splice=True)
    for attempt in (upgrade(database, config=config), revise(database, "more", config=config)):
        with pytest.raises(MigrationError, match=r"more than one head: .*alembic merge heads"):
            await attempt


async def test_a_revision_before_the_upgrade(database: Database, config: Config) -> None:
    written(config, table("a"))
    with pytest.raises(MigrationError, match="not at the newest revision"):
        await revise(database, "more", config=config)


async def test_reading_commands_leave_no_table(database: Database, config: Config) -> None:
    assert await current(database, config=config) == []
    assert await check(database, config=config) == ["missing in the database: table thing"]
    async with database.engine.connect() as connection:
        assert await connection.run_sync(lambda sync: inspect(sync).get_table_names()) == []


async def test_a_database_that_cannot_be_reached_is_named_without_its_password(config: Config) -> None:
    database = Database("postgresql://someone:canary-secret@127.0.0.1:1/nowhere")
    with pytest.raises(MigrationError) as failure:
        await upgrade(database, config=config)
    assert "postgresql+asyncpg://someone:***@127.0.0.1:1/nowhere cannot be reached" in str(failure.value)
    assert "canary-secret" not in str(failure.value)


async def test_models_that_cannot_be_found(database: Database, config: Config, folder: Path) -> None:
    environment = folder / "migrations" / "env.py"
    source = "from catalysis.migrations import run_environment\nrun_environment({!r})"
    for models, message in {
        "nowhere.models": "no module 'nowhere'",
        "tests.migrations.models:Nothing.metadata": "Nothing.metadata is not a MetaData of tests.migrations.models",
    }.items():
        environment.write_text(source.format(models))
        with pytest.raises(MigrationError, match=message):
            await upgrade(database, config=config)
    environment.write_text(source.format("tests.migrations.models:METADATA"))
    assert "missing in the database: table task" in await check(database, config=config)


async def test_the_statement_timeout_of_requests_does_not_break_a_migration(
    postgres_url: str, config: Config
) -> None:
    from catalysis.settings import DatabaseSettings

    database = Database(DatabaseSettings(url=postgres_url, statement_timeout=0.1))
    written(config, "op.execute('SELECT pg_sleep(0.3)')")
    await upgrade(database, config=config)
    with pytest.raises(Exception, match="statement timeout"):
        async with database.engine.connect() as connection:
            await connection.execute(text("SELECT pg_sleep(0.3)"))
    await database.close()


def test_a_project_without_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MigrationError, match="catalysis migrate init"):
        load_config()
    (tmp_path / "pyproject.toml").write_text("[tool.alembic]\nscript_location = 'gone'\n")
    with pytest.raises(MigrationError, match="gone"):
        load_config()
    (tmp_path / "pyproject.toml").write_text("nonsense")
    with pytest.raises(MigrationError, match=r"pyproject\.toml cannot be read"):
        load_config()
    with pytest.raises(MigrationError, match="is not there"):
        load_config(tmp_path / "other.toml")
