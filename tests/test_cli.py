"""The `catalysis` command, as it is typed."""

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest
from sqlalchemy import text
from typer.testing import CliRunner, Result

from catalysis.cli import app
from catalysis.database import Database

Command = Callable[..., Result]

MODELS = """
from enum import Enum

from sqlalchemy import MetaData
from sqlalchemy.orm import registry
from sqlmodel import Field

from catalysis.models import NAMING_CONVENTION, ModelWithIdAndTimestamps
from catalysis.soft_delete import SoftDelete

class Base(ModelWithIdAndTimestamps, registry=registry(metadata=MetaData(naming_convention=NAMING_CONVENTION))):
    pass

class Status(Enum):
    OPEN = 1
    DONE = 2

class Task(SoftDelete, Base, table=True):
    title: str = Field(unique=True)
    status: Status = Status.OPEN
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, the current one."""
    root = tmp_path / "project"
    root.mkdir()
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def catalysis() -> Command:
    """`catalysis` with the arguments given."""
    return lambda *arguments, **options: CliRunner().invoke(app, list(arguments), **options)


@pytest.fixture
def models(folder: Path) -> str:
    """A package with models, under a name that no other test imports."""
    name = f"app_{uuid4().hex}"
    (folder / name).mkdir()
    (folder / name / "models.py").write_text(MODELS)
    return f"{name}.models"


