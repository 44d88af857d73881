"""Whose turn it is: of several processes that migrate one database, one works and the others wait.

The one place of migrations that knows what each database needs around a run.  It is synchronous, as Alembic is,
and waits by way of SQLAlchemy's greenlet.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Protocol

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.util import await_only

from catalysis.errors import MigrationError

LOCK_KEY = 0x63617461_6C797369
"""The key of PostgreSQL's advisory lock: "catalysi", in ASCII."""

NO_LOCKS = {"42883", "0A000"}
"""SQLSTATEs of a database without advisory locks: undefined function, feature not supported."""

_log = logging.getLogger(__name__)

PAUSE = 0.1
"""Seconds between two attempts to get one's turn."""


class Turn(Protocol):
    """What a database needs around a run of revisions."""

    transaction_per_revision: bool
    """Whether each revision commits by itself; if not, the run is one transaction."""

    def around(self, connection: Connection) -> AbstractContextManager[None]:
        """Entered outside a transaction, and left outside one."""
        ...

    def within(self, connection: Connection) -> AbstractContextManager[None]:
        """Entered at the start of the run, before Alembic looks at the version, and left before its last commit."""
        ...


class PostgresqlTurn:
    """A session's advisory lock, which outlives the transactions of the revisions and dies with the connection.

    So it must be a session of one's own: not one through PgBouncer in transaction mode.  Of databases that speak
    PostgreSQL some have no such locks, and some have functions of that name that lock nothing, as CockroachDB: there
    nobody waits for anybody.
    """

    transaction_per_revision = True

    @contextmanager
    def around(self, connection: Connection) -> Generator[None]:
        """Wait for the lock by asking again and again: a waiting statement could run into a timeout."""
        while (locked := _try_to_lock(connection)) is False:
            connection.rollback()
            await_only(asyncio.sleep(PAUSE))
        # the timeout for requests would break long migrations
        connection.exec_driver_sql("SET statement_timeout = 0")
        connection.commit()
        try:
            yield
        finally:
            with suppress(DBAPIError):  # on a broken connection, which holds no lock
                connection.rollback()
                connection.exec_driver_sql("RESET statement_timeout")
                if locked:
                    connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": LOCK_KEY})
                connection.commit()

    @contextmanager
    def within(self, connection: Connection) -> Generator[None]:
        """Nothing more."""
        yield


class SQLiteTurn:
    """One writing transaction for the whole run, with foreign keys off: a batch drops tables that others refer to."""

    transaction_per_revision = False

    @contextmanager
    def around(self, connection: Connection) -> Generator[None]:
        """The pragma has no effect inside a transaction.

        Source: SQLite documentation, "PRAGMA foreign_keys".
        """
        enforced = connection.exec_driver_sql("PRAGMA foreign_keys").scalar()
        connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
        connection.commit()
        try:
            yield
        finally:
            connection.rollback()
            connection.exec_driver_sql(f"PRAGMA foreign_keys = {enforced}")
            connection.commit()

    @contextmanager
    def within(self, connection: Connection) -> Generator[None]:
        """Wait for the right to write before Alembic looks at the version; then see that all rows have parents.

        Raises:
            MigrationError: a row refers to one that is not there.
        """
        while not _try_to_begin(connection):
            await_only(asyncio.sleep(PAUSE))
        before = _rows_changed(connection)
        yield
        if _rows_changed(connection) == before:  # no revision was run: none has noted itself
            return
        orphans = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        if orphans:
            pairs = Counter((table, parent) for table, _, parent, _ in orphans)
            found = ", ".join(
                f"{count} in {table!r} without their {parent!r}" for (table, parent), count in pairs.items()
            )
            raise MigrationError(
                f"Rows would refer to rows that are not there: {found}.  Mend them in the revision.  "
                "Nothing of this run was kept."
            )


class NoTurn:
    """Databases about which nothing special is known."""

    transaction_per_revision = True

    @contextmanager
    def around(self, connection: Connection) -> Generator[None]:
        """Nothing."""
        yield

    within = around


def turn_for(dialect: str) -> Turn:
    """What the database needs; nothing if it is one we do not know."""
    return {"postgresql": PostgresqlTurn, "sqlite": SQLiteTurn}.get(dialect, NoTurn)()


def _try_to_lock(connection: Connection) -> bool | None:
    """Whether the lock was free, and is ours now; None where there are no such locks."""
    try:
        return connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": LOCK_KEY})
    except DBAPIError as failure:
        if getattr(failure.orig, "sqlstate", None) not in NO_LOCKS:
            raise
        connection.rollback()
        _log.warning("This database has no advisory locks: see to it that nobody else migrates it now")
        return None


def _rows_changed(connection: Connection) -> int:
    return connection.exec_driver_sql("SELECT total_changes()").scalar_one()


def _try_to_begin(connection: Connection) -> bool:
    try:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    except OperationalError as failure:
        if "database is locked" in str(failure.orig):
            return False
        raise
    return True
