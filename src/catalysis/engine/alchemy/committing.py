"""Where COMMIT is sent: every way to commit a session passes here, and a lost reply becomes an error of its own.

`AsyncSession.commit()`, `async with session.begin():`, `run_sync` and a session's own transaction object all end in
`SessionTransaction.commit`.  Releasing a savepoint does so too, and is no COMMIT.
"""

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine
from sqlalchemy.engine import RootTransaction
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import SessionTransaction, SessionTransactionOrigin
from sqlalchemy.orm.session import SessionTransactionState
from sqlalchemy.util import memoized_property
from sqlmodel.orm.session import Session as SyncSession

from catalysis.engine.alchemy.lending import Note, exhausted, note_of
from catalysis.engine.alchemy.pooling import hand_on
from catalysis.engine.routing import Route, note_write
from catalysis.errors import UNKNOWN_TO_DATABASE, CommitOutcomeUnknown, PoolExhausted


def was_lost(error: BaseException) -> bool:
    """Whether the error leaves open if the database did what it was asked: it did not answer, or does not know.

    False where the database refused, and where the connection was closed before anything was sent: an
    InterfaceError is the driver's own.  A cancellation is not looked at: it stays what it is.
    """
    if isinstance(error, CommitOutcomeUnknown):
        return True
    if isinstance(error, DBAPIError):
        state = getattr(error.orig, "sqlstate", None)
        if state in UNKNOWN_TO_DATABASE:
            return True
        refused = state == _READ_ONLY or isinstance(error, InterfaceError)
        return error.connection_invalidated and not refused
    return isinstance(error, OSError)  # the socket's, which drivers pass on, and TimeoutError


def outcome_unknown(error: BaseException) -> CommitOutcomeUnknown:
    """The error to raise (`from error`) in place of one that `was_lost` of a COMMIT.

    The same serves for a statement that commits by itself, which the message then names.
    """
    if isinstance(error, CommitOutcomeUnknown):
        return error
    if isinstance(error, DBAPIError):
        return CommitOutcomeUnknown(error.statement, None, error.orig or error)
    return CommitOutcomeUnknown(None, None, error)


_READ_ONLY = "25006"
"""The SQLSTATE of a server that may not be written to: its connection is given up, but it has answered."""


def _when_needed(name: str) -> Any:
    def make(_: object) -> WeakKeyDictionary[Any, Any]:
        return WeakKeyDictionary()

    make.__name__ = name  # under which it is memoized
    return memoized_property(make)


_KEPT = (SessionTransactionState.COMMITTED, SessionTransactionState.CLOSED)


