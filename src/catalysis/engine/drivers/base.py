"""What the engine asks of a driver.

A driver is given SQLAlchemy's adapter of a connection, so that whatever it does is done on the very connection that
SQLAlchemy would use.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Engine

from catalysis.engine.alchemy.owning import LocalSetting


class Answer(NamedTuple):
    """What came back: the rows, how many the driver counted (-1: none), and the columns as DB-API describes them."""

    describe: Callable[[], Any]
    rows: Sequence[Any]
    rowcount: int
    lastrowid: int | None = None


class Position(NamedTuple):
    """Where a server is in the log of changes, and what may be asked of it."""

    end: int
    """Of the log, in bytes: behind it is whatever a primary has committed.  What a replica has replayed."""
    flushed: int
    """The part of it that is on a primary's disk, and so on its way to replicas; what a replica has replayed."""
    is_replica: bool
    is_writable: bool


class Cursor(Protocol):
    """An open cursor on the server, inside a transaction."""

    describe: Callable[[], Any]

    async def fetch(self, most: int) -> Sequence[Any]:
        """The next rows, at most that many; none when there are no more."""
        ...

    async def close(self) -> None:
        """Let go of it; also when the rows were not read to the end."""
        ...


class Driver(Protocol):
    """One module a database driver; see `drivers/__init__.py`."""

    plans_by_limit: bool
    """Whether a LIMIT written into the SQL gives better query plans than one bound: it does where plans are cached."""
    gives_text: bool
    """Whether times and UUIDs come as text."""
    survives_cancellation: bool
    """Whether a connection can be used on after a statement on it was cancelled."""

    def reads_outside(self, connection: Any, dialect: Any) -> bool:
        """Whether a read on this connection sees the same outside a transaction as in one of its isolation level."""
        ...

    def fetch(
        self,
        connection: Any,
        sql: str,
        parameters: Sequence[Any],
        *,
        dialect: Any,
        in_transaction: bool,
        setting: LocalSetting | None = None,
    ) -> Awaitable[Answer]:
        """Run one SELECT and return all its rows, in as few round trips as the driver can.

        `setting`: what the database is to be told before, and to forget afterwards; outside a transaction only.

        In a transaction the statements of several tasks queue in the order in which they came; outside, the
        connection is the caller's alone.  Cancelled, it leaves the connection fit to be discarded.

        Raises:
            Exception: whatever the driver raises, untranslated.
        """
        ...

    async def open(self, connection: Any, sql: str, parameters: Sequence[Any], *, dialect: Any) -> Cursor:
        """Run one SELECT and leave its rows on the server, to be fetched in parts; in a transaction only.

        Raises:
            Exception: whatever the driver raises, untranslated; so do the cursor's methods.
        """
        ...

    def can_write(self, connection: Any, engine: Engine) -> bool:
        """Whether `write` begins transactions on this connection as SQLAlchemy does for the engine."""
        ...

    async def write(
        self,
        connection: Any,
        sql: str,
        rows: Sequence[Sequence[Any]],
        *,
        dialect: Any,
        in_transaction: bool,
        returns: bool,
        counts: bool,
    ) -> Answer:
        """Run one INSERT, UPDATE or DELETE for each of the rows of parameters, in as few round trips as it can.

        With `returns` the answer has what RETURNING gave, in the order of the rows; with `counts` it has the number of
        rows changed.  Outside a transaction it commits by itself, and all or nothing of it.

        Raises:
            Exception: whatever the driver raises, untranslated.
        """
        ...

    async def position(self, connection: Any) -> Position | None:
        """Where the server is, behind which everything is that it had committed before; None if it keeps no such log.

        Raises:
            Exception: whatever the driver raises, untranslated.
        """
        ...

    def was_stale(self, error: Exception) -> bool:
        """Whether the error says that a prepared statement no longer fits its tables."""
        ...
