"""`python -m catalysis.starter`: it answers at once, and what keeps it from starting is one line."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from catalysis import Database, DatabaseSettings
from catalysis.starter.app.main import create_app
from catalysis.starter.app.seed import DEMO_PASSWORD, TASKS
from catalysis.starter.app.serve import _told_of_loops
from catalysis.starter.app.settings import AppSettings
from tests.servers import free_port

LONGEST_START = 60
"""Seconds; what `make run` is allowed on a machine that has everything installed."""


def environment(**variables: str) -> dict[str, str]:
    without = {"DATABASE_URL", "DATABASE_INSPECTOR", "PORT", "APP_ENVIRONMENT", "APP_SECRET_KEY"}
    return {name: value for name, value in os.environ.items() if name not in without} | variables


def start(cwd: Path, *options: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "catalysis.starter", *options],
        cwd=cwd,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def served(cwd: Path, **variables: str) -> Iterator[tuple[httpx.Client, subprocess.Popen[str]]]:
    port = free_port()
    process = start(cwd, PORT=str(port), **variables)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=LONGEST_START) as client:
            until = time.monotonic() + LONGEST_START
            while process.poll() is None and time.monotonic() < until:
                try:
                    client.get("/health/live")
                    break
                except httpx.ConnectError:
                    time.sleep(0.1)
            yield client, process
    finally:
        process.kill()
        process.wait()


def test_it_answers_with_data_and_stops_quietly(tmp_path: Path):
    with served(tmp_path) as (client, process):
        assert client.get("/health/ready").json()["status"] == "ready"
        page = client.get("/", follow_redirects=True)
        assert page.url.path == "/docs"
        assert "swagger-ui-bundle.js" in page.text
        login = client.post("/auth/token", data={"username": "admin", "password": DEMO_PASSWORD})
        bearer = {"Authorization": f"Bearer {login.json()['access_token']}"}
        assert client.get("/tasks", headers=bearer).json()["total"] == TASKS
        process.send_signal(signal.SIGINT)
        output, complaints = process.communicate(timeout=LONGEST_START)
    assert process.returncode == 0
    assert str(client.base_url).rstrip("/") in output
    assert DEMO_PASSWORD in output
    assert complaints.splitlines() == [
        "APP_SECRET_KEY is not set: using a random one, so logins end when this process does."
    ]
    assert (tmp_path / "catalysis.db").exists()


def test_production_has_no_demo_users(tmp_path: Path, postgres_url: str):
    variables = {"APP_ENVIRONMENT": "production", "APP_SECRET_KEY": "s" * 32, "DATABASE_URL": postgres_url}
    made = subprocess.run(
        [sys.executable, "-m", "catalysis.starter.app.create_admin", "Root", "root@example.org"],
        input=f"{DEMO_PASSWORD}\n{DEMO_PASSWORD}\n",
        cwd=tmp_path,
        env=environment(**variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    with served(tmp_path, **variables) as (client, process):
        form = {"username": "admin", "password": DEMO_PASSWORD}
        assert client.post("/auth/token", data=form).status_code == 401
        login = client.post("/auth/token", data=form | {"username": "root"})
        bearer = {"Authorization": f"Bearer {login.json()['access_token']}"}
        assert [each["username"] for each in client.get("/users", headers=bearer).json()["items"]] == ["root"]
        process.send_signal(signal.SIGTERM)
        output, complaints = process.communicate(timeout=LONGEST_START)
    assert DEMO_PASSWORD not in output
    assert complaints == ""


def refused(cwd: Path, *options: str, **variables: str) -> str:
    """The one line of a server that does not start."""
    process = start(cwd, *options, APP_SECRET_KEY="s" * 32, **variables)
    output, complaints = process.communicate(timeout=LONGEST_START)
    assert (process.returncode, output) == (1, ""), complaints
    [line] = complaints.splitlines()
    return line


def test_a_busy_port(tmp_path: Path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert f"Port {port}" in refused(tmp_path, "--port", str(port))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path):
    if os.geteuid() == 0:  # whom no mode bits hold back; but nobody makes files there
        folder = Path("/proc")
    else:
        folder = tmp_path / "locked"
        folder.mkdir(mode=0o555)
    assert "catalysis.db" in refused(folder, PORT=str(free_port()))


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "postgresql://someone:canary@127.0.0.1:1/db",
        "sqlite:////nowhere/at/all/test.db",
    ],
)
def test_a_database_that_is_not_there(tmp_path: Path, url: str):
    line = refused(tmp_path, DATABASE_URL=url, PORT=str(free_port()))
    assert "DATABASE_URL" in line
    assert "canary" not in line


def test_a_database_that_is_not_ours(tmp_path: Path):
    (tmp_path / "catalysis.db").write_text(
        "This is no database, and longer than a header would be." * 20, "utf-8"
    )
    assert "database" in refused(tmp_path, PORT=str(free_port()))


def test_queries_in_loops_are_told_of_in_development_alone():
    settings = {"secret_key": "x" * 32}
    development, production = (
        AppSettings.load(environment=e, **settings) for e in ("development", "production")
    )
    assert _told_of_loops(DatabaseSettings.load(), development).warn_repeated == 5
    assert _told_of_loops(DatabaseSettings.load(warn_repeated=9), development).warn_repeated == 9
    assert _told_of_loops(DatabaseSettings.load(), production).warn_repeated is None


def test_the_inspector_comes_where_it_is_asked_for_and_never_in_production(tmp_path: Path):
    with served(tmp_path, DATABASE_INSPECTOR="1") as (client, process):
        assert "Catalysis inspector" in client.get("/_catalysis/").text
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=LONGEST_START)
    assert f"{str(client.base_url).rstrip('/')}/_catalysis" in output.replace("\n", "")
    settings = {"secret_key": "x" * 32}
    url = f"sqlite:///{tmp_path / 'catalysis.db'}"
    for environment, asked, mounted in (
        ("development", True, True),
        ("development", False, False),
        ("production", True, False),
    ):
        database = Database(DatabaseSettings.load(url=url, inspector=asked))
        app = create_app(AppSettings.load(environment=environment, **settings), database)
        assert any(getattr(route, "path", "") == "/_catalysis" for route in app.routes) == mounted
