"""Several processes at once: one migrates, the others wait and find nothing to do."""

import asyncio
import json
import os
import sys
from pathlib import Path

from sqlalchemy import text

from catalysis.database import Database
from catalysis.migrations import init_project
from catalysis.migrations.turns import LOCK_KEY

PROCESSES = 4

REVISION = """
import time
import sqlalchemy as sa
from alembic import op

revision, down_revision = {number!r}, {before}

def upgrade():
    op.create_table("t{number}", sa.Column("id", sa.Integer, primary_key=True))
    time.sleep(0.3)
    op.execute("INSERT INTO t{number} VALUES (1)")

def downgrade():
    op.drop_table("t{number}")
"""


def write_project(folder: Path) -> None:
    init_project(Path("migrations"), "catalysis.models", folder)
    for number, before in (("1", None), ("2", "'1'")):
        (folder / "migrations" / "versions" / f"{number}.py").write_text(
            REVISION.format(number=number, before=before)
        )


async def run(folder: Path, database: Database, *commands: list[str]) -> list[tuple[int, str]]:
    """Run the commands at the same time; return their exit codes and what they printed."""
    return await run_processes(folder, database, *([command] for command in commands))


async def run_processes(
    folder: Path, database: Database, *processes: list[list[str]]
) -> list[tuple[int, str]]:
    """Run processes at the same time, each with its commands; return their worst exit codes and what they printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, Path(__file__).parent / "processes.py", json.dumps(processes)),
        cwd=folder,
        env=os.environ | {"DATABASE_URL": database.settings.url, "DATABASE_BUSY_TIMEOUT": "0.1"},
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await process.communicate()
    return [(code, text) for code, text in json.loads(printed)]


async def test_of_several_processes_one_migrates(database: Database, folder: Path) -> None:
    write_project(folder)
    outcomes = await run(folder, database, *[["catalysis", "migrate", "upgrade"]] * PROCESSES)
    assert [code for code, _ in outcomes] == [0] * PROCESSES, outcomes
    assert sorted("Nothing to do" in printed for _, printed in outcomes) == [False, True, True, True]
    async with database.engine.connect() as connection:
        assert (
            await connection.scalar(text("SELECT (SELECT count(*) FROM t1) + (SELECT count(*) FROM t2)")) == 2
        )
        assert (await connection.scalars(text("SELECT version_num FROM alembic_version"))).all() == ["2"]


async def test_alembic_itself_works_and_takes_its_turn(postgres: Database, folder: Path) -> None:
    write_project(folder)
    other = Database(f"sqlite:///{folder / 'other.db'}")
    outcomes = await run(
        folder,
        postgres,
        ["catalysis", "migrate", "upgrade"],
        ["alembic", "upgrade", "head"],
        ["alembic", "upgrade", "head", "--sql"],
        ["alembic", "-x", f"url={other.settings.url}", "upgrade", "1"],
    )
    assert [code for code, _ in outcomes] == [0] * 4, outcomes
    assert "CREATE TABLE t2" in outcomes[2][1]
    async with other.engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM t1")) == 1
    await other.close()


async def test_the_lock_is_not_kept(postgres: Database, folder: Path) -> None:
    from catalysis.migrations import load_config, upgrade

    write_project(folder)
    await upgrade(postgres, config=load_config(folder / "pyproject.toml"))
    async with postgres.engine.connect() as connection:
        held = await connection.scalar(text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"))
        free = await connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": LOCK_KEY})
    assert (held, free) == (0, True)
