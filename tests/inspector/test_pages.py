"""The pages of an application, asked for without a browser: what they show, and what never gets onto them."""

import re
from datetime import UTC, datetime

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import inspect, text
from sqlmodel import col, select

from catalysis import Database, DatabaseDep, activity
from catalysis.events import is_heard
from catalysis.inspector import PATH, Inspector, add_inspector
from catalysis.integrations.asgi import ManagedScope
from catalysis.integrations.fastapi import lifespan
from tests.models import Label, Person

CANARY = "canary-7f3a"
NEVER = datetime(1871, 3, 18, tzinfo=UTC)
OWN = {"origin": "http://localhost", "sec-fetch-site": "same-origin"}


def make_app(database: Database) -> FastAPI:
    app = FastAPI(lifespan=lifespan(database))

    @app.get("/people/{name}")
    async def people(name: str, db: DatabaseDep) -> int:
        for label in (await db.exec(select(Label))).all():
            await db.exec(select(Person).where(Person.name == label.name))
        await db.exec(select(Person).where(Person.name == name))
        await db.execute(text(f"SELECT 1 FROM person WHERE name = '{name}' AND 1 = 1 /* for {name} */"))
        return 1

    @app.post("/people")
    async def add(name: str, db: DatabaseDep) -> None:
        db.add_all([Label(name=name), Label(name=name + "2")])
        await db.commit()

    @app.get("/broken/{name}")
    async def broken(name: str, db: DatabaseDep) -> None:
        await db.execute(text("SELECT * FROM nowhere WHERE x = :name"), {"name": name})

    return app


class Seen:
    """An application with an inspector, running, and a browser without JavaScript."""

    def __init__(self, app: FastAPI, inspector: Inspector) -> None:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://localhost")
        self.inspector = inspector

    async def page(self, path: str = "/", **options: object) -> httpx.Response:
        return await self.client.get(PATH + path, **options)

    async def follow(self, path: str, pattern: str) -> str:
        """The first link of a page that matches, below the inspector's path."""
        found = re.search(f'href="{PATH}({pattern})"', (await self.page(path)).text)
        assert found is not None
        return found[1]

    async def crawl(self) -> dict[str, str]:
        """All pages that can be reached."""
        pages: dict[str, str] = {}
        waiting = ["/"]
        while waiting:
            path = waiting.pop()
            answer = await self.page(path)
            assert answer.status_code == 200, path
            pages[path] = answer.text
            links = re.findall(rf'href="{PATH}(/[^"#]*)"', answer.text)
            waiting += [link for link in dict.fromkeys(links) if link not in pages and link not in waiting]
        return pages


@pytest.fixture
async def seen(database: Database):
    app = make_app(database)
    inspector = add_inspector(app, database, enabled=True)
    async with app.router.lifespan_context(app):
        yield Seen(app, inspector)


async def test_what_a_request_sent(seen: Seen):
    for n in range(2):
        await seen.client.post("/people", params={"name": f"name{n}"})
    assert (await seen.client.get("/people/ada")).status_code == 200
    listed = (await seen.page()).text
    assert "/people/{name}" in listed
    assert "4\u00d7 repeated" in listed
    assert "1 fallback" in listed
    page = (await seen.page(await seen.follow("/", r"/scopes/\d+"))).text
    assert "select(Person).where(Person.name.in_(values))" in page
    assert re.search(r"tests/inspector/test_pages\.py:\d+", page)
    assert "fallback: not a SELECT" in page
    each = (await seen.page(await seen.follow("/", r"/scopes/\d+") + "?each")).text
    assert each.count(">repeated<") == 4


async def test_nothing_secret_is_on_any_page(seen: Seen):
    await seen.client.post("/people", params={"name": CANARY})
    await seen.client.get(f"/people/{CANARY}")
    await seen.client.get(f"/broken/{CANARY}")
    await seen.client.get(f"/nowhere/{CANARY}")
    await seen.client.get(f"/people/{CANARY}", headers={"authorization": CANARY})
    pages = await seen.crawl()
    assert len(pages) > 12
    for path, html in pages.items():
        assert CANARY not in html, path
    with seen.inspector.recorder.reading():
        recorder = seen.inspector.recorder
        assert CANARY not in repr([scope.executions for scope in recorder.scopes()])
        assert CANARY not in repr([(each.sql, each.short, each.parameters) for each in recorder.statements()])
    assert sum("PLAN" in html or "Scan" in html or "SCAN" in html for html in pages.values()) > 2


async def test_values_are_shown_when_that_is_asked_for(database: Database):
    app = make_app(database)
    inspector = add_inspector(app, database, enabled=True, show_parameters=True)
    async with app.router.lifespan_context(app):
        seen = Seen(app, inspector)
        await seen.client.get(f"/people/{CANARY}")
        assert sum(CANARY in html for html in (await seen.crawl()).values()) >= 3


