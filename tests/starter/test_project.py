"""`write_project` makes a project that stands on its own."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from catalysis.errors import CatalysisError
from catalysis.starter import write_project


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write_project("my-shop", tmp_path / "my-shop")
    return tmp_path / "my-shop"


def run(*command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_is_written(tmp_path: Path):
    written = write_project("my-shop", tmp_path / "here" / "my-shop")
    there = {str(path.relative_to(tmp_path / "here" / "my-shop")) for path in written}
    assert there > {
        *{"pyproject.toml", "README.md", "compose.yaml", "Makefile", ".gitignore", ".env.example"},
        *{
            "app/__main__.py",
            "app/main.py",
            "migrations/env.py",
            "migrations/script.py.mako",
            "tests/conftest.py",
        },
    }
    assert all(path.is_file() for path in written)
    for path in written:
        text = path.read_text("utf-8")
        assert "catalysis.starter" not in text, path
        assert "{{" not in text or path.suffix == ".py", path
    assert (
        tomllib.loads((written[0].parent / "pyproject.toml").read_text("utf-8"))["project"]["name"]
        == "my-shop"
    )


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path):
    (tmp_path / "mine").write_text("mine", "utf-8")
    with pytest.raises(CatalysisError, match="not empty"):
        write_project("my-shop", tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["mine"]


def test_its_tests_pass_on_postgresql(project: Path, postgres_url: str):
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=project, TEST_DATABASE_URL=postgres_url)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


def test_its_tests_run_on_sqlite_by_default(project: Path):
    done = run(
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/test_answers.py",
        cwd=project,
        TEST_DATABASE_URL="",
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


def test_catalysis_migrate_knows_it(project: Path):
    url = "sqlite:///shop.db"
    for command in ("upgrade", "check"):
        done = run(
            "-c", "from catalysis.cli import app; app()", "migrate", command, cwd=project, DATABASE_URL=url
        )
        assert done.returncode == 0, done.stdout + done.stderr
