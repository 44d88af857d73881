"""Observers hear of transactions and scopes with the statements in them, and hearing changes nothing."""

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import create_engine, func, literal, text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, PendingRollbackError
from sqlalchemy.pool import StaticPool
from sqlmodel import select

from catalysis import Database, DatabaseDep, activity, uuid7
from catalysis.events import Observer, observe, open_transactions
from catalysis.integrations.asgi import ManagedScope
from catalysis.integrations.fastapi import lifespan
from tests.models import Label, Person


class Heard(Observer):
    def __init__(self) -> None:
        self.statements, self.begun, self.ended, self.started, self.closed = [], [], [], [], []
        self.parameters = []

    def on_statement(self, happened, parameters):
        self.statements.append(happened)
        self.parameters.append(parameters)

    def on_transaction_begun(self, transaction):
        self.begun.append(transaction)

    def on_transaction_ended(self, happened):
        self.ended.append(happened)

    def on_scope_started(self, scope):
        self.started.append(scope)

    def on_scope_ended(self, happened):
        self.closed.append(happened)


@pytest.fixture
def heard():
    observer = Heard()
    end = observe(observer)
    yield observer
    end()
    assert open_transactions() == []


async def test_a_transaction_is_told_of_with_its_statements(database: Database, heard: Heard):
    async with database.session() as session:
        session.add_all([Label(name="a"), Label(name="b")])
        await session.flush()
        assert [each.scope for each in open_transactions()] == [None]
        await session.execute(text("SELECT 1"))
        await session.commit()
        await session.exec(select(Label))
    (ended,) = heard.ended
    assert [ended.transaction] == heard.begun
    assert (ended.outcome, ended.transaction.site.function) == (
        "commit",
        "test_a_transaction_is_told_of_with_its_statements",
    )
    in_it = [each.transaction is ended.transaction for each in heard.statements]
    assert in_it == [True, True, False]  # the last read is outside of any
    assert 0 <= ended.seconds < 5
    for each in heard.statements:
        assert ended.transaction.started - 5 < each.started < ended.transaction.started + 5


