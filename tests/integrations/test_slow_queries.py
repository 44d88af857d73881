"""A slow statement is logged with its plan, at nobody's cost, and without a value."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel import select

from catalysis import Database, DatabaseDep, DatabaseSettings, watch_queries
from catalysis.events import current_scope, is_heard
from catalysis.integrations.fastapi import lifespan
from catalysis.integrations.logs import JsonFormatter
from catalysis.integrations.slow_queries import SlowQueryLog, log_slow_queries
from tests.models import Label, made

SLOW = 0.1
SLEEP = {
    "postgresql": "SELECT pg_sleep(0.2)",
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000) SELECT max(i) FROM n",
}


def slow_statement(database: Database):
    if database.address.system == "sqlite":
        recursive = SLEEP["sqlite"].removeprefix("WITH RECURSIVE ").partition(" SELECT max")[0]
        return text(
            f"WITH RECURSIVE {recursive} SELECT label.name FROM label WHERE label.name <> 'canary' "
            "AND (SELECT max(i) FROM n) > 20770613 - 20770613 AND :p <> ''"
        )
    return text(
        "SELECT label.name FROM (SELECT pg_sleep(0.2) OFFSET 0) AS s, label "
        "WHERE label.name <> 'canary' AND length(label.name) <> 20770613 AND label.name <> CAST(:p AS TEXT)"
    )


@pytest.fixture
async def filled(database: Database) -> Database:
    async with database.session() as session:
        session.add_all([Label(name="a"), Label(name="b")])
        await session.commit()
    return database


@pytest.fixture
async def slow(filled: Database, caplog: pytest.LogCaptureFixture) -> AsyncIterator[SlowQueryLog]:
    caplog.set_level(logging.DEBUG, "catalysis.slow")
    log = log_slow_queries(filled, SLOW)
    yield log
    await log.close()
    assert not is_heard()
    assert tasks() == []


def tasks() -> list[asyncio.Task]:
    return [task for task in asyncio.all_tasks() if "SlowQueryLog" in repr(task)]


async def send(database: Database) -> None:
    async with database.session() as session:
        await session.execute(slow_statement(database), {"p": "canary parameter"})


async def planned() -> None:
    """Wait for the plans that are being made."""
    await asyncio.sleep(0)
    await asyncio.gather(*tasks())


async def test_a_slow_statement_and_its_plan(filled: Database, slow: SlowQueryLog, caplog):
    async with filled.session() as session:
        await session.exec(select(Label))
    await send(filled)
    await planned()
    first, second = caplog.records
    assert (first.levelname, second.levelname) == ("WARNING", "WARNING")
    assert first.getMessage().startswith("Slow: ")
    assert first.seconds >= SLOW
    assert (first.file, first.line > 0, first.rows in (2, None)) == (__file__, True, True)
    assert not hasattr(first, "plan")
    assert (second.sql, second.seconds, second.file, second.line) == (
        first.sql,
        first.seconds,
        first.file,
        first.line,
    )
    assert "label" in second.plan
    assert second.plan in second.getMessage()
    if filled.address.system == "postgresql":
        assert "label" in second.plan
        assert " <> ?" in second.plan
        assert "$1" in second.plan, "it is the plan for any values"
        assert "cost=" in second.plan
    else:
        assert "SCAN label" in second.plan
    assert isinstance(second.findings, list)
    shown = caplog.text + "".join(JsonFormatter().format(each) for each in caplog.records)
    assert "canary" not in shown
    assert "20770613" not in shown


async def test_a_statement_is_explained_once_in_a_while(filled: Database, slow: SlowQueryLog, caplog):
    for _ in range(2):
        await send(filled)
        await planned()
    assert [hasattr(each, "plan") for each in caplog.records] == [False, True, False]


async def test_and_again_after_it(filled: Database, caplog):
    caplog.set_level(logging.WARNING, "catalysis.slow")
    async with log_slow_queries(filled, SLOW, plan_every=0):
        for _ in range(2):
            await send(filled)
            await planned()
    assert [hasattr(each, "plan") for each in caplog.records] == [False, True] * 2


async def test_without_plans(filled: Database, caplog):
    async with log_slow_queries(filled, SLOW, plan=False):
        await send(filled)
        await planned()
    assert [hasattr(each, "plan") for each in caplog.records] == [False]


async def test_nobody_else_hears_of_the_plan(filled: Database, slow: SlowQueryLog):
    with watch_queries() as queries:
        await send(filled)
        await planned()
    assert len(queries) == 1


async def test_the_plan_is_logged_in_the_context_of_the_statement(filled: Database, slow: SlowQueryLog):
    """As filters want it that add a request's id to each record."""
    seen = []

    class Filter(logging.Filter):
        def filter(self, record):
            seen.append((hasattr(record, "plan"), current_scope() and current_scope().name))
            return True

    logger, added = logging.getLogger("catalysis.slow"), Filter()
    logger.addFilter(added)
    app = FastAPI(lifespan=lifespan(filled))

    @app.get("/slow")
    async def route(db: DatabaseDep) -> None:
        await db.execute(slow_statement(filled), {"p": "x"})

    try:
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
        ):
            assert (await client.get("/slow")).status_code == 200
            await planned()
    finally:
        logger.removeFilter(added)
    assert seen == [(False, "GET /slow"), (True, "GET /slow")]


