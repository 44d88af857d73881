"""OpenTelemetry: a span for each statement, and metrics, by the semantic conventions for databases.

Only the API is needed here; without an SDK nothing is recorded.  No span and no metric holds a parameter's value, a
literal or an exception's text.  Sources: OpenTelemetry, "Semantic conventions for database client spans" and "…
metrics".
"""

import logging
import sys
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, cast
from weakref import WeakKeyDictionary, WeakSet

from opentelemetry import context, metrics, trace
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.trace import SpanKind, StatusCode, TracerProvider
from opentelemetry.util.types import AttributeValue

from catalysis.database import Database
from catalysis.events import DatabaseAddress, Observer, QueryEvent, TransactionEvent, observe
from catalysis.integrations.pools import pools_of
from catalysis.integrations.statements import Described, describe

logger = logging.getLogger(__name__)
SCOPE = "catalysis"
SCHEMA = "https://opentelemetry.io/schemas/1.33.0"
SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
"""The buckets that the conventions advise for durations."""
ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)
SUMMARIES = 500
"""Different summaries in metrics; statements beyond them are counted without one."""

Attributes = dict[str, AttributeValue]


def instrument(
    database: Database | None = None,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    with_sql: bool = True,
) -> Callable[[], None]:
    """Make spans and metrics of the statements and transactions of `database`, and metrics of its pool.

    Without a database: of all statements of the process, and of no pool.  Without providers: those that are set for
    the process.  `with_sql=False` leaves `db.query.text` out of the spans.

    Returns:
        The function that ends it.
    """
    meters = meter_provider or metrics.get_meter_provider()
    tracer = trace.get_tracer(SCOPE, tracer_provider=tracer_provider, schema_url=SCHEMA)
    end_observing = observe(_Instrumented(tracer, meters, database and database.addresses, with_sql))
    pools = _pools_of(meters)
    if database is not None:
        pools.databases.add(database)

    def end() -> None:
        end_observing()
        if database is not None:
            pools.databases.discard(database)

    return end


# --- What is said ---------------------------------------------------------------------------------

_SYSTEMS = {"mssql": "microsoft.sql_server", "oracle": "oracle.db"}
"""The conventions' names, where they are not SQLAlchemy's."""


@lru_cache(maxsize=256)
def _place(address: DatabaseAddress | None) -> Attributes:
    """Which database; to be copied."""
    if address is None:
        return {"db.system.name": "other_sql"}
    given = {
        "db.system.name": _SYSTEMS.get(address.system, address.system),
        "db.namespace": address.name,
        "server.address": address.host,
        "server.port": address.port,
        "catalysis.server.role": "replica" if address.role == "replica" else None,
    }
    return {name: value for name, value in given.items() if value is not None}


def _failure(happened: QueryEvent) -> Attributes:
    """The database's code of the error that is being raised, or else its class."""
    error = sys.exc_info()[1]  # an event is told of where the driver's exception is handled
    same = type(error).__name__ == happened.error
    code = (getattr(error, "sqlstate", None) or getattr(error, "sqlite_errorname", None)) if same else None
    said: Attributes = {"error.type": code or happened.error or "_OTHER"}
    if code is not None:
        said["db.response.status_code"] = code
    return said


def _batch_size(parameters: Any, operation: str) -> int | None:
    """How often one statement was executed, if several times; COPY is one operation on many rows."""
    if operation == "COPY" or not isinstance(parameters, list):
        return None
    rows = cast("list[Any]", parameters)
    return len(rows) if len(rows) > 1 and all(isinstance(row, list | tuple) for row in rows[:2]) else None


def _what(said: Described, batch: int | None) -> Attributes:
    prefix = "" if batch is None else "BATCH "
    what: Attributes = {}
    if said.summary:
        what["db.query.summary"] = prefix + said.summary
    if said.is_single:
        what["db.operation.name"] = prefix + said.operation
    if said.table is not None:
        what["db.collection.name"] = said.table
    return what


def _ours(happened: QueryEvent) -> Attributes:
    """What only we know: the path that the statement took, and the line of the user's code."""
    given: dict[str, AttributeValue | None] = {
        "catalysis.native": happened.native,
        "catalysis.fallback_reason": happened.reason,
        "catalysis.transaction.number": happened.transaction and happened.transaction.number,
    }
    if (site := happened.site) is not None:
        given |= {
            "code.file.path": site.file,
            "code.line.number": site.line,
            "code.function.name": site.function,
        }
    return {name: value for name, value in given.items() if value is not None}


# --- Statements and transactions ------------------------------------------------------------------


