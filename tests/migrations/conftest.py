"""A project with a migrations folder, and its database."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic.config import Config
from sqlalchemy import MetaData

from catalysis.database import Database
from catalysis.migrations import check, init_project, load_config, revise, upgrade

ENV = """
from alembic import context
from catalysis.migrations import run_environment

attributes = context.config.attributes
run_environment(attributes["models"], **attributes.get("options", {}))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The project's folder."""
    root = tmp_path / "project"
    root.mkdir()
    return root


@pytest.fixture
def config(folder: Path) -> Config:
    """Alembic's configuration of it; the models are whatever `set_models` says."""
    init_project(Path("migrations"), "app.models", folder)
    (folder / "migrations" / "env.py").write_text(ENV)
    return load_config(folder / "pyproject.toml")


def set_models(config: Config, metadata: MetaData) -> None:
    """Let the project have other models from now on."""
    config.attributes["models"] = metadata


async def migrate_to(database: Database, config: Config, metadata: MetaData) -> Path:
    """Write the revision that leads to the models, apply it, and return its file."""
    set_models(config, metadata)
    path = await revise(database, "change", config=config)
    await upgrade(database, config=config)
    assert await check(database, config=config) == []
    assert path is not None
    return path


@pytest.fixture
async def database(backend_url: str) -> AsyncIterator[Database]:
    """An empty database on each backend."""
    database = Database(backend_url)
    yield database
    await database.close()


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[Database]:
    """An empty SQLite file."""
    database = Database(f"sqlite:///{tmp_path / 'test.db'}")
    yield database
    await database.close()