@pytest.fixture
def migrations(
    backend_url: str, folder: Path, models: str, catalysis: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A project with a first revision, not applied, on each backend."""
    monkeypatch.setenv("DATABASE_URL", backend_url)
    catalysis("migrate", "init", "--models", f"{models}:Base.metadata")
    assert catalysis("migrate", "revision", "-m", "first").exit_code == 0


def complaint(result: Result) -> str:
    """The one line on stderr of a command that failed."""
    assert result.exit_code == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


@pytest.mark.parametrize("arguments", [["--version"], ["version"]])
def test_the_version(catalysis: Command, arguments: list[str]) -> None:
    assert catalysis(*arguments).stdout == f"catalysis {version('catalysis')}\n"


def test_help_needs_no_alembic() -> None:
    heavy = "import sys, catalysis.cli; sys.exit([name for name in ('alembic', 'fastapi') if name in sys.modules] or 0)"
    assert subprocess.run([sys.executable, "-c", heavy], check=False).returncode == 0


def test_from_models_to_tables_and_back(migrations: None, catalysis: Command, folder: Path) -> None:
    assert catalysis("migrate", "current").stdout == "The database was never migrated.\n"
    up = catalysis("migrate", "upgrade")
    assert up.exit_code == 0
    assert up.stdout.startswith("up   ")
    assert "first" in up.stdout
    assert catalysis("migrate", "upgrade").stdout == "Nothing to do: the database is up to date.\n"
    check = catalysis("migrate", "check")
    assert (check.exit_code, check.stdout) == (0, "No difference between the models and the database.\n")
    nothing = catalysis("migrate", "revision", "--autogenerate", "-m", "more")
    assert nothing.stdout == "No revision written: the models and the database do not differ.\n"
    empty = catalysis("migrate", "revision", "--empty", "-m", "by hand")
    assert empty.stdout.startswith("Wrote ")
    assert catalysis("migrate", "upgrade", "+1").exit_code == 0
    revision = catalysis("migrate", "current").stdout.strip()
    assert f"{revision} (head), by hand" in catalysis("migrate", "history").stdout
    assert catalysis("migrate", "downgrade", "-1").stdout.startswith(f"down {revision}")
    assert complaint(catalysis("migrate", "check")).startswith(
        "error: The database is not at the newest revision"
    )
    assert catalysis("migrate", "downgrade", "base", "--yes").exit_code == 0
    assert catalysis("migrate", "upgrade").exit_code == 0


def test_check_lists_what_differs(migrations: None, catalysis: Command, backend_url: str) -> None:
    catalysis("migrate", "upgrade")
    _execute(backend_url, "DROP INDEX uq_task_title", "ALTER TABLE task ADD COLUMN extra INTEGER")
    check = catalysis("migrate", "check")
    assert check.exit_code == 1
    assert sorted(check.stdout.splitlines()) == [
        "missing in the database: index uq_task_title of task",
        "not in the models: column task.extra",
    ]


def _execute(url: str, *statements: str) -> None:
    import asyncio

    async def run() -> None:
        database = Database(url)
        async with database.engine.begin() as connection:
            for statement in statements:
                await connection.execute(text(statement))
        await database.close()

    asyncio.run(run())


def test_init_finds_the_models(folder: Path, catalysis: Command, models: str) -> None:
    (folder / "pyproject.toml").write_text('[project]\nname = "x"\n')
    written = catalysis("migrate", "init", "changes").stdout
    assert "Wrote changes/env.py" in written
    assert models in (folder / "changes" / "env.py").read_text()
    configured = (folder / "pyproject.toml").read_text()
    assert configured.startswith(
        '[project]\nname = "x"\n\n[tool.alembic]\nscript_location = "%(here)s/changes"\n'
    )
    assert "already" in complaint(catalysis("migrate", "init", "other"))
    assert "not empty" in complaint(catalysis("migrate", "init", "changes"))


def test_init_asks_for_the_models(folder: Path, catalysis: Command) -> None:
    assert "--models app.models" in complaint(catalysis("migrate", "init"))
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["upgrade"], "catalysis migrate init"),
        (["history"], "catalysis migrate init"),
        (["upgrade", "-c", "nowhere.toml"], "nowhere.toml is not there"),
    ],
)
def test_no_migrations_here(folder: Path, catalysis: Command, arguments: list[str], message: str) -> None:
    assert message in complaint(catalysis("migrate", *arguments))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "cannot be parsed"),
        ("postgresql://me:canary-secret@127.0.0.1:1/x", "cannot be reached"),
        ("sqlite:////nowhere/at/all.db", "cannot be reached"),
    ],
)
def test_a_database_that_is_not_there(
    folder: Path, models: str, catalysis: Command, url: str, message: str
) -> None:
    catalysis("migrate", "init")
    for command in (["upgrade"], ["check"], ["current"], ["revision", "-m", "x"], ["downgrade", "base"]):
        line = complaint(catalysis("migrate", *command, "--url", url))
        assert message in line
        assert "canary-secret" not in line


def test_models_that_do_not_import(folder: Path, catalysis: Command) -> None:
    catalysis("migrate", "init", "--models", "nowhere.models")
    line = complaint(catalysis("migrate", "upgrade", "--url", f"sqlite:///{folder / 'x.db'}"))
    assert "there is no module 'nowhere'" in line


def test_a_revision_that_cannot_be_read(migrations: None, catalysis: Command, folder: Path) -> None:
    (revision,) = (folder / "migrations" / "versions").glob("*.py")
    revision.write_text("def upgrade(:")
    for command in (["history"], ["upgrade"]):
        assert f"{revision.name}, line 1: SyntaxError: invalid syntax" in complaint(
            catalysis("migrate", *command)
        )


def test_a_downgrade_on_a_terminal_asks(
    folder: Path, models: str, catalysis: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{folder / 'x.db'}"
    catalysis("migrate", "init", "--models", f"{models}:Base.metadata")
    catalysis("migrate", "revision", "-m", "first", "--url", url)
    catalysis("migrate", "upgrade", "--url", url)
    monkeypatch.setattr(
        "catalysis.cli.migrating.sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True))
    )
    refused = catalysis("migrate", "downgrade", "base", "--url", url, input="n\n")
    assert refused.exit_code == 1
    assert "drops what they made, with its rows.  Go on?" in refused.stdout
    assert catalysis("migrate", "downgrade", "base", "--url", url, input="y\n").exit_code == 0
    assert catalysis("migrate", "current", "--url", url).stdout == "The database was never migrated.\n"


@pytest.mark.parametrize("name", ["1shop", "my shop", "../shop", ""])
def test_names_that_cannot_be(folder: Path, catalysis: Command, name: str) -> None:
    assert "cannot name a project" in complaint(catalysis("new", name))


def test_a_new_project_does_not_overwrite(folder: Path, catalysis: Command) -> None:
    (folder / "shop").mkdir()
    (folder / "shop" / "mine.txt").touch()
    assert "not empty" in complaint(catalysis("new", "shop"))


def test_a_new_project_is_written(folder: Path, catalysis: Command) -> None:
    assert "cd shop" in catalysis("new", "shop").stdout
    assert (folder / "shop" / "migrations" / "env.py").is_file()


def test_a_missing_extra_is_named(folder: Path, catalysis: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'pwdlib'", name="pwdlib")

    monkeypatch.setattr("catalysis.starter.write_project", fail)
    assert complaint(catalysis("new", "shop")).endswith("pip install 'catalysis[starter]'")


@pytest.mark.parametrize("command", [("explain", "SELECT 1"), ("advise",)])
def test_what_looks_makes_no_sqlite_file(folder: Path, catalysis: Command, command: tuple[str, ...]):
    """Mutation seen to fail: `makes_it` is not said (an empty file is left behind)."""
    result = catalysis(*command, "--url", "sqlite:///nowhere.db")
    assert result.exit_code == 1
    assert "There is no SQLite file 'nowhere.db'" in result.output
    assert list(folder.iterdir()) == []
