"""The starter with the inspector, served for a browser: on a port of its own, by a thread of its own."""

import asyncio
import os
import shutil
import threading
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
import uvicorn
from fastapi import FastAPI
from sqlalchemy import text
from sqlmodel import col, select

from catalysis import Database, DatabaseDep, DatabaseSettings, activity
from catalysis.inspector import PATH
from catalysis.starter.app.main import create_app
from catalysis.starter.app.models import Task, User
from catalysis.starter.app.prepare import prepare
from catalysis.starter.app.seed import DEMO_PASSWORD
from catalysis.starter.app.settings import AppSettings
from tests.servers import free_port

T = TypeVar("T")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
FRESH = httpx.Limits(max_keepalive_connections=0)
"""The server closes a connection after an error, and a request sent at that moment would fail."""
SETTINGS = AppSettings.load(secret_key="only for tests, and long enough for HS256")


def find_browser() -> str | None:
    """Where a Chromium is: what CHROMIUM names, or one on the path."""
    return os.environ.get("CHROMIUM") or next(
        (found for name in BROWSERS if (found := shutil.which(name))), None
    )


@activity(display_name="Count open tasks")
async def count_open_tasks(database: Database) -> int:
    async with database.session() as db:
        return len((await db.exec(select(Task.id).where(col(Task.completed).is_(False)))).all())


def add_routes(app: FastAPI, database: Database) -> None:
    """What a starter has no need of, and an inspector must show."""

    @app.get("/demo/owners")
    async def list_owners(db: DatabaseDep, limit: int = 20) -> list[str]:
        tasks = (await db.exec(select(Task).limit(limit))).all()
        names = []
        for task in tasks:
            owner = (await db.exec(select(User).where(User.id == task.user_id))).one()  # the query in a loop
            names.append(owner.username)
        return names

    @app.get("/demo/search/{title}")
    async def search(db: DatabaseDep, title: str, wanted: str = "") -> int:
        found = select(Task).join(User).where(col(Task.title).contains(wanted or title))
        tasks = (await db.exec(found.order_by(col(Task.title)))).all()
        await db.execute(text(f"SELECT count(*) FROM task WHERE title = '{title}' OR priority = 48151623"))
        return len(tasks)

    @app.get("/demo/fail/{value}")
    async def fail(db: DatabaseDep, value: str) -> None:
        await db.execute(text("SELECT * FROM no_such_table WHERE x = :value"), {"value": value})

    @app.get("/demo/hold")
    async def hold(db: DatabaseDep, seconds: float = 5) -> None:
        task = (await db.exec(select(Task).limit(1))).one()
        task.description = "held"
        await db.flush()
        await asyncio.sleep(seconds)
        await db.rollback()

    @app.post("/demo/activity")
    async def run_activity() -> int:
        context = asyncio.get_running_loop()
        return await context.create_task(count_open_tasks(database))


@dataclass
class Served:
    """A running server and those who use it."""

    url: str
    database_url: str
    client: httpx.Client
    bearer: dict[str, str] = field(default_factory=dict)

    @property
    def panel(self) -> str:
        return self.url + PATH

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.client.get(path, headers=self.bearer, **options)


@contextmanager
def served(
    url: str, *, host: str = "127.0.0.1", inspector: bool = True, show_parameters: bool = False
) -> Iterator[Served]:
    """The starter on the database at `url`, with demo data."""
    database = Database(DatabaseSettings.load(url=url, inspector=inspector))
    apart(_prepare(database))
    if show_parameters:
        from catalysis.inspector import add_inspector

        app = create_app(SETTINGS, Database(url))
        add_inspector(app, database, enabled=True, show_parameters=True)
        app.state.database = database
    else:
        app = create_app(SETTINGS, database)
    add_routes(app, database)
    port = free_port()
    config = uvicorn.Config(app, host=host, port=port, log_level="critical", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        until = time.monotonic() + 20
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            assert time.monotonic() < until, "the server did not start in time"
            time.sleep(0.02)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20, limits=FRESH) as client:
            login = client.post("/auth/token", data={"username": "admin", "password": DEMO_PASSWORD})
            bearer = {"Authorization": f"Bearer {login.json()['access_token']}"}
            yield Served(f"http://127.0.0.1:{port}", url, client, bearer)
    finally:
        server.should_exit = True
        thread.join(20)


def apart(work: Coroutine[Any, Any, T]) -> T:
    """Its result, awaited in a thread of its own: here a loop may be running."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


async def _prepare(database: Database) -> None:
    await prepare(database, with_demo=True)
    await database.close()
