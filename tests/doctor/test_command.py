"""`catalysis doctor`, as it is typed."""

import ast
import asyncio
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from typer.testing import CliRunner, Result

from catalysis import Database
from catalysis.cli import app
from catalysis.doctor import RULES
from tests.doctor.conftest import send
from tests.servers import free_port

MODELS = """
from datetime import datetime
from uuid import UUID

from sqlalchemy import DateTime, MetaData
from sqlalchemy.orm import registry
from sqlmodel import Field

from catalysis import NAMING_CONVENTION, ModelWithIdAndTimestamps

class Base(ModelWithIdAndTimestamps, registry=registry(metadata=MetaData(naming_convention=NAMING_CONVENTION))):
    pass

class User(Base, table=True):
    name: str

class Task(Base, table=True):
    due: datetime = Field(sa_type=DateTime)
    user_id: UUID = Field(foreign_key="user.id")
"""


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A project with models, in the current folder, under a name that no other test imports."""
    name = f"shop_{uuid4().hex}"
    (tmp_path / "project" / name).mkdir(parents=True)
    (tmp_path / "project" / name / "models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path / "project")
    return f"{name}.models"


@pytest.fixture
def doctor(models: str, backend_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`catalysis doctor` with the arguments given, on the tables of the models."""

    async def make() -> None:
        from catalysis.tools.named_model import find_metadata

        database = Database(backend_url)
        for metadata in find_metadata(models):
            await database.create_all(metadata)
        await database.close()

    asyncio.run(make())
    monkeypatch.setenv("DATABASE_URL", backend_url)
    return lambda *arguments: CliRunner().invoke(app, ["doctor", *arguments])


def test_warnings_alone_are_no_failure(doctor):
    result = doctor()
    assert (result.exit_code, result.stderr) == (0, "")
    for shown in ("D101", "foreign-key-without-index", "task.user_id", "index=True", "D103", "2 warnings."):
        assert shown in result.stdout, result.stdout


def test_what_the_exit_code_depends_on(doctor):
    assert doctor("--fail-on", "warning").exit_code == 1
    assert doctor("--fail-on", "warning", "--ignore", "D101", "--ignore", "naive-timestamp").exit_code == 0
    assert doctor("--fail-on", "warning", "--ignore", "D101:task.user_id", "--ignore", "d103").exit_code == 0
    assert doctor("--fail-on", "warning", "--ignore", "D101:other.id", "--ignore", "D103").exit_code == 1
    assert "Nothing to complain of." in doctor("--ignore", "D101", "--ignore", "D103").stdout


def test_errors_fail(doctor, backend_url):
    asyncio.run(_break(backend_url))
    result = doctor()
    assert result.exit_code == 1
    assert "D212" in result.stdout
    assert "1 error, 2 warnings." in result.stdout


async def _break(url: str) -> None:
    database = Database(url)
    await send(database, 'ALTER TABLE "user" DROP COLUMN name')
    await database.close()


def test_json(doctor, backend_url, models):
    asyncio.run(_break(backend_url))
    result = doctor("--json", "--models", models)
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert list(told) == ["format", "database", "counts", "complaints", "skipped"]
    assert told["format"] == 1
    assert told["database"]["system"] in ("postgresql", "sqlite")
    assert told["counts"] == {"error": 1, "warning": 2, "info": 0}
    assert [each["code"] for each in told["complaints"]] == ["D212", "D101", "D103"]
    assert {tuple(each) for each in told["complaints"]} == {
        ("code", "name", "severity", "subject", "message", "mend", "source")
    }
    assert {tuple(each) for each in told["skipped"]} <= {("code", "name", "reason")}
    assert "127.0.0.1" not in result.stdout


def test_the_database_alone(doctor):
    result = doctor("--no-models", "--fail-on", "warning")
    if "D329" in result.stdout:  # PostgreSQL tells of the naive column itself
        assert result.exit_code == 1
        assert doctor("--no-models", "--fail-on", "warning", "--ignore", "D329").exit_code == 0
    else:
        assert result.exit_code == 0
    assert "D200 comparison: no models were given" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ignore", "D999"], "no rule 'D999'"),
        (["--models", "nowhere.models"], "no module 'nowhere'"),
        (["--models", "broken"], "broken cannot be imported: ZeroDivisionError"),
        (["--models", "empty"], "empty declares no table"),
        (["--models", "empty:missing"], "missing is not a MetaData"),
        (["--config", "nowhere.toml"], "nowhere.toml is not there"),
        (["--url", "nonsense"], "cannot be parsed"),
        (["--url", "sqlite:////nowhere/at/all.db"], "no file /nowhere/at/all.db"),
        (["--url", f"postgresql://me:canary-secret@127.0.0.1:{free_port()}/x"], "cannot be reached"),
    ],
)
def test_what_cannot_be_examined_is_one_line_and_exit_code_2(models, arguments, message):
    Path("broken.py").write_text("1 / 0")
    Path("empty.py").write_text("from sqlalchemy import MetaData\nmetadata = MetaData()")
    try:
        result = CliRunner().invoke(app, ["doctor", "--url", "sqlite://", *arguments])
    finally:
        for name in ("broken", "empty"):
            sys.modules.pop(name, None)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert "canary-secret" not in line


PAGE = Path(__file__).parents[2] / "docs" / "doctor.md"


async def test_the_code_of_the_documentation_runs(empty, capsys):
    from sqlmodel import SQLModel

    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    await send(empty, "CREATE TABLE log (a text)")
    compiled = compile(code, str(PAGE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    await eval(compiled, {"db": empty, "SQLModel": SQLModel})
    assert "D330 log It has no primary key" in capsys.readouterr().out


def test_the_documentation_lists_every_rule():
    """With its severity, in the order of the codes."""
    page = PAGE.read_text("utf-8")
    rows = [line.split("|")[1:4] for line in page.splitlines() if line.startswith("| D")]
    listed = [tuple(part.strip().strip("`") for part in row) for row in rows]
    assert listed == sorted((each.code, each.name, each.severity) for each in RULES)
    assert len({each.code for each in RULES}) == len({each.name for each in RULES}) == len(RULES)
    assert all(each.source.startswith("https://") for each in RULES)