async def test_a_rollback_and_a_connection_of_the_engine_are_told_of(database: Database, heard: Heard):
    async def fail() -> None:
        async with database.engine.begin() as connection:
            await connection.execute(text("SELECT 1"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert [each.outcome for each in heard.ended] == ["rollback"]
    assert heard.statements[-1].transaction is heard.begun[-1]


async def test_a_refused_commit_is_told_of_as_a_rollback(postgres: Database, heard: Heard):
    """Mutation seen to fail: `_commit_failed` does nothing."""
    unique = text("CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    async with postgres.engine.begin() as connection:
        await connection.execute(unique)
    assert [each.outcome for each in heard.ended] == ["commit"]
    async with postgres.session() as session:
        await session.execute(text("INSERT INTO late VALUES (1), (1)"))
        with pytest.raises(IntegrityError):
            await session.commit()
        await session.rollback()
    assert [each.outcome for each in heard.ended] == ["commit", "rollback"]


async def test_a_commit_on_a_connection_that_is_kept_is_told_of_with_the_next_begin(
    database: Database, heard: Heard
):
    async with database.engine.connect() as connection:
        for _ in range(2):
            await connection.execute(text("SELECT 1"))
            await connection.commit()
    assert [each.outcome for each in heard.ended] == ["commit", "commit"]
    assert [each.transaction for each in heard.ended] == heard.begun


async def test_hearing_takes_no_read_into_a_transaction(database: Database, heard: Heard):
    async with database.session() as session:
        await session.exec(select(Person))
        await asyncio.gather(*(session.get(Label, uuid7()) for _ in range(3)))
        assert heard.begun == []
        session.add(Label(name="alone"))
        await session.commit()
    assert all(each.native and each.transaction is None for each in heard.statements)
    assert heard.begun == []  # one row, by itself


async def test_values_are_beside_the_event_and_not_in_it(database: Database, heard: Heard):
    async with database.session() as session:
        await session.exec(select(Label).where(Label.name == "canary"))
        await session.execute(text("SELECT 1 WHERE 'x' = :y"), {"y": "canary"})
        session.add_all([Label(name="canary 1"), Label(name="canary 2")])
        await session.commit()
    assert "canary" not in repr(heard.statements)
    assert all("canary" in repr(each) for each in heard.parameters)


async def test_which_database(database: Database, heard: Heard):
    async with database.session() as session:
        await session.exec(select(Label))
        await session.execute(text("SELECT 1"))
    url = database.engine.url
    for each in heard.statements:
        address = each.database
        assert (address.system, address.name) == (url.get_backend_name(), url.database)
        assert (address.host, address.port) == (url.host, url.port)


async def test_a_request_is_a_scope(database: Database, heard: Heard):
    app = FastAPI(lifespan=lifespan(database))

    @app.get("/labels/{secret}")
    async def read(secret: str, db: DatabaseDep) -> int:
        return len((await db.exec(select(Label))).all())

    @app.get("/broken")
    async def broken(db: DatabaseDep) -> None:
        await db.exec(select(Label))
        raise ZeroDivisionError

    async with app.router.lifespan_context(app):
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")
        assert (await client.get("/labels/canary")).status_code == 200
        assert (await client.get("/labels/canary/more")).status_code == 404
        with pytest.raises(ZeroDivisionError):
            await client.get("/broken")
    told = [(each.scope.kind, each.scope.name, each.outcome) for each in heard.closed]
    assert told == [
        ("request", "GET /labels/{secret}", "200"),
        ("request", "GET /labels/…/…", "404"),
        ("request", "GET /broken", "ZeroDivisionError"),
    ]
    assert heard.started == [each.scope for each in heard.closed]
    assert [each.scope for each in heard.statements] == [heard.started[0], heard.started[2]]


async def test_a_mounted_route_is_told_of_with_where_it_is_mounted(heard: Heard):
    """Mutation seen to fail: `_mounted_at` returns nothing."""
    outer, inner, innermost = FastAPI(), FastAPI(), FastAPI()

    @innermost.get("/items/{key}")
    @inner.get("/items/{key}")
    @outer.get("/items/{key}")
    async def read(key: str) -> str:
        return key

    inner.mount("/{tenant}/deep", innermost)
    outer.mount("/api", inner)
    transport = httpx.ASGITransport(ManagedScope(outer), root_path="/proxy")
    client = httpx.AsyncClient(transport=transport, base_url="http://test")
    for path in ("/items/canary", "/api/items/canary", "/api/canary/deep/items/7"):
        assert (await client.get(f"/proxy{path}")).status_code == 200
    assert [each.scope.name for each in heard.closed] == [
        "GET /items/{key}",
        "GET /api/items/{key}",
        "GET /api/{tenant}/deep/items/{key}",
    ]


async def test_a_path_without_a_route_shows_no_parameter_however_it_is_written(heard: Heard):
    async def answer(scope, receive, send):  # as a router of Starlette before 1.0 leaves it
        scope["path_params"] = {"key": UUID(int=0xABC), "word": "o", "n": 7, "rest": ""}
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    client = httpx.AsyncClient(transport=httpx.ASGITransport(ManagedScope(answer)), base_url="http://test")
    await client.get(f"/one/{UUID(int=0xABC)}/o/007/7")
    await client.get(f"/one/{str(UUID(int=0xABC)).upper()}/o/7/")
    assert [each.scope.name for each in heard.closed] == ["GET /…/{key}/{word}/…/{n}", "GET /…/…/{word}/{n}/"]


async def test_an_activity_is_a_scope_and_its_tasks_belong_to_it(database: Database, heard: Heard):
    async def read() -> None:
        async with database.session() as session:
            await session.exec(select(Label))

    @activity(display_name="Count labels")
    async def count() -> None:
        await asyncio.gather(read(), read())

    await count()
    (ended,) = heard.closed
    assert (ended.scope.kind, ended.scope.name, ended.outcome) == ("activity", "Count labels", "done")
    assert [each.scope for each in heard.statements] == [ended.scope] * 2
    await read()
    assert heard.statements[-1].scope is None


async def test_no_more_is_heard_after_the_end(database: Database):
    observer = Heard()
    end = observe(observer)
    end()
    end()
    async with database.session() as session:
        await session.exec(select(Label))
    assert observer.statements == []


async def test_a_statement_that_is_cancelled_is_told_of(database: Database, heard: Heard):
    if database.engine.dialect.name == "postgresql":
        slow = select(func.pg_sleep(30))
    else:
        endless = select(literal(1).label("n")).cte("endless", recursive=True)
        slow = select(func.count()).select_from(endless.union_all(select(endless.c.n + 1)))
    async with database.session() as session:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await session.exec(slow)
    assert [each.error for each in heard.statements] == ["CancelledError"]
    assert heard.statements[0].seconds > 0.1


async def test_a_transaction_of_two_phases_is_one(postgres_url: str, heard: Heard):
    def work(connection: Connection) -> None:
        twice = connection.begin_twophase("one")
        connection.execute(text("CREATE TABLE two_phases (id int)"))
        assert [each.database.system for each in open_transactions()] == ["postgresql"]
        twice.prepare()
        twice.commit()
        twice = connection.begin_twophase("two")
        connection.execute(text("INSERT INTO two_phases VALUES (1)"))
        twice.rollback()

    database = Database(postgres_url)
    async with database.engine.connect() as connection:
        await connection.run_sync(work)
    await database.close()
    assert [each.outcome for each in heard.ended] == ["commit", "rollback"]
    sent = {each.sql.split()[0]: each.transaction for each in heard.statements}
    assert [sent["CREATE"], sent["INSERT"]] == heard.begun


async def test_a_lost_connection_commits_nothing(postgres_url: str, heard: Heard):
    async def lose_connection() -> None:
        async with database.engine.begin() as connection:
            number = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
            async with database.engine.connect() as other:
                await other.execute(text(f"SELECT pg_terminate_backend({number})"))
            with pytest.raises(DBAPIError):
                await connection.execute(text("SELECT 1"))

    database = Database(postgres_url)
    with pytest.raises(PendingRollbackError):
        await lose_connection()
    await database.close()
    assert {each.transaction: each.outcome for each in heard.ended}[heard.begun[0]] == "rollback"


def test_beginning_and_ending_to_listen_fails_no_other_thread():
    failures: list[BaseException] = []
    until = time.monotonic() + 1.5

    def repeat(work: Callable[[], object]) -> None:
        try:
            while time.monotonic() < until:
                work()
        except BaseException as failure:
            failures.append(failure)

    engines = [
        create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
        for _ in range(2)
    ]
    heard = Heard()

    def send(engine: Engine) -> None:
        with engine.begin() as connection:
            connection.execute(text("SELECT 1"))

    def listen() -> None:
        observe(heard)()

    work = [*(partial(send, each) for each in engines), listen, listen, open_transactions]
    patience = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=repeat, args=[each]) for each in work]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    finally:
        sys.setswitchinterval(patience)
    assert failures == []
    with engines[0].connect() as connection:
        end = observe(heard)
        heard.statements.clear()
        connection.execute(text("SELECT 2"))
        end()
    assert [each.sql for each in heard.statements] == ["SELECT 2"]


async def test_who_observes_twice_ends_twice(database: Database):
    observer = Heard()
    ends = [observe(observer), observe(observer)]
    ends[0]()
    async with database.session() as session:
        await session.exec(select(Label))
    ends[1]()
    assert len(observer.statements) == 1