class _Instrumented(Observer):
    def __init__(
        self,
        tracer: trace.Tracer,
        meters: MeterProvider,
        only: frozenset[DatabaseAddress] | None,
        with_sql: bool,
    ) -> None:
        self._tracer, self._only, self._with_sql = tracer, only, with_sql
        self._summaries: set[str] = set()
        meter = meters.get_meter(SCOPE, schema_url=SCHEMA)
        self._seconds = meter.create_histogram(
            "db.client.operation.duration",
            unit="s",
            description="Duration of database client operations.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self._rows = meter.create_histogram(
            "db.client.response.returned_rows",
            unit="{row}",
            description="The actual number of records returned by the database operation.",
            explicit_bucket_boundaries_advisory=ROWS,
        )
        self._transactions = meter.create_histogram(
            "catalysis.transaction.duration",
            unit="s",
            description="Duration of transactions, each of which holds a connection.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )

    def _is_wanted(self, address: DatabaseAddress | None) -> bool:
        # The key is that of OpenTelemetry's own instrumentations (`suppress_instrumentation()`).
        return (self._only is None or address in self._only) and not context.get_value(
            "suppress_instrumentation"
        )

    def on_statement(self, happened: QueryEvent, parameters: Any) -> None:
        """See `Observer`."""
        if not self._is_wanted(happened.database):
            return
        try:
            self._tell(happened, parameters)
        except Exception as failure:  # a sampler's or a processor's: the statement has nothing to do with it
            logger.debug("A statement could not be told of: %s", type(failure).__name__)

    def _tell(self, happened: QueryEvent, parameters: Any) -> None:
        said = describe(happened.sql)
        batch = _batch_size(parameters, said.operation)
        attributes = _place(happened.database) | _what(said, batch)
        if happened.error is not None:
            attributes |= _failure(happened)
        self._measure(happened, said, attributes)
        if self._with_sql:
            attributes["db.query.text"] = said.text
        if batch is not None:
            attributes["db.operation.batch.size"] = batch
        if happened.rows is not None and said.returns_rows:
            attributes["db.response.returned_rows"] = happened.rows
        name = attributes.get("db.query.summary") or attributes["db.system.name"]
        self._trace(happened, str(name), attributes | _ours(happened))

    def _trace(self, happened: QueryEvent, name: str, attributes: Attributes) -> None:
        """A span of the time that is over; it is told of in the context that sent the statement: the parent's."""
        started = int(happened.started * 1e9)
        span = self._tracer.start_span(
            name, kind=SpanKind.CLIENT, attributes=attributes, start_time=started, record_exception=False
        )
        if happened.error is not None:
            span.set_status(StatusCode.ERROR)
        span.end(started + int(happened.seconds * 1e9))

    def _measure(self, happened: QueryEvent, said: Described, attributes: Attributes) -> None:
        attributes = dict(attributes)
        if not self._is_counted(str(attributes.get("db.query.summary", ""))):
            for name in ("db.query.summary", "db.collection.name"):
                attributes.pop(name, None)
        self._seconds.record(happened.seconds, attributes)
        if happened.rows is not None and said.returns_rows:
            self._rows.record(happened.rows, attributes)

    def _is_counted(self, summary: str) -> bool:
        """Whether a metric may have a series of this summary: a series stays for the life of the process."""
        if summary not in self._summaries and len(self._summaries) < SUMMARIES:
            self._summaries.add(summary)
        return summary in self._summaries

    def on_transaction_ended(self, happened: TransactionEvent) -> None:
        """See `Observer`."""
        address = happened.transaction.database
        if self._is_wanted(address):
            outcome: Attributes = {"catalysis.transaction.outcome": happened.outcome}
            self._transactions.record(happened.seconds, _place(address) | outcome)


# --- Pools ----------------------------------------------------------------------------------------


class _Pools:
    """The pools that a provider is told of; an instrument of OpenTelemetry cannot be taken back."""

    def __init__(self, meters: MeterProvider) -> None:
        self.databases: WeakSet[Database] = WeakSet()
        meter = meters.get_meter(SCOPE, schema_url=SCHEMA)
        meter.create_observable_up_down_counter(
            "db.client.connection.count",
            [self._count],
            unit="{connection}",
            description="The number of connections that are currently in state described by the `state` attribute.",
        )
        meter.create_observable_up_down_counter(
            "db.client.connection.max",
            [self._most],
            unit="{connection}",
            description="The maximum number of open connections allowed.",
        )

    def _count(self, options: CallbackOptions) -> Iterable[Observation]:
        for name, figures in pools_of(self.databases).items():
            pool = {"db.client.connection.pool.name": name}
            yield Observation(figures.lent, {**pool, "db.client.connection.state": "used"})
            yield Observation(figures.open - figures.lent, {**pool, "db.client.connection.state": "idle"})

    def _most(self, options: CallbackOptions) -> Iterable[Observation]:
        for name, figures in pools_of(self.databases).items():
            if figures.limit is not None:
                yield Observation(figures.limit, {"db.client.connection.pool.name": name})


_pools: WeakKeyDictionary[MeterProvider, _Pools] = WeakKeyDictionary()


def _pools_of(meters: MeterProvider) -> _Pools:
    found = _pools.get(meters)
    if found is None:
        found = _pools[meters] = _Pools(meters)
    return found
