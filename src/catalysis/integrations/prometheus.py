"""Prometheus: statements, transactions and pools as metrics, and the page that a server scrapes.

Labels are few and bounded: no SQL, no table, no value is in any.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

import prometheus_client
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from catalysis.database import Database
from catalysis.events import Observer, QueryEvent, TransactionEvent, observe, open_transactions
from catalysis.integrations.pools import pool_name, pools_of
from catalysis.integrations.statements import describe

if TYPE_CHECKING:
    from fastapi import APIRouter

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


def instrument(
    database: Database | None = None, *, registry: CollectorRegistry | None = None
) -> Callable[[], None]:
    """Count the statements and transactions of the process in `registry`, and show the pool of `database`.

    Without a registry: in the process's own.  Called several times for one registry, each adds its database.

    Returns:
        The function that ends it; the last one takes the metrics out of the registry.
    """
    registry = registry or REGISTRY
    measured = _measured.get(registry)
    if measured is None:
        measured = _measured[registry] = _Measured(registry)
    return measured.begin(database)


def metrics_router(
    database: Database | None = None, *, path: str = "/metrics", registry: CollectorRegistry | None = None
) -> "APIRouter":
    """A FastAPI router that answers `GET {path}` with all metrics of `registry`; it measures for good from now on.

    Without a database: the pool is that of the application that answers.
    """
    from fastapi import APIRouter, Request, Response

    from catalysis.integrations.fastapi import database_of

    used = registry or REGISTRY
    instrument(database, registry=used)
    router = APIRouter()

    @router.get(path, include_in_schema=False)
    async def metrics(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction] - the router holds it
        if database is None:
            _measured[used].databases.add(database_of(request))
        return Response(generate_latest(used), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return router


def metrics_app(
    database: Database | None = None, *, registry: CollectorRegistry | None = None
) -> Callable[..., Any]:
    """The same as an ASGI application, to be mounted: `app.mount("/metrics", metrics_app(db))`."""
    used = registry or REGISTRY
    instrument(database, registry=used)
    untyped: Any = prometheus_client
    return untyped.make_asgi_app(used)


class _Measured(Observer):
    """What one registry holds of ours; in the registry as long as anybody has begun it and not ended."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.databases: WeakSet[Database] = WeakSet()
        self._registry, self._begun = registry, 0
        self._seconds = Histogram(
            "catalysis_statement_duration_seconds",
            "Duration of statements, from sending them to the end of their execution.",
            ("system", "operation", "native"),
            buckets=SECONDS,
            registry=None,
        )
        self._errors = Counter(
            "catalysis_statement_errors",
            "Statements that the database refused, by the class of the error.",
            ("system", "operation", "error"),
            registry=None,
        )
        self._transactions = Histogram(
            "catalysis_transaction_duration_seconds",
            "Duration of transactions, each of which holds a connection.",
            ("system", "outcome"),
            buckets=SECONDS,
            registry=None,
        )
        self._pools = _Pools(self.databases)
        self._collectors = (self._seconds, self._errors, self._transactions, self._pools)

    def begin(self, database: Database | None) -> Callable[[], None]:
        """Measure; returns the function that ends it."""
        if self._begun == 0:
            for each in self._collectors:
                self._registry.register(each)
            self._end_observing = observe(self)
        self._begun += 1
        if database is not None:
            self.databases.add(database)
        begun = True

        def end() -> None:
            nonlocal begun
            if begun:
                begun = False
                self._end(database)

        return end

    def _end(self, database: Database | None) -> None:
        self._begun -= 1
        if database is not None:
            self.databases.discard(database)
        if self._begun == 0:
            self._end_observing()
            self.databases.clear()
            for each in self._collectors:
                self._registry.unregister(each)
            _measured.pop(self._registry, None)

    def on_statement(self, happened: QueryEvent, parameters: Any) -> None:
        """See `Observer`."""
        system = "other" if happened.database is None else happened.database.system
        operation = describe(happened.sql).operation
        self._seconds.labels(system, operation, "true" if happened.native else "false").observe(
            happened.seconds
        )
        if happened.error is not None:
            self._errors.labels(system, operation, happened.error).inc()

    def on_transaction_ended(self, happened: TransactionEvent) -> None:
        """See `Observer`."""
        system = happened.transaction.database.system
        self._transactions.labels(system, happened.outcome).observe(happened.seconds)


class _Pools(Collector):
    """Read when somebody scrapes, in whichever thread that is."""

    def __init__(self, databases: "WeakSet[Database]") -> None:
        self._databases = databases

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The pools' connections, and the transactions that are running."""
        connections = GaugeMetricFamily(
            "catalysis_pool_connections", "Connections of the pool.", labels=("database", "state")
        )
        most = GaugeMetricFamily(
            "catalysis_pool_connections_max", "Connections the pool may have.", labels=("database",)
        )
        for name, figures in pools_of(self._databases).items():
            connections.add_metric((name, "used"), figures.lent)
            connections.add_metric((name, "idle"), figures.open - figures.lent)
            if figures.limit is not None:
                most.add_metric((name,), figures.limit)
        lag = GaugeMetricFamily(
            "catalysis_replica_lag_seconds",
            "Age of what the replica has not got; absent while nobody knows.",
            labels=("database", "replica"),
        )
        rotation = GaugeMetricFamily(
            "catalysis_replica_in_rotation",
            "Whether the replica is read from.",
            labels=("database", "replica"),
        )
        for database in list(self._databases):
            for each in database.replica_health():
                labels = pool_name(database.address), pool_name(each.address)
                rotation.add_metric(labels, each.in_rotation)
                if each.lag_seconds is not None:
                    lag.add_metric(labels, each.lag_seconds)
        running = GaugeMetricFamily("catalysis_transactions_open", "Transactions that are running.")
        running.add_metric((), len(open_transactions()))
        yield from (connections, most, rotation, lag, running)


_measured: WeakKeyDictionary[CollectorRegistry, _Measured] = WeakKeyDictionary()
