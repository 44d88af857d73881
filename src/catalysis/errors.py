"""Every exception and warning of Catalysis, drawn once.

    CatalysisError
    ├── ModelError               (also SQLAlchemy's InvalidRequestError and ArgumentError)
    ├── AttributeNotLoaded       (also SQLAlchemy's MissingGreenlet and InvalidRequestError)
    │   └── RelationshipNotLoaded
    ├── UnsupportedStatement     (also SQLAlchemy's InvalidRequestError)
    ├── CommitOutcomeUnknown     (also SQLAlchemy's DBAPIError)
    ├── NoAnswer                 (also SQLAlchemy's OperationalError)
    ├── CannotConnect            (also SQLAlchemy's OperationalError, and TimeoutError)
    ├── PoolExhausted            (also SQLAlchemy's TimeoutError)
    ├── TransactionMisused       (also SQLAlchemy's InvalidRequestError)
    ├── TenantError              (also SQLAlchemy's InvalidRequestError)
    │   └── TenantRequired
    ├── DistributionError        (also SQLAlchemy's InvalidRequestError)
    ├── SettingsError            (also ValueError)
    ├── InvalidPage              (also ValueError)
    ├── InvalidToken             (also ValueError)
    ├── BulkError                (also ValueError)
    ├── ActivityError
    ├── ExplainError
    ├── AdviceError
    ├── ExaminationError
    └── MigrationError
    UncommittedChanges           a UserWarning
    LoadedWhenTouched            a UserWarning
    CrossShardQuery              a UserWarning
    RepeatedQuery                a UserWarning

Each says what happened, to which statement, attribute or setting, and what to do about it.  None carries a
parameter's value, a password or a whole URL.  Where SQLAlchemy has an exception for the same fault, ours is a
subclass of it, so that existing handlers still match.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy.exc import ArgumentError, DBAPIError, InvalidRequestError, MissingGreenlet, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout


class CatalysisError(Exception):
    """The base of everything Catalysis raises by itself."""


class ModelError(CatalysisError, InvalidRequestError, ArgumentError):
    """A model cannot be mapped or its table cannot be made; the message names the class and the mend."""


class AttributeNotLoaded(CatalysisError, MissingGreenlet):
    """An expired or deferred attribute was touched where nothing can wait for the database."""


class RelationshipNotLoaded(AttributeNotLoaded):
    """A relationship that no query loaded was touched where nothing can wait for the database."""


class UnsupportedStatement(CatalysisError, InvalidRequestError):
    """A statement that would not do what the model promises; nothing was sent."""


UNKNOWN_TO_DATABASE = frozenset({"40003", "08007"})
"""SQLSTATEs of a database that does not know itself how it ended: statement completion, transaction resolution unknown.