async def test_a_handler_that_raises_does_no_harm(filled: Database, slow: SlowQueryLog):
    class Filter(logging.Filter):
        def filter(self, record):
            if record.levelno >= logging.WARNING:
                raise ZeroDivisionError
            return True

    logger, added = logging.getLogger("catalysis.slow"), Filter()
    logger.addFilter(added)
    try:
        await send(filled)
        await planned()
    finally:
        logger.removeFilter(added)


async def test_what_cannot_be_explained_is_left_at_debug(filled: Database, slow: SlowQueryLog, caplog):
    """A temporary table is on the statement's connection alone."""
    async with filled.engine.connect() as connection:
        await connection.execute(text("CREATE TEMPORARY TABLE mine (a TEXT)"))
        await connection.execute(text("INSERT INTO mine VALUES ('a')"))
        sleep = str(slow_statement(filled)).replace("label.name", "mine.a").replace("label", "mine")
        await connection.execute(text(sleep), {"p": "canary"})
        await planned()
    assert [each.levelname for each in caplog.records] == ["WARNING", "DEBUG"]
    assert "ExplainError" in caplog.records[1].getMessage()
    assert "canary" not in caplog.text


async def test_no_plan_for_what_has_none(filled: Database, caplog):
    caplog.set_level(logging.DEBUG, "catalysis.slow")
    async with log_slow_queries(filled, 1e-9):
        async with filled.engine.begin() as connection:
            await connection.execute(text("CREATE TABLE made (a TEXT)"))
            await connection.execute(text("SAVEPOINT a"))
        await planned()
    assert {each.levelname for each in caplog.records} == {"WARNING"}
    assert not any(hasattr(each, "plan") for each in caplog.records)


async def test_an_exhausted_pool_is_left_alone(backend_url: str, caplog):
    settings = DatabaseSettings(url=backend_url, pool_size=2, max_overflow=0, pool_timeout=5)
    async with made(settings) as database, log_slow_queries(database, 1e-9) as log:
        async with database.engine.connect() as one, database.engine.connect() as other:
            await one.execute(text("SELECT 1"))
            await other.execute(text("SELECT 2"))
            started = asyncio.get_running_loop().time()
            await planned()
            assert database.pool_figures().lent == 2
        async with database.engine.connect() as one:  # the last connection is left to the application
            await one.execute(text("SELECT 1"))
            await planned()
        await log.close()
        assert asyncio.get_running_loop().time() - started < 2
    assert [hasattr(each, "plan") for each in caplog.records] == [False] * 3


async def test_at_most_a_few_plans_at_a_time(filled: Database, monkeypatch):
    running = most = 0
    release = asyncio.Event()

    async def explain_slowly(engine, sql):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await release.wait()
        running -= 1
        raise ZeroDivisionError

    monkeypatch.setattr("catalysis.integrations.slow_queries.explain_sql", explain_slowly)
    async with log_slow_queries(filled, 1e-9):
        async with filled.session() as session:
            for n in range(10):
                await session.execute(text(f"SELECT {n}"))
        release.set()
        await planned()
    assert most == 2


async def test_closing_ends_the_plans(filled: Database, monkeypatch):
    begun = asyncio.Event()

    async def explain_forever(engine, sql):
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr("catalysis.integrations.slow_queries.explain_sql", explain_forever)
    log = log_slow_queries(filled, SLOW)
    await send(filled)
    await begun.wait()
    assert len(tasks()) == 1
    await log.close()
    assert tasks() == []
    await log.close()
    assert not is_heard()


