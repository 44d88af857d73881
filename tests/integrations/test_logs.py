"""Records say what is known of a statement, and never a value."""

import json
import logging

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel import select

from catalysis import Database, DatabaseDep
from catalysis.events import is_heard
from catalysis.integrations.fastapi import lifespan
from catalysis.integrations.logs import JsonFormatter, log_statements
from tests.models import Label


@pytest.fixture
def statements(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "catalysis.statements")
    end = log_statements()
    yield caplog
    end()
    assert not is_heard()


async def test_the_fields_of_a_record(database: Database, statements: pytest.LogCaptureFixture):
    async with database.session() as session:
        await session.exec(select(Label).where(Label.name == "canary"))
        await session.execute(text("SELECT 1 WHERE 'canary' = 'x'"))
        with pytest.raises(DBAPIError):
            await session.execute(text("SELECT 'canary' FROM nowhere"))
    native, fallback, failed = statements.records
    assert native.getMessage().startswith("SELECT label: ")
    assert native.getMessage().endswith(" ms, 0 rows")
    said = vars(native)
    assert said["sql"].startswith("SELECT label.id")
    assert (said["rows"], said["native"], said["reason"], said["error"]) == (0, True, None, None)
    assert (said["file"], said["transaction"], said["scope"]) == (__file__, None, None)
    assert said["line"] > 0
    assert 0 < said["seconds"] < 5
    assert fallback.sql == "SELECT ? WHERE ? = ?"
    assert fallback.reason
    assert fallback.transaction > 0
    assert [each.levelname for each in statements.records] == ["INFO", "INFO", "WARNING"]
    assert failed.error in ("OperationalError", "ProgrammingError")
    formatter = JsonFormatter()
    shown = [formatter.format(each) for each in statements.records]
    assert "canary" not in "".join(shown) + statements.text
    assert json.loads(shown[0])["sql"] == native.sql
    assert set(json.loads(shown[0])) == {
        "time", "level", "logger", "message", "sql", "seconds", "rows", "native", "reason", "error", "file", "line",
        "scope", "transaction", "database",
    }  # fmt: skip


async def test_the_scope(database: Database, statements: pytest.LogCaptureFixture):
    app = FastAPI(lifespan=lifespan(database))

    @app.get("/labels/{name}")
    async def labels(name: str, db: DatabaseDep) -> int:
        return len((await db.exec(select(Label).where(Label.name == name))).all())

    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        await client.get("/labels/canary")
    (record,) = statements.records
    assert "canary" not in JsonFormatter().format(record)
    assert record.scope == "GET /labels/{name}"


async def test_a_logger_that_is_not_enabled_gets_nothing(
    database: Database, caplog: pytest.LogCaptureFixture
):
    logger = logging.getLogger("tests.statements")
    caplog.set_level(logging.WARNING, logger.name)
    end = log_statements(logger, level=logging.DEBUG)
    async with database.session() as session:
        await session.exec(select(Label))
    end()
    assert caplog.records == []


async def test_a_filter_that_fails_fails_no_statement(
    database: Database, statements: pytest.LogCaptureFixture
):
    def fail(record: logging.LogRecord) -> bool:
        raise ZeroDivisionError

    logger = logging.getLogger("catalysis.statements")
    logger.addFilter(fail)
    try:
        async with database.session() as session:
            assert (await session.exec(select(Label))).all() == []
            await session.execute(text("SELECT 1"))
    finally:
        logger.removeFilter(fail)
    assert statements.records == []


def test_json_has_the_traceback_and_what_json_does_not_know():
    try:
        raise ZeroDivisionError
    except ZeroDivisionError as error:
        record = logging.LogRecord(
            "a", logging.ERROR, "f.py", 1, "%s ü", ("m",), (type(error), error, error.__traceback__)
        )
    record.when = {1, 2}
    said = json.loads(JsonFormatter().format(record))
    assert (said["message"], said["level"], said["when"]) == ("m ü", "ERROR", "{1, 2}")
    assert "ZeroDivisionError" in said["traceback"]
    assert said["time"].endswith("+00:00")
