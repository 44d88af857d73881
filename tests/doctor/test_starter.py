"""The starter has nothing that the doctor would call an error or a warning."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from catalysis import Database
from catalysis.doctor import examine
from catalysis.starter import write_project
from catalysis.starter.app.migrate import migration_config
from catalysis.starter.app.models import Model
from catalysis.starter.app.prepare import prepare
from tests.doctor.conftest import said, send


@pytest.fixture
async def starter(backend_url: str):
    database = Database(backend_url)
    await prepare(database, with_demo=True)
    yield database
    await database.close()


@pytest.mark.parametrize("migrated", [True, False])
async def test_the_starter_is_well(starter, migrated):
    config = migration_config() if migrated else None
    found = await examine(starter, Model.metadata, config=config)
    assert [each for each in found.complaints if each.severity != "info"] == []
    assert found.skipped == ()


async def test_the_starter_is_not_well_by_chance(starter):
    await send(starter, "DROP INDEX ix_user_role_id", "CREATE TABLE log (a text)")
    found = await examine(starter, Model.metadata, config=migration_config())
    assert [each for each in said(found) if each[1] != "info"] == [
        ("D218", "warning", "index ix_user_role_id"),
        ("D330", "warning", "log"),
    ]


def test_a_project_from_the_starter_is_well(tmp_path: Path):
    """Its migrations and models are found in its folder."""
    write_project("shop", tmp_path / "shop")
    environment = {**os.environ, "DATABASE_URL": f"sqlite:///{tmp_path / 'shop.db'}"}

    def catalysis(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from catalysis.cli import app; app()", *arguments]
        return subprocess.run(
            command, cwd=tmp_path / "shop", env=environment, capture_output=True, text=True, check=False
        )

    assert catalysis("migrate", "upgrade").returncode == 0
    done = catalysis("doctor", "--fail-on", "warning")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Nothing to complain of.\n", "")
