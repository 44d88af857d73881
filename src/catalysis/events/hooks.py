"""SQLAlchemy's public engine events: the statements it runs, and all transactions; attached once somebody listens.

They stay attached then, and return at once while nobody listens: SQLAlchemy iterates its listeners while it calls them,
so taking one away would fail the statement that another thread is sending.
"""

import time
from collections.abc import MutableMapping
from contextvars import ContextVar
from time import perf_counter
from typing import Any, Literal
from weakref import WeakKeyDictionary

from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine, ExceptionContext
from sqlalchemy.pool import Pool

from catalysis.events.happened import DatabaseAddress, QueryEvent, Transaction, TransactionEvent
from catalysis.events.scopes import current_scope
from catalysis.events.sites import call_site
from catalysis.events.telling import emit, listeners

NOT_A_READ = "not a read of a session"
fallback_reason: ContextVar[str] = ContextVar("catalysis_fallback_reason", default=NOT_A_READ)
"""Why the statements that SQLAlchemy runs now are not native; set around each fallback."""

_addresses: WeakKeyDictionary[Engine, DatabaseAddress] = WeakKeyDictionary()


def address_of(engine: Engine) -> DatabaseAddress:
    """Which database an engine's statements go to."""
    found = _addresses.get(engine)
    if found is None:
        found = _addresses[engine] = address_in(engine.url)
    return found


def address_in(url: URL, role: Literal["primary", "replica"] = "primary") -> DatabaseAddress:
    """Which database a URL leads to, without its secrets."""
    several = url.query.get("host") if url.host is None else None
    host = ",".join(several) if isinstance(several, tuple) else several or url.host
    return DatabaseAddress(url.get_backend_name(), url.database, host, url.port, role)


def note_replica(engine: Engine) -> None:
    """Statements on this engine are those of a replica."""
    _addresses[engine] = address_in(engine.url, "replica")


# --- Statements -----------------------------------------------------------------------------------

_STARTED = "catalysis_statement_started"


def _before(
    conn: Connection, cursor: Any, sql: str, parameters: Any, context: Any, many: bool
) -> tuple[str, Any]:
    if listeners.count:
        conn.info[_STARTED] = perf_counter()
    return sql, parameters


def _after(conn: Connection, cursor: Any, sql: str, parameters: Any, context: Any, many: bool) -> None:
    if not listeners.count:
        return
    count = cursor.rowcount
    _emit_from(conn, sql, parameters, rows=count if count >= 0 else None, error=None)


def _failed(failure: ExceptionContext) -> None:
    conn = failure.connection
    if conn is not None and failure.statement is None:
        _commit_failed(conn, failure)
    if conn is None or failure.statement is None or not listeners.count:
        return
    if not conn.invalidated and _STARTED not in conn.info:
        return  # a native one, which has told of itself, or one that was never sent
    error = type(failure.original_exception).__name__
    _emit_from(conn, failure.statement, failure.parameters, rows=None, error=error)


def _emit_from(conn: Connection, sql: str, parameters: Any, *, rows: int | None, error: str | None) -> None:
    ended = perf_counter()
    started = ended if conn.invalidated else conn.info.pop(_STARTED, ended)
    happened = QueryEvent(
        sql,
        ended - started,
        rows,
        False,
        fallback_reason.get(),
        error,
        call_site(),
        None,
        time.time() - (ended - started),
        address_of(conn.engine),
        current_scope(),
        transaction_of(conn),
    )
    emit(happened, parameters)


# --- Transactions ---------------------------------------------------------------------------------

_open: WeakKeyDictionary[Connection, Transaction] = WeakKeyDictionary()
"""A connection that is lost in a transaction takes its entry along."""


def open_transactions() -> list[Transaction]:
    """The transactions that are running, oldest first, of those that began while somebody listened."""
    # Not `values()`, which fails if another thread begins a transaction meanwhile.
    connections = [connection for each in _open.keyrefs() if (connection := each()) is not None]
    running = [each for each in map(_open.get, connections) if each is not None]
    return sorted(running, key=lambda each: each.started)


def transaction_of(connection: Connection | None) -> Transaction | None:
    """The transaction that a connection is in, as far as it was heard of."""
    return None if connection is None else _open.get(connection)


_COMMITTING = "catalysis_committing"
"""SQLAlchemy tells of a COMMIT before it is sent.  Until it is known how it went, its transaction waits here."""


def _begun(conn: Connection) -> None:
    if not listeners.count:
        return
    _committed(conn.info)
    transaction = Transaction(address_of(conn.engine), time.time(), call_site(), current_scope())
    _open[conn] = transaction
    for observer in listeners.observers:
        observer.on_transaction_begun(transaction)


def _commits(conn: Connection) -> None:
    transaction = _open.pop(conn, None)
    if conn.invalidated:  # it was lost, and COMMIT is not sent
        _tell_end(transaction, "rollback")
    elif transaction is not None:
        conn.info[_COMMITTING] = transaction


def _committed(info: MutableMapping[Any, Any]) -> None:
    _tell_end(info.pop(_COMMITTING, None), "commit")


def tell_of_commit(dbapi_connection: Any, record: Any) -> None:
    """The connection is given back, so that a COMMIT which was sent on it has succeeded: it is told of."""
    _committed(record.info)


def _commit_failed(conn: Connection, failure: ExceptionContext) -> None:
    if conn.invalidated:
        return
    refused = failure.sqlalchemy_exception is not None and not failure.is_disconnect
    _tell_end(conn.info.pop(_COMMITTING, None), "rollback" if refused else "unknown")


def _rolls_back(conn: Connection) -> None:
    _tell_end(_open.pop(conn, None), "rollback")


def _tell_end(transaction: Transaction | None, outcome: Literal["commit", "rollback", "unknown"]) -> None:
    if transaction is None:  # begun before anybody listened, or a COMMIT that failed is rolled back
        return
    happened = TransactionEvent(transaction, time.time() - transaction.started, outcome)
    for observer in listeners.observers:
        observer.on_transaction_ended(happened)


def _begins_two_phases(conn: Connection, xid: Any) -> None:
    _begun(conn)


def _commits_two_phases(conn: Connection, xid: Any, is_prepared: bool) -> None:
    _commits(conn)


def _rolls_back_two_phases(conn: Connection, xid: Any, is_prepared: bool) -> None:
    _rolls_back(conn)


# --- While somebody listens -----------------------------------------------------------------------

_HOOKS: tuple[tuple[str, Any, bool], ...] = (
    ("before_cursor_execute", _before, True),  # with a return value SQLAlchemy keeps the function as it is
    ("after_cursor_execute", _after, False),
    ("handle_error", _failed, False),
    ("begin", _begun, False),
    ("begin_twophase", _begins_two_phases, False),
    ("commit", _commits, False),
    ("commit_twophase", _commits_two_phases, False),
    ("rollback", _rolls_back, False),
    ("rollback_twophase", _rolls_back_two_phases, False),
)
OWN_HOOKS = frozenset({_before, _after, _begun})
"""The listeners above that the native path does without: it emits its own events, and its reads begin nothing."""


def attach() -> None:
    """Begin to hear of everything; one `detach` for each."""
    with listeners.changing:
        listeners.count += 1
        if not listeners.are_attached:
            listeners.are_attached = True
            for name, hook, returns in _HOOKS:
                event.listen(Engine, name, hook, **({"retval": True} if returns else {}))
            event.listen(Pool, "checkin", tell_of_commit)


def detach() -> None:
    """Hear of nothing any more, when this was the last."""
    with listeners.changing:
        listeners.count -= 1
        if listeners.count == 0:
            _open.clear()
