"""Spans and metrics of real statements, by OpenTelemetry's SDK in memory: where they belong and what they never say."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlmodel import select

from catalysis import Database, DatabaseDep, Session, bulk_insert, managed
from catalysis.events import is_heard
from catalysis.integrations import opentelemetry
from catalysis.integrations.fastapi import lifespan
from catalysis.integrations.opentelemetry import instrument
from tests.models import Job, Label, Person


@dataclass
class Telemetry:
    """An SDK that keeps what it is told."""

    database: Database
    tracers: TracerProvider
    meters: MeterProvider
    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader

    @classmethod
    def of(cls, database: Database) -> "Telemetry":
        exporter, reader, tracers = InMemorySpanExporter(), InMemoryMetricReader(), TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(exporter))
        return cls(database, tracers, MeterProvider([reader]), exporter, reader)

    def instrument(self, **options: Any):
        return instrument(self.database, tracer_provider=self.tracers, meter_provider=self.meters, **options)

    def outer(self, name: str = "outer"):
        return self.tracers.get_tracer("test").start_as_current_span(name)

    @property
    def spans(self) -> list[ReadableSpan]:
        """Those of statements."""
        return [span for span in self.exporter.get_finished_spans() if span.kind is SpanKind.CLIENT]

    def named(self, name: str) -> ReadableSpan:
        (found,) = (span for span in self.exporter.get_finished_spans() if span.name == name)
        return found

    def metrics(self) -> dict[str, list[Any]]:
        data = self.reader.get_metrics_data()
        return {
            metric.name: list(metric.data.data_points)
            for resource in (data.resource_metrics if data else [])
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def said(self) -> str:
        data = self.reader.get_metrics_data()
        return repr([span.to_json() for span in self.exporter.get_finished_spans()]) + (
            data.to_json() if data else ""
        )


@pytest.fixture
def telemetry(database: Database) -> Iterator[Telemetry]:
    found = Telemetry.of(database)
    end = found.instrument()
    yield found
    end()
    assert not is_heard()


def is_postgres(database: Database) -> bool:
    return database.address.system == "postgresql"


# --- What a span says -----------------------------------------------------------------------------


async def test_a_native_read(database: Database, telemetry: Telemetry):
    async with database.session() as session:
        session.add_all([Label(name="a"), Label(name="b")])
        await session.commit()
        telemetry.exporter.clear()
        await session.exec(select(Label).where(Label.name != "canary"))
    (span,) = telemetry.spans
    said = dict(span.attributes or {})
    assert (span.name, span.kind, span.status.status_code) == (
        "SELECT label",
        SpanKind.CLIENT,
        StatusCode.UNSET,
    )
    assert said.pop("db.query.text").startswith("SELECT label.id, ")
    assert said.pop("code.file.path") == __file__
    assert said.pop("code.line.number") > 0
    url = database.engine.url
    place = {"server.address": url.host, "server.port": url.port} if is_postgres(database) else {}
    assert said == place | {
        "db.system.name": url.get_backend_name(),
        "db.namespace": url.database,
        "db.query.summary": "SELECT label",
        "db.operation.name": "SELECT",
        "db.collection.name": "label",
        "db.response.returned_rows": 2,
        "catalysis.native": True,
        "code.function.name": "test_a_native_read",
    }
    assert 0 < span.end_time - span.start_time < 5e9


async def test_a_fallback_says_why_and_in_which_transaction(database: Database, telemetry: Telemetry):
    async with database.session() as session:
        await session.execute(text("SELECT 1"))
    (span,) = telemetry.spans
    assert span.attributes["catalysis.native"] is False
    assert span.attributes["catalysis.fallback_reason"]
    assert span.attributes["catalysis.transaction.number"] > 0


async def test_writes(database: Database, telemetry: Telemetry):
    async with database.session() as session:
        session.add_all([Label(name=f"f{n}") for n in range(3)])
        await session.commit()
        await bulk_insert(session, Label, [{"name": f"b{n}"} for n in range(5)])
        await bulk_insert(session, Label, [{"name": f"c{n}"} for n in range(200)])
        await session.commit()
    flush, executemany, copy = telemetry.spans
    assert (flush.name, flush.attributes["db.operation.batch.size"]) == ("BATCH INSERT label", 3)
    assert flush.attributes["db.operation.name"] == "BATCH INSERT"
    assert executemany.attributes["db.operation.batch.size"] == 5
    if is_postgres(database):
        assert copy.name == 'COPY "label"'
        assert "db.operation.batch.size" not in copy.attributes
    else:
        assert copy.attributes["db.operation.batch.size"] == 200
    assert "db.response.returned_rows" not in flush.attributes


async def test_the_text_can_be_left_out(database: Database):
    telemetry = Telemetry.of(database)
    end = telemetry.instrument(with_sql=False)
    async with database.session() as session:
        await session.exec(select(Label))
    end()
    (span,) = telemetry.spans
    assert span.name == "SELECT label"
    assert "db.query.text" not in span.attributes


@pytest.mark.parametrize("native", [True, False])
async def test_an_error_is_one_span_with_the_databases_code(
    database: Database, telemetry: Telemetry, native: bool
):
    async with database.session() as session:
        session.add(Label(name="canary"))
        await session.commit()
        telemetry.exporter.clear()
        if native:
            session.add(Label(name="canary"))
            with pytest.raises(IntegrityError):
                await session.commit()
        else:
            with pytest.raises(IntegrityError):
                await session.execute(text("INSERT INTO label SELECT * FROM label WHERE name = 'canary'"))
        await session.rollback()
    (span,) = (each for each in telemetry.spans if each.attributes["catalysis.native"] is native)
    assert len([each for each in telemetry.spans if "error.type" in each.attributes]) == 1
    code = "23505" if is_postgres(database) else "SQLITE_CONSTRAINT_"
    assert span.attributes["error.type"].startswith(code)
    assert span.attributes["db.response.status_code"] == span.attributes["error.type"]
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
    assert span.events == ()
    assert "canary" not in telemetry.said()
    failed = [
        point
        for point in telemetry.metrics()["db.client.operation.duration"]
        if "error.type" in point.attributes
    ]
    assert [point.count for point in failed] == [1]


async def test_no_value_is_said(backend_url: str):
    with_password = backend_url.replace("postgres@", "postgres:canary@")  # trusted: not looked at
    database = Database(with_password)
    telemetry = Telemetry.of(database)
    end = telemetry.instrument()
    try:
        async with database.engine.connect() as connection:
            await connection.execute(text("SELECT 'canary', 20770613 -- canary"))
            await connection.execute(text("SELECT 1 WHERE 'x' = :it"), {"it": "canary"})
            with pytest.raises(Exception, match="canary"):
                await connection.execute(text("SELECT 'canary' FROM canary_table WHERE a = :it"), {"it": "x"})
        telemetry.metrics()
    finally:
        end()
        await database.close()
    assert len(telemetry.spans) == 3
    said = telemetry.said().replace("canary_table", "")
    assert "canary" not in said
    assert "20770613" not in said


# --- Whose span it is -----------------------------------------------------------------------------


def parents(telemetry: Telemetry, of: list[ReadableSpan]) -> set[int | None]:
    return {span.parent and span.parent.span_id for span in of}


async def test_without_an_outer_span_there_is_no_parent(database: Database, telemetry: Telemetry):
    async with database.session() as session:
        await session.exec(select(Label))
    assert [span.parent for span in telemetry.spans] == [None]


async def test_parents_in_gather(database: Database, telemetry: Telemetry):
    async def read(name: str) -> None:
        with telemetry.outer(name):
            async with database.session() as session:
                await session.exec(select(Label).where(Label.name == name))
                await session.execute(text("SELECT 1"))

    with telemetry.outer():
        await asyncio.gather(*(read(f"task {n}") for n in range(8)))
    assert len(telemetry.spans) == 16
    for n in range(8):
        outer = telemetry.named(f"task {n}")
        inside = [each for each in telemetry.spans if each.parent.span_id == outer.context.span_id]
        assert [each.attributes["catalysis.native"] for each in inside] == [True, False]
        assert all(
            outer.start_time - 1e7 <= each.start_time <= each.end_time <= outer.end_time + 1e7
            for each in inside
        )


async def test_parents_of_a_session_shared_in_gather(database: Database, telemetry: Telemetry):
    async def read(session: Session, name: str) -> None:
        with telemetry.outer(name):
            await session.exec(select(Label).where(Label.name == name))

    async with database.session() as session:
        await asyncio.gather(*(read(session, f"task {n}") for n in range(8)))
    outers = {telemetry.named(f"task {n}").context.span_id for n in range(8)}
    assert parents(telemetry, telemetry.spans) == outers


@pytest.fixture
async def app(database: Database) -> FastAPI:
    async with database.session() as session:
        session.add(Person(name="ada", jobs=[Job(title="weave"), Job(title="count")]))
        await session.commit()
    app = FastAPI(lifespan=lifespan(database))

    @app.get("/jobs/{name}")
    async def jobs(name: str, db: DatabaseDep) -> list[str]:
        person = (await db.exec(select(Person).where(Person.name == name))).one()
        return [job.title for job in person.jobs]  # a lazy load, in the managed scope

    return app


async def test_parents_in_requests(app: FastAPI, database: Database, telemetry: Telemetry):
    async def traced(scope: Any, receive: Any, send: Any) -> None:
        """As the instrumentations of frameworks do."""
        if scope["type"] == "http":
            with telemetry.outer(scope["query_string"].decode()):
                await app(scope, receive, send)
        else:
            await app(scope, receive, send)

    telemetry.exporter.clear()
    async with app.router.lifespan_context(app):
        client = httpx.AsyncClient(transport=httpx.ASGITransport(traced), base_url="http://test")
        answers = await asyncio.gather(*(client.get(f"/jobs/ada?{n}") for n in range(5)))
    assert [len(answer.json()) for answer in answers] == [2] * 5
    for n in range(5):
        outer = telemetry.named(str(n))
        inside = [each.name for each in telemetry.spans if each.parent.span_id == outer.context.span_id]
        assert inside == ["SELECT person", "SELECT job"]


async def test_parents_of_what_is_loaded_when_touched(app: FastAPI, database: Database, telemetry: Telemetry):
    async def touch() -> None:
        async with database.session() as session:
            person = (await session.exec(select(Person))).one()
            with telemetry.outer("inner"):
                assert len(person.jobs) == 2
            await session.refresh(person)

    with telemetry.outer():
        await managed(touch())
    lazy = next(each for each in telemetry.spans if each.name == "SELECT job")
    assert lazy.parent.span_id == telemetry.named("inner").context.span_id
    assert telemetry.spans[-1].parent.span_id == telemetry.named("outer").context.span_id


async def test_parents_of_writes(database: Database, telemetry: Telemetry):
    async def write(session: Session) -> None:
        session.add_all([Label(name="a"), Label(name="b")])
        await session.flush()
        await bulk_insert(session, Label, [{"name": f"c{n}"} for n in range(200)])
        await session.execute(text("UPDATE label SET name = name"))

    with telemetry.outer():
        await database.transaction(write)
    assert len(telemetry.spans) == 3
    assert parents(telemetry, telemetry.spans) == {telemetry.named("outer").context.span_id}


# --- Metrics --------------------------------------------------------------------------------------


async def test_metrics(database: Database, telemetry: Telemetry):
    async with database.session() as session:
        session.add_all([Label(name="a"), Label(name="b")])
        await session.commit()
        for _ in range(3):
            await session.exec(select(Label))
        await session.execute(text("SELECT 1"))
        await session.rollback()
        found = telemetry.metrics()
    durations = {
        point.attributes["db.query.summary"]: point for point in found["db.client.operation.duration"]
    }
    assert {name: point.count for name, point in durations.items()} == {
        "BATCH INSERT label": 1,
        "SELECT label": 3,
        "SELECT": 1,
    }
    reads = durations["SELECT label"]
    assert reads.explicit_bounds == (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
    spans = [span for span in telemetry.spans if span.name == "SELECT label"]
    measured = sum(span.end_time - span.start_time for span in spans) / 1e9
    assert reads.sum == pytest.approx(measured, abs=1e-6)
    assert not {name for name in reads.attributes if name.startswith(("code.", "db.query.text"))}
    rows = {
        point.attributes["db.query.summary"]: point.sum for point in found["db.client.response.returned_rows"]
    }
    assert rows["SELECT label"] == 6
    transactions = {
        point.attributes["catalysis.transaction.outcome"]: point.count
        for point in found["catalysis.transaction.duration"]
    }
    assert transactions == {"commit": 1, "rollback": 1}


async def test_the_pool_is_read_from_any_thread(database: Database, telemetry: Telemetry):
    def count() -> dict[str, int]:
        points = telemetry.metrics()["db.client.connection.count"]
        return {point.attributes["db.client.connection.state"]: point.value for point in points}

    async with database.engine.connect():
        assert await asyncio.to_thread(count) == {"used": 1, "idle": database.pool_figures().open - 1}
    assert (await asyncio.to_thread(count))["used"] == 0
    (most,) = telemetry.metrics()["db.client.connection.max"]
    assert most.value == 20
    address = database.address
    expected = f"{address.host}:{address.port}/{address.name}" if address.host else address.name
    assert most.attributes == {"db.client.connection.pool.name": expected}


async def test_series_are_bounded(database: Database, telemetry: Telemetry, monkeypatch):
    monkeypatch.setattr(opentelemetry, "SUMMARIES", 4)
    async with database.engine.connect() as connection:
        for n in [*range(10), *range(10)]:
            tables = ", ".join(f"label AS l{each}" for each in range(n + 1))
            await connection.execute(text(f"SELECT 1 FROM {tables}"))
    points = telemetry.metrics()["db.client.operation.duration"]
    counts = {point.attributes.get("db.query.summary"): point.count for point in points}
    named = {"SELECT" + " label" * (n + 1): 2 for n in range(4)}
    assert counts == named | {None: 12}
    assert len({span.name for span in telemetry.spans}) == 10


# --- Beginning and ending -------------------------------------------------------------------------


async def test_only_its_own_database_is_told_of(database: Database, telemetry: Telemetry, tmp_path):
    other = Database(f"sqlite:///{tmp_path / 'other.db'}")
    async with other.session() as session:
        await session.execute(text("SELECT 1"))
    assert telemetry.spans == []
    end = instrument(tracer_provider=telemetry.tracers, meter_provider=telemetry.meters)
    async with other.session() as session:
        await session.execute(text("SELECT 1"))
    end()
    await other.close()
    assert len(telemetry.spans) == 1


async def test_it_ends_and_begins_again(database: Database):
    telemetry = Telemetry.of(database)
    for _ in range(2):
        end = telemetry.instrument()
        async with database.session() as session:
            await session.exec(select(Label))
        assert len(telemetry.spans) == 1
        assert "db.client.connection.count" in telemetry.metrics()
        end()
        end()
        async with database.session() as session:
            await session.exec(select(Label))
        assert len(telemetry.spans) == 1
        assert "db.client.connection.count" not in telemetry.metrics()
        telemetry.exporter.clear()


async def test_what_is_suppressed_is_not_told_of(database: Database, telemetry: Telemetry):
    from opentelemetry import context

    token = context.attach(context.set_value("suppress_instrumentation", True))
    async with database.session() as session:
        await session.exec(select(Label))
    context.detach(token)
    assert telemetry.spans == []


async def test_a_processor_that_fails_fails_no_statement(database: Database):
    class Failing(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            raise ZeroDivisionError

    provider = TracerProvider()
    provider.add_span_processor(Failing())
    end = instrument(database, tracer_provider=provider)
    async with database.session() as session:
        assert (await session.exec(select(Label))).all() == []
        await session.execute(text("SELECT 1"))
    end()
