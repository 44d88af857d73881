"""What is told of an activity's failure: whether another attempt may help, in words without SQL, values or secrets.

A failure goes into the workflow's history, which many people read and which is kept for long.
"""

import sqlite3
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    NoResultFound,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm.exc import StaleDataError

from catalysis.errors import CannotConnect, CatalysisError, CommitOutcomeUnknown
from catalysis.integrations.constraints import violated_constraint

_FINAL_CLASSES = ("21", "22", "23", "2F", "42", "44", "P0")
"""Classes of SQLSTATEs that the same statement meets again: data, constraints, syntax and names, raised by a trigger.

Source: PostgreSQL documentation, "PostgreSQL Error Codes".
"""

_PASSING_ON_SQLITE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
    }
)
"""Source: SQLite documentation, "Result and Error Codes"."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as it may be told."""

    type: str
    """The class of the error, which `Retry.never` may name."""
    message: str
    retryable: bool


def failure_of(error: BaseException, *, is_once: bool = False) -> Failure | None:
    """What is told instead of the error; None where it is the application's own, which is told as it is.

    `is_once`: another attempt does nothing twice.
    """
    name = type(error).__name__
    match error:
        case BaseExceptionGroup():
            return _of_group(error, is_once)
        case CommitOutcomeUnknown():
            return Failure(
                name, str(error) if not is_once else "Whether it was committed is unknown.", is_once
            )
        case ValidationError():
            return Failure(name, _places_of(error), False)
        case CannotConnect():
            return Failure(name, "No server let us in.", True)
        case CatalysisError():  # none carries a value
            cause = error.__cause__ and failure_of(error.__cause__)
            lost = isinstance(error.__cause__, OSError) or (cause is not None and cause.retryable)
            return Failure(name, str(error), lost)
        case PoolTimeout():
            return Failure(name, "No connection became free in time.", True)
        case IntegrityError():
            violation = violated_constraint(error)
            which = f" ({violation.constraint})" if violation.constraint else ""
            return Failure(name, f"{violation.message}{which}", False)
        case DBAPIError():
            return _of_driver(error)
        case StaleDataError():
            return Failure(name, "A row was changed by somebody else meanwhile.", True)
        case NoResultFound():
            return Failure(name, "No row was found when one was required.", False)
        case SQLAlchemyError():
            return Failure(name, "A statement or session is not used as it must be.", False)
        case _:
            return None


def _of_driver(error: DBAPIError) -> Failure:
    name, original = type(error).__name__, error.orig
    state = getattr(original, "sqlstate", None)
    code = getattr(original, "sqlite_errorcode", None)
    if error.connection_invalidated:
        final = False
    elif state:
        final = state[:2] in _FINAL_CLASSES
    elif code is not None:
        final = code & 0xFF not in _PASSING_ON_SQLITE  # the low byte; the others say more of the same
    else:  # of the driver: a value that it could not send, or anything about the connection
        told = getattr(original, "driver_exception", None) or original
        final = isinstance(error, DataError | ProgrammingError) or isinstance(
            told, ValueError | OverflowError
        )
    what = state or getattr(original, "sqlite_errorname", None) or type(original).__name__
    if final:
        return Failure(name, f"The database refuses the statement ({what}).", False)
    return Failure(name, f"The database could not do it now ({what}).", True)


def _of_group(group: BaseExceptionGroup[BaseException], is_once: bool) -> Failure | None:
    """Of a task group's errors: that of one for which no attempt helps, else that of any of the database's."""
    found = [failure_of(each, is_once=is_once) for each in group.exceptions]
    known = [each for each in found if each is not None]
    return min(known, key=lambda each: each.retryable, default=None)


def _places_of(error: ValidationError) -> str:
    """Where, and of which kind; a message of Pydantic's quotes the input."""
    faults = error.errors(include_input=False, include_url=False, include_context=False)
    places = [f"{'.'.join(map(str, each['loc'])) or 'it'} ({each['type']})" for each in faults[:5]]
    more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
    return f"{error.title} is not valid: {', '.join(places)}{more}."


@contextmanager
def told_to_temporal(*, is_once: bool) -> Generator[None]:
    """What is raised inside as Temporal's `ApplicationError`, retryable or not.

    Raises:
        ApplicationError: for the database's, Pydantic's and our own errors.  Others pass, without those that they
            came from, which Temporal would tell with their text.
    """
    try:
        yield
    except Exception as error:
        failure = failure_of(error, is_once=is_once)
        if failure is None:
            _hide_origins(error)
            raise
        told = _application_error(failure)
        # The lines that led there are told, which have no values in them; `from None`, because the log of the worker
        # and the failure would show the error that this stands for.
        raise told.with_traceback(error.__traceback__) from None


def _application_error(failure: Failure) -> Any:
    from temporalio.exceptions import ApplicationError

    return ApplicationError(failure.message, type=failure.type, non_retryable=not failure.retryable)


def _hide_origins(error: BaseException) -> None:
    for each in _chain(error):
        if each.__cause__ is not None and (failure := failure_of(each.__cause__)) is not None:
            each.__cause__ = _application_error(failure)
        elif each.__context__ is not None and (failure := failure_of(each.__context__)) is not None:
            each.__context__ = _application_error(failure)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