async def test_a_fragment_is_sent_only_when_something_changed(seen: Seen):
    page = await seen.page()
    asked = {"fragment": "1", "since": page.headers["x-version"]}
    for _ in range(3):  # its own requests change nothing
        assert (await seen.page(params=asked)).status_code == 204
    await seen.client.get("/people/ada")
    changed = await seen.page(params=asked)
    assert changed.status_code == 200
    assert "<html" not in changed.text
    assert "/people/{name}" in changed.text


async def test_the_filter(seen: Seen):
    await seen.client.get("/people/ada")
    await seen.client.get("/broken/ada")
    rows = (await seen.page(params={"q": "people 200"})).text
    assert "/people/{name}" in rows
    assert "/broken/{name}" not in rows
    none = (await seen.page(params={"q": "<script>alert(1)</script>"})).text
    assert "<script>alert" not in none
    assert "&lt;script&gt;alert" in none
    statements = (await seen.page("/statements", params={"q": "from label", "sort": "calls"})).text
    assert "None holds" not in statements


@pytest.mark.parametrize(
    "order", ["total", "calls", "mean", "p95", "max", "rows", "native", "errors", "latest"]
)
async def test_statements_in_any_order(seen: Seen, order: str):
    await seen.client.get("/people/ada")
    assert (await seen.page("/statements", params={"sort": order})).status_code == 200
    assert (await seen.page("/statements", params={"sort": "name; DROP"})).status_code == 404


async def test_what_is_no_longer_kept(seen: Seen):
    await seen.client.get("/people/ada")
    scope, statement = (
        await seen.follow("/", r"/scopes/\d+"),
        await seen.follow("/statements", r"/statements/\d+"),
    )
    assert (await seen.client.post(PATH + "/clear", headers=OWN)).status_code == 303
    for path in (scope, statement):
        answer = await seen.page(path)
        assert (answer.status_code, "No longer kept" in answer.text) == (404, True)


async def test_an_activity_and_its_transaction(seen: Seen, database: Database):
    @activity(display_name="Count labels")
    async def work() -> None:
        async with database.session() as session:
            session.add_all([Label(name="a"), Label(name="b")])
            await session.flush()
            shown = (await seen.page("/transactions")).text
            assert "Count labels" in shown
            assert "None: no connection is held" not in shown
            assert "running" in (await seen.page()).text
            await session.commit()

    await work()
    shown = (await seen.page("/transactions")).text
    assert "None: no connection is held" in shown
    assert "commit" in shown
    assert "ACTIVITY" in (await seen.page()).text
    assert "T1" in (await seen.page(await seen.follow("/", r"/scopes/\d+"))).text


# --- Plans ----------------------------------------------------------------------------------------


async def test_analyze_executes_and_leaves_nothing(database: Database):
    app = make_app(database)

    @app.post("/rename")
    async def rename(db: DatabaseDep) -> None:
        await db.execute(
            text("UPDATE label SET name = :new WHERE name = :old"), {"new": "renamed", "old": "before"}
        )
        await db.rollback()

    inspector = add_inspector(app, database, enabled=True, show_parameters=True)
    async with app.router.lifespan_context(app):
        seen = Seen(app, inspector)
        async with database.session() as session:
            session.add(Label(name="before"))
            await session.commit()
        await seen.client.post("/rename")
        with inspector.recorder.reading():
            update = next(each for each in inspector.recorder.statements() if each.sql.startswith("UPDATE"))
        path = f"/statements/{update.number}"
        assert (await seen.client.post(PATH + path + "/analyze")).status_code == 403
        page = await seen.client.post(PATH + path + "/analyze", headers=OWN)
        assert page.status_code == 200
        if database.address.system == "postgresql":
            assert "executed and undone" in page.text
        async with database.session() as session:
            names = (
                await session.exec(select(Label.name).where(col(Label.name).in_(["before", "renamed"])))
            ).all()
        assert names == ["before"]


async def test_masked_statements_are_not_executed(seen: Seen):
    await seen.client.get("/people/ada")
    path = await seen.follow("/statements", r"/statements/\d+")
    assert "Explain analyze" not in (await seen.page(path)).text
    assert (await seen.client.post(PATH + path + "/analyze", headers=OWN)).status_code == 409


async def test_what_has_no_plan_says_so(seen: Seen):
    await seen.client.get(f"/broken/{CANARY}")
    path = await seen.follow("/statements", r"/statements/\d+")
    page = (await seen.page(path)).text
    assert "nowhere" in page
    assert "Failed 1 time" in page
    assert CANARY not in page


# --- Its life -------------------------------------------------------------------------------------