class CommittingTransaction(SessionTransaction):
    """A session's outermost transaction: its `commit` says when it cannot know the outcome."""

    is_committing = False
    """Whether a flush now would be the last of the transaction."""

    taken: Note | None = None
    """Who took its first connection, and when."""

    def _take_snapshot(self) -> None:
        """As the parent, for a transaction that has none above it; what it keeps for a rollback is made when needed."""

    _new: Any = _when_needed("_new")
    _deleted: Any = _when_needed("_deleted")
    _dirty: Any = _when_needed("_dirty")
    _key_switches: Any = _when_needed("_key_switches")

    def _connection_for_bind(self, bind: Any, execution_options: Any = None) -> Connection:
        """As the parent; notes who takes a connection, and tells the session of it.

        Raises:
            PoolExhausted: none came free in time.
        """
        if bind in self._connections:
            return super()._connection_for_bind(bind, execution_options)
        try:
            connection = super()._connection_for_bind(bind, execution_options)
        except PoolTimeout as late:
            if isinstance(late, PoolExhausted):
                raise
            raise exhausted(bind.engine) from late
        except BaseException:
            hand_on(bind.engine.pool)
            raise
        if self.taken is None:
            self.taken = note_of(self.session)
        self._of.has_begun(connection)
        return connection

    def commit(self, _to_root: bool = False) -> None:
        """As the parent.

        Raises:
            CommitOutcomeUnknown: the connection was lost, or the driver's time was up, before COMMIT was answered.
        """
        self.is_committing = True
        try:
            super().commit(_to_root)
        except Exception as error:
            # What fails before COMMIT is sent (a listener, a flush) does so before the state is PREPARED.
            if self._state is not SessionTransactionState.PREPARED or not was_lost(error):
                raise
            if not self._abandon_commits(error):
                raise
            raise outcome_unknown(error) from error
        finally:
            self.is_committing = False
            if self._state in _KEPT:  # also where a listener to `after_commit` raised
                self._of.has_committed = True
            if self._connections:
                self._of.may_have_committed()

    def close(self, invalidate: bool = False) -> None:
        """As the parent; tells the session that a transaction has ended that had a connection."""
        had_connection = self._parent is None and bool(self._connections)
        if had_connection and self.commits_by_itself:
            self._of.may_have_committed()
        try:
            super().close(invalidate)
        finally:
            if had_connection:
                self._of.has_ended()

    @property
    def _of(self) -> "CommittingSession":
        session: Any = self.session
        return session

    @property
    def commits_by_itself(self) -> bool:
        """Whether each statement on one of its connections is a transaction (AUTOCOMMIT), and none ends by a COMMIT."""
        held: Any = self._connections.values()
        return any(connection._is_autocommit_isolation() for connection, *_ in held)

    def _abandon_commits(self, error: BaseException) -> bool:
        """Close the connections that COMMIT was sent on; whether there are any."""
        held: Any = set(self._connections.values())
        sent = [
            connection
            for connection, transaction, should_commit, _ in held
            if should_commit and isinstance(transaction, RootTransaction)
        ]
        for connection in sent:
            if not (connection.closed or connection.invalidated):  # its COMMIT may still be under way
                connection.invalidate(error)
        return bool(sent)


_HEARD = "_catalysis_hears_commits"
"""Under this name a dialect keeps who is told of its COMMITs."""


def hear_commits(engine: Engine, heard: Callable[[], None]) -> None:
    """Tell of each COMMIT on the engine's connections once it has been sent, also of those that no session has.

    SQLAlchemy's own event comes before it is sent.
    """
    dialect: Any = engine.dialect
    send = dialect.do_commit
    dialect.__dict__[_HEARD] = heard

    def do_commit(connection: Any) -> None:
        try:
            send(connection)
        finally:
            heard()

    dialect.do_commit = do_commit


def has_committed_by_itself(engine: Engine) -> None:
    """A statement was sent that commits by itself: tell whoever hears of the engine's COMMITs."""
    if (heard := engine.dialect.__dict__.get(_HEARD)) is not None:
        heard()


class CommittingSession(SyncSession):
    """A synchronous session whose transactions are `CommittingTransaction`s."""

    has_committed = False
    """Whether a transaction of it has been committed, so that what it did must not be done again."""
    may_have_written = False
    """Whether a COMMIT of it was sent, whatever became of it."""
    route: Route | None = None
    """Where its reads outside a transaction may go; None where there is the primary alone."""

    def has_begun(self, connection: Connection) -> None:
        """A transaction has begun on a connection, and nothing was sent in it; inside a greenlet."""

    def may_have_committed(self) -> None:
        """A COMMIT was sent, or a statement that commits by itself: the task's later reads must see what it wrote."""
        self.may_have_written = True
        if self.route is not None:
            note_write(self.route.rotation.database)

    def has_ended(self) -> None:
        """A transaction has ended that was at the database: what it saw there is the least that later reads see."""
        if self.route is not None:
            self.route.met_primary()

    def _autobegin_t(self, begin: bool = False) -> SessionTransaction:
        """As the parent, whose every outermost transaction is made here."""
        if self._transaction is None and (begin or self.autobegin):
            origin = SessionTransactionOrigin.BEGIN if begin else SessionTransactionOrigin.AUTOBEGIN
            return CommittingTransaction(self, origin)
        return super()._autobegin_t(begin)
