"""The starter's models, as a project of one's own would migrate them."""

from pathlib import Path

import pytest

from catalysis.database import Database
from catalysis.migrations import init_project
from tests.migrations.test_turns import run_processes

pytest.importorskip("fastapi")


async def test_the_starters_models_and_what_their_revision_makes_do_not_differ(
    database: Database, folder: Path
) -> None:
    init_project(Path("migrations"), "catalysis.starter.app.models", folder)
    commands = (
        *(["revision", "-m", "first"], ["upgrade"], ["check"]),
        *(["downgrade", "base"], ["upgrade"], ["check"], ["revision", "-m", "nothing"]),
    )
    ((code, printed),) = await run_processes(
        folder, database, [["catalysis", "migrate", *command] for command in commands]
    )
    assert code == 0, printed
    assert printed.count("No difference between the models and the database.") == 2
    assert printed.endswith("No revision written: the models and the database do not differ.\n")