async def test_closing_before_a_plan_has_begun(filled: Database, caplog):
    log = log_slow_queries(filled, 1e-9)
    async with filled.engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        await log.close()
    await asyncio.sleep(0.01)
    assert tasks() == []
    assert [hasattr(each, "plan") for each in caplog.records] == [False]


async def test_only_its_own_database(filled: Database, slow: SlowQueryLog, caplog, tmp_path):
    other = Database(f"sqlite:///{tmp_path / 'other.db'}")
    async with other.engine.connect() as connection:
        await connection.execute(text(SLEEP["sqlite"]))
    await other.close()
    assert caplog.records == []


async def test_a_database_in_memory_has_no_second_connection(caplog):
    async with made("sqlite://") as database, log_slow_queries(database, 1e-9), database.session() as session:
        session.add(Label(name="a"))
        await session.flush()
        await session.execute(text("SELECT 1 FROM label"))
        await planned()
        await session.commit()
        assert len((await session.exec(select(Label))).all()) == 1
    assert not any(hasattr(each, "plan") for each in caplog.records)


async def test_settings_start_it_with_the_application(backend_url: str, caplog, monkeypatch):
    monkeypatch.setenv("DATABASE_SLOW_QUERY_SECONDS", str(SLOW))
    settings = DatabaseSettings(url=backend_url)
    assert settings.slow_query_seconds == SLOW
    async with made(settings) as database:
        async with database.session() as session:
            session.add(Label(name="a"))
            await session.commit()
        app = FastAPI(lifespan=lifespan(database))

        @app.get("/slow")
        async def route(db: DatabaseDep) -> None:
            await db.execute(slow_statement(database), {"p": "x"})

        async with app.router.lifespan_context(app):
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(app), base_url="http://test"
            ) as client:
                await client.get("/slow")
            await planned()
            assert is_heard()
        assert not is_heard()
    assert [
        (each.scope, hasattr(each, "plan")) for each in caplog.records if each.name == "catalysis.slow"
    ] == [
        ("GET /slow", False),
        ("GET /slow", True),
    ]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are of Python 3.12")
async def test_with_eager_tasks(filled: Database, slow: SlowQueryLog, caplog):
    loop = asyncio.get_running_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    await send(filled)
    await asyncio.sleep(0.2)
    loop.set_task_factory(None)
    assert [hasattr(each, "plan") for each in caplog.records] == [False, True]


async def test_findings_are_logged_without_literals(postgres_url: str, caplog: pytest.LogCaptureFixture):
    async with made(postgres_url) as database:
        async with database.engine.begin() as connection:
            rows = "SELECT gen_random_uuid(), now(), now(), 'label ' || n FROM generate_series(1, 20000) n"
            await connection.execute(text(f"INSERT INTO label (id, created_at, updated_at, name) {rows}"))
            await connection.execute(text("ANALYZE label"))
        async with log_slow_queries(database, 1e-9), database.session() as session:
            sql = "SELECT id FROM label WHERE reverse(name) = 'it''s canary' AND length(name) <> 20770613"
            await session.execute(text(sql))
            await planned()
    (record,) = (each for each in caplog.records if hasattr(each, "plan"))
    (finding,) = record.findings
    assert "label" in finding
    assert "= ?::text" in finding
    assert finding in record.getMessage()
    assert "canary" not in caplog.text
    assert "20770613" not in caplog.text + str(vars(record))


def test_one_loop_after_another(tmp_path, caplog: pytest.LogCaptureFixture):
    database = Database(f"sqlite:///{tmp_path / 'a.db'}")
    log = log_slow_queries(database, 1e-9, plan_every=0)

    async def send_and_close() -> None:
        async with database.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            await planned()
        await database.close()

    for _ in range(2):
        asyncio.run(send_and_close())
    asyncio.run(log.close())
    assert [hasattr(each, "plan") for each in caplog.records] == [False, True] * 2


async def test_a_statement_that_fails_late_is_slow_too(postgres_url: str, caplog: pytest.LogCaptureFixture):
    settings = DatabaseSettings(url=postgres_url, statement_timeout=0.2)
    async with made(settings) as database, log_slow_queries(database, SLOW):
        with pytest.raises(DBAPIError):
            async with database.session() as session:
                await session.execute(
                    text("SELECT pg_sleep(20) FROM label RIGHT JOIN (SELECT 1) AS a ON true")
                )
        await planned()
    assert [each.error is not None for each in caplog.records] == [True, True]
    assert "Seq Scan on label" in caplog.records[1].plan