async def test_it_observes_while_the_application_runs_and_not_longer(database: Database):
    app = make_app(database)
    inspector = add_inspector(app, database, enabled=True)
    assert not is_heard()
    assert "Nothing is recorded" in (await Seen(app, inspector).page()).text
    for _ in range(2):
        async with app.router.lifespan_context(app):
            assert is_heard()
        assert not is_heard()


async def test_a_lifespan_that_fails_leaves_no_observer(database: Database):
    app = FastAPI(lifespan=lifespan(database, create_tables="no metadata"))
    add_inspector(app, database, enabled=True)
    with pytest.raises(AttributeError):
        async with app.router.lifespan_context(app):
            pass
    assert not is_heard()


async def test_without_a_framework(database: Database):
    inspector = Inspector(database)

    async def application(scope, receive, send):
        if scope["path"].startswith("/look"):
            await inspector({**scope, "root_path": "/look"}, receive, send)
            return
        async with database.session() as session:
            await session.exec(select(Label))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(ManagedScope(application)), base_url="http://localhost"
    )
    with inspector.observing():
        assert (await client.get("/labels")).status_code == 204
        page = (await client.get("/look/")).text
    assert "1 statement" in page
    assert 'href="/look/scopes/' in page
    assert "1 kept" in page


async def test_websockets_are_closed(database: Database):
    sent = []

    async def send(message):
        sent.append(message)

    inspector = Inspector(database)
    asked = {"type": "websocket", "path": "/x", "headers": [], "client": ("127.0.0.1", 1)}
    with inspector.observing():
        await ManagedScope(inspector)(asked, None, send)
    assert sent == [{"type": "websocket.close", "code": 1000}]
    with inspector.recorder.reading():
        assert inspector.recorder.scopes() == []


async def test_advice_is_tried_and_leaves_nothing(seen: Seen, database: Database):
    async with database.session() as session:
        session.add_all([Label(name=f"label {n}") for n in range(5_000)])
        await session.commit()
        await session.execute(text("ANALYZE"))
        await session.commit()

    @activity()
    async def look() -> None:
        async with database.session() as session:
            await session.exec(select(Label).where(Label.created_at == NEVER))

    await look()
    with seen.inspector.recorder.reading():
        sent = next(
            each for each in seen.inspector.recorder.statements() if "label.created_at = " in each.sql
        )
    path = f"{PATH}/statements/{sent.number}/advice"
    assert (await seen.client.post(path)).status_code == 403
    assert (await seen.client.get(path)).status_code == 405
    named = (await seen.client.post(path, headers=OWN)).text
    assert "CREATE" in named
    tried = (await seen.client.post(path + "?try", headers=OWN)).text
    assert "proved" in tried
    assert "by transaction" in tried
    assert str(NEVER.year) not in named + tried
    async with database.engine.connect() as connection:
        names = await connection.run_sync(
            lambda sync: [each["name"] for each in inspect(sync).get_indexes("label")]
        )
    assert not any("created_at" in str(name) for name in names), names


async def test_looking_rolls_back_nothing_where_all_share_a_connection():
    database = Database("sqlite+aiosqlite:///:memory:")
    await database.create_all(Label.metadata)
    app = FastAPI(lifespan=lifespan(database))
    inspector = add_inspector(app, database, enabled=True)
    assert inspector is not None
    seen = Seen(app, inspector)
    async with app.router.lifespan_context(app):
        async with database.session() as session:
            session.add(Label(name="kept"))
            await session.flush()
            path = await seen.follow("/statements", r"/statements/\d+")
            assert "one connection" in (await seen.page(path)).text
            for asked in ("/advice", "/advice?try"):
                answer = await seen.client.post(PATH + path + asked, headers=OWN)
                assert answer.status_code == 200
            await session.commit()
        async with database.session() as session:
            assert [each.name for each in (await session.exec(select(Label))).all()] == ["kept"]


async def test_literals_of_a_view_are_masked_in_the_plan(postgres_url: str):
    database = Database(postgres_url)
    await database.create_all(Label.metadata)
    async with database.engine.begin() as connection:
        await connection.execute(text(f"CREATE VIEW named AS SELECT * FROM label WHERE name = '{CANARY}'"))
    app = FastAPI(lifespan=lifespan(database))

    @app.get("/named")
    async def named(db: DatabaseDep) -> int:
        return len((await db.execute(text("SELECT * FROM named"))).all())

    inspector = add_inspector(app, database, enabled=True)
    assert inspector is not None
    seen = Seen(app, inspector)
    async with app.router.lifespan_context(app):
        assert (await seen.client.get("/named")).status_code == 200
        path = await seen.follow("/statements", r"/statements/\d+")
        shown = [await seen.page(path), await seen.client.post(PATH + path + "/advice?try", headers=OWN)]
    for each in shown:
        assert "&#39;…&#39;" in each.text
        assert CANARY not in each.text
