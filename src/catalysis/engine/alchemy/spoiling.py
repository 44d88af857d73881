"""Statements that failed in a transaction that goes on: the database may have given it up, and COMMIT not say so.

PostgreSQL answers COMMIT of an aborted transaction by ROLLBACK, which no driver looks at.  SQLite ends the transaction
where a trigger or a constraint says ROLLBACK, and its driver begins another.  Whoever caught the error in between would
take the work for committed.
"""

import sqlite3
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import Connection
from sqlalchemy.engine import ExceptionContext, RootTransaction
from sqlalchemy.exc import DBAPIError

ABORTED = "25P02"
"""The SQLSTATE of whatever is sent in a transaction that the database has given up."""


class Spoilt(NamedTuple):
    """What failed last: kept in place of the error, whose traceback would keep the transaction."""

    name: str
    sqlstate: str | None
    is_certain: bool = False
    """Whether the transaction is known to be gone; else the database has to be asked."""


_spoilt: WeakKeyDictionary[RootTransaction, Spoilt] = WeakKeyDictionary()


def note_failure(failed: ExceptionContext) -> None:
    """Listener to an engine's `handle_error`."""
    connection, error = failed.connection, failed.original_exception
    if connection is None or connection.closed or (transaction := connection.get_transaction()) is None:
        return
    state = getattr(error, "sqlstate", None)
    if state != ABORTED:
        _spoilt[transaction] = Spoilt(type(failed.sqlalchemy_exception or error).__name__, state)


def note_end(failed: ExceptionContext) -> None:
    """The same for SQLite, where a statement that fails leaves its transaction as it was, or ends it."""
    connection, error = failed.connection, failed.original_exception
    if connection is None or connection.closed or connection.invalidated:
        return
    transaction: RootTransaction | None = connection.get_transaction()
    is_locked = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY  # BEGIN too may be
    driver_connection: Any = connection.connection.driver_connection
    if transaction is not None and not is_locked and not driver_connection.in_transaction:
        _spoilt[transaction] = Spoilt(type(failed.sqlalchemy_exception or error).__name__, None, True)


def _failures(session: Any) -> list[tuple[Connection, Spoilt]]:
    """The connections of a session's transaction on which something failed, and what failed on each last."""
    transaction: Any = session._transaction
    while transaction is not None and transaction._parent is not None:
        transaction = transaction._parent
    connections: list[Connection] = (
        [] if transaction is None else [each[0] for each in transaction._connections.values()]
    )
    begun = [(each, each.get_transaction()) for each in dict.fromkeys(connections) if not each.closed]
    return [(each, _spoilt[its]) for each, its in begun if its is not None and its in _spoilt]


def last_failure(session: Any) -> Spoilt | None:
    """What failed last in a session's transaction, whether it was caught or not."""
    return next((spoilt for _, spoilt in _failures(session)), None)


def why_aborted(session: Any) -> Spoilt | None:
    """What made the database give the session's transaction up; None if it has not.  Inside a greenlet.

    It is asked only where something failed: a savepoint may have taken that back.
    """
    for connection, spoilt in _failures(session):
        if spoilt.is_certain:
            return spoilt
        try:
            connection.exec_driver_sql("SELECT 1")
        except DBAPIError as refused:
            if getattr(refused.orig, "sqlstate", None) != ABORTED:
                raise
            return spoilt
    return None
