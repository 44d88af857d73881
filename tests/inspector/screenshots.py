"""The pictures of docs/inspector.md: `python -m tests.inspector.screenshots` makes them anew.

The starter on PostgreSQL with 60,000 tasks more than usual, used a little, and looked at in Chromium.
"""

import asyncio
import random
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from playwright.async_api import Page, async_playwright
from sqlmodel import select, text

from catalysis import Database, bulk_insert
from catalysis.inspector import PATH
from catalysis.starter.app.models import Category, Task, TaskStatus, User
from tests.inspector.served import ARGUMENTS, Served, apart, find_browser, served
from tests.servers import PostgresServer

FOLDER = Path(__file__).parents[2] / "docs" / "images"
MANY = 60_000
WIDE = {"width": 1280, "height": 800}
PHONE = {"width": 360, "height": 740}


async def add_tasks(url: str) -> None:
    """Many, so that a plan has something to choose."""
    chance = random.Random(7)
    database = Database(url)
    async with database.session() as db:
        users = (await db.exec(select(User.id))).all()
        categories = (await db.exec(select(Category.id))).all()
        tasks = (
            {
                "title": f"Water plant {n}",
                "description": "",
                "status": TaskStatus.todo,
                "completed": False,
                "priority": n % 5 + 1,
                "created_at": datetime.now(UTC) - timedelta(minutes=n),
                "user_id": chance.choice(users),
                "category_id": chance.choice(categories),
            }
            for n in range(MANY)
        )
        await bulk_insert(db, Task, tasks)
        await db.commit()
        await db.execute(text("ANALYZE"))
        await db.commit()
    await database.close()


def use(server: Served) -> None:
    """Requests as a developer makes them."""
    chance = random.Random(3)
    paths = (
        "/tasks",
        "/tasks/feed",
        "/tasks/statistics",
        "/users",
        "/categories",
        "/groups",
        "/auth/me",
        "/roles",
    )
    for _ in range(30):
        server.get(chance.choice(paths))
        time.sleep(chance.random() / 20)
    for n in range(30):
        server.get("/demo/search/plant", params={"wanted": f"plant {n * 997}"})
    server.get("/tasks/01a21216-ff8a-78fe-84e1-2a16bc627557")
    server.get("/demo/fail/something")
    server.client.post("/tasks", headers=server.bearer, json={"title": "Water the plants"})
    server.client.post("/demo/activity")
    server.get("/demo/owners")
    server.get("/tasks")


class Camera:
    """One window, whose pictures go to the docs."""

    def __init__(self, page: Page, server: Served) -> None:
        self.page, self.panel = page, server.panel

    async def shoot(self, name: str, *, whole: bool = False) -> None:
        await self.page.wait_for_load_state("load")
        await self.page.mouse.move(0, 0)
        await self.page.wait_for_timeout(300)
        await self.page.screenshot(path=FOLDER / f"inspector-{name}.png", full_page=whole)

    async def list(self, path: str, name: str) -> None:
        await self.page.goto(self.panel + path)
        await self.shoot(name)

    async def row(self, path: str, text: str, name: str) -> None:
        """The page behind the first row with such a text."""
        await self.page.goto(self.panel + path)
        await self.page.locator("tbody a", has_text=text).first.click()
        await self.shoot(name, whole=True)


async def take_all(server: Served) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_browser(), args=list(ARGUMENTS))

        async def camera(size: dict[str, int], scheme: str, scale: int = 1) -> Camera:
            context = await browser.new_context(viewport=size, color_scheme=scheme, device_scale_factor=scale)
            return Camera(await context.new_page(), server)

        light, dark, phone = (
            await camera(WIDE, "light"),
            await camera(WIDE, "dark"),
            await camera(PHONE, "light", 2),
        )
        await light.list("/", "requests")
        await light.list("/transactions", "transactions")
        await light.row("/", "/demo/owners", "repeated")
        await light.row("/statements", "LIKE", "statement")
        await dark.list("/statements", "statements-dark")
        await phone.row("/", "/demo/owners", "phone")
        await browser.close()


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    postgres = PostgresServer.start()
    try:
        with served(postgres.url()) as server:
            apart(add_tasks(postgres.url()))
            own = {"origin": server.url, "sec-fetch-site": "same-origin"}
            server.client.post(PATH + "/clear", headers=own)
            server.client.post("/auth/token", data={"username": "ada", "password": "wrong"})
            use(server)
            holding = threading.Thread(target=server.get, args=("/demo/hold?seconds=9",))
            holding.start()
            time.sleep(1.5)
            asyncio.run(take_all(server))
            holding.join()
    finally:
        postgres.stop()


if __name__ == "__main__":
    main()