Source: PostgreSQL documentation, "PostgreSQL Error Codes"; CockroachDB's "result is ambiguous" is the first.
"""


class CommitOutcomeUnknown(CatalysisError, DBAPIError):
    """The connection was lost, or time was up, while a COMMIT was under way: nobody here knows whether it was done.

    So it is too where the database itself answers that it does not know (40003, 08007), as one of several nodes may.

    `statement` is None, or the statement that commits by itself.  `orig` is the driver's error, and the error that
    SQLAlchemy would have raised is the cause.  It is no OperationalError, which some take for "try again".
    """

    code = None  # SQLAlchemy's is the address of a page that says nothing of this

    def __init__(
        self, statement: str | None, params: Any, orig: BaseException, hide_parameters: bool = True, *_: Any
    ) -> None:
        """As SQLAlchemy makes and unpickles its errors; parameters are not kept."""
        super().__init__(statement, None, orig, hide_parameters=True, connection_invalidated=True)
        what = "COMMIT" if statement is None else "a statement that commits by itself"
        answered = getattr(orig, "sqlstate", None) in UNKNOWN_TO_DATABASE
        how = "The database lost track" if answered else "The connection was lost"
        why = type(getattr(orig, "driver_exception", orig)).__name__
        self.args = (
            f"{how} while {what} was under way ({why}): the transaction may or may not have been "
            "committed, whole in either case.  Look whether what it wrote is there, by a key that you chose, before "
            "you do it again; it was not run again by itself.",
        )


class NoAnswer(CatalysisError, OperationalError):
    """The database did not answer a statement in time, and the connection was given up; it may be running still.

    `statement` is the SQL, without its parameters; `orig` is the driver's error.  It is not tried again by itself:
    each time would take as long.
    """

    code = None

    def __init__(
        self, statement: str | None, params: Any, orig: BaseException, hide_parameters: bool = True, *_: Any
    ) -> None:
        """As SQLAlchemy makes and unpickles its errors; parameters are not kept."""
        super().__init__(statement, None, orig, hide_parameters=True, connection_invalidated=True)
        self.args = (
            "The database did not answer in time, and the connection was given up.  Either it cannot be reached any "
            "more, or the statement takes longer than DATABASE_ANSWER_TIMEOUT (DatabaseSettings.answer_timeout) "
            "allows: raise that for it, or bound it on the server by DATABASE_STATEMENT_TIMEOUT.",
        )


class CannotConnect(CatalysisError, OperationalError, TimeoutError):
    """No server let us in: it could not be reached, or not in time, has no connection left, or is none to write to.

    `orig` is the driver's error, or the last of those of several hosts.
    """

    code = None

    def __init__(
        self, statement: str | None, params: Any, orig: BaseException, hide_parameters: bool = True, *_: Any
    ) -> None:
        """As SQLAlchemy makes and unpickles its errors; `statement` is what was tried, and is no SQL."""
        super().__init__(statement, None, orig, hide_parameters=True)
        self.args = (
            f"No server let us in: {statement}.  See that one runs, can be reached and may be written to, or give "
            "it longer by DATABASE_CONNECT_TIMEOUT (DatabaseSettings.connect_timeout).",
        )

    def __str__(self) -> str:
        return str(self.args[0])


class PoolExhausted(CatalysisError, PoolTimeout):
    """No connection came free in time; the message says which lines hold those that there are, and for how long."""

    code = None


class TransactionMisused(CatalysisError, InvalidRequestError):
    """A transaction cannot be joined, or committed, as it was asked; nothing of it is kept."""

    sqlstate: str | None = None
    """Of the statement whose error was caught, where that is why."""


class TenantError(CatalysisError, InvalidRequestError):
    """A session of one tenant was about to read or write rows of another, or what nobody can limit to its own."""


class TenantRequired(TenantError):
    """A model that belongs to tenants was used in a session that has none."""


class DistributionError(CatalysisError, InvalidRequestError):
    """A statement says of a distributed table no value of the column that tells its shard; nothing was sent."""


class SettingsError(CatalysisError, ValueError):
    """A setting (`DATABASE_URL`, a pool size…) cannot be used; the message names it without its secrets."""


class InvalidPage(CatalysisError, ValueError):
    """A page, size or cursor is out of bounds or was not made by this query."""


class InvalidToken(CatalysisError, ValueError):
    """What was given as a write token is none."""


class BulkError(CatalysisError, ValueError):
    """A row of a bulk operation cannot be written; the message gives its number and column."""


class ActivityError(CatalysisError):
    """An activity, workflow or worker cannot be run as it was declared; another attempt would not help."""


class ExplainError(CatalysisError):
    """A statement cannot be explained on this database."""


class ExaminationError(CatalysisError):
    """A database cannot be examined at all: it is not there, or the connection was lost meanwhile."""


class AdviceError(CatalysisError):
    """A workload cannot be read, or indexes cannot be tried on this database; the message says what to do."""


class MigrationError(CatalysisError):
    """A migration command cannot go on; nothing was changed unless the message says so."""


class UncommittedChanges(UserWarning):
    """A session was left with work that was never committed; that work is lost."""


class LoadedWhenTouched(UserWarning):
    """An attribute was loaded because it was touched, in a session or relationship whose `strict_loading` warns."""


class CrossShardQuery(UserWarning):
    """A statement says of a distributed table no value of the column that tells its shard, so that all are asked."""


class RepeatedQuery(UserWarning):
    """One line sent the same statement again and again: a query in a loop."""


def no_choice(name: str, given: object, choices: Iterable[object]) -> ValueError:
    """The error of an argument, or option of a statement, that is none of those that there are."""
    return ValueError(f"{name}={given!r}: say one of {', '.join(map(repr, choices))}.")
