"""One frozen `QueryEvent` a statement, and who hears of it.

Statements are heard through SQLAlchemy's public cursor events, attached only while somebody listens: nobody
listening costs nothing.  An event carries SQL and never a parameter's value.
"""

import inspect
import os
import sysconfig
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter
from typing import Any

import greenlet
import sqlalchemy
import sqlmodel
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, ExceptionContext

NOT_A_READ = "not a read of a session"
fallback_reason: ContextVar[str] = ContextVar("catalysis_fallback_reason", default=NOT_A_READ)
"""Why the statements that SQLAlchemy runs now are not native; set around each fallback."""


@dataclass(frozen=True, slots=True)
class CallSite:
    """A line of the user's code."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class QueryEvent:
    """One statement that was sent to the database."""

    sql: str
    seconds: float
    """From sending the statement to the end of its execution; fetching is included where the driver buffers."""
    rows: int | None
    """Rows returned or changed; None where the driver does not say."""
    native: bool
    reason: str | None
    """Why the statement was not native; None for a native one."""
    error: str | None
    """The class of the exception the database answered with; None for a statement that succeeded."""
    site: CallSite | None
    entity: str | None = None
    """The mapped class the statement is about, where that is known."""

    @property
    def file(self) -> str | None:
        """The file of the user's code that sent the statement."""
        return self.site and self.site.file

    @property
    def line(self) -> int | None:
        """The line in that file."""
        return self.site and self.site.line


Listener = Callable[[QueryEvent], None]

_subscribers: list[Listener] = []
_in_context: ContextVar[tuple[Listener, ...]] = ContextVar("catalysis_listeners", default=())
_listening = 0


def subscribe(listener: Listener) -> Callable[[], None]:
    """Call `listener` with every statement of the process; returns the function that ends it.

    The listener runs where the statement ran: it must be quick and must not raise.
    """
    _subscribers.append(listener)
    _start_listening()
    subscribed = True

    def unsubscribe() -> None:
        nonlocal subscribed
        if subscribed:
            subscribed = False
            _subscribers.remove(listener)
            _stop_listening()

    return unsubscribe


@contextmanager
def heard_in_context(listener: Listener) -> Generator[None]:
    """Call `listener` with the statements of this task and of the tasks it starts, and with no others."""
    listening = True

    def hear(happened: QueryEvent) -> None:
        if listening:
            listener(happened)

    token = _in_context.set((*_in_context.get(), hear))
    _start_listening()
    try:
        yield
    finally:
        listening = False
        _stop_listening()
        with suppress(ValueError):  # a generator may be closed in another context than it was started in
            _in_context.reset(token)


def is_heard() -> bool:
    """Whether anybody listens."""
    return _listening > 0


def emit(happened: QueryEvent) -> None:
    """Tell everyone who listens."""
    for listener in (*_in_context.get(), *_subscribers):
        listener(happened)


# --- The user's line ------------------------------------------------------------------------------

_LIBRARIES = tuple(
    os.path.dirname(path) + os.sep
    for path in (sqlalchemy.__file__, sqlmodel.__file__, greenlet.__file__, __file__)
    if path
)
_STANDARD_LIBRARY = sysconfig.get_path("stdlib") + os.sep
_SITE_PACKAGES = sysconfig.get_path("purelib") + os.sep
_STARTER = os.path.join(os.path.dirname(__file__), "starter") + os.sep


@lru_cache(maxsize=10_000)
def _is_users(file: str) -> bool:
    if file.startswith(_STARTER):
        return True
    if file.startswith(_LIBRARIES) or file.startswith(
        "<"
    ):  # "<string>" is generated code, SQLAlchemy's for one
        return False
    return not file.startswith(_STANDARD_LIBRARY) or file.startswith(_SITE_PACKAGES)


_COROUTINE = inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE | inspect.CO_ASYNC_GENERATOR


def call_site() -> CallSite | None:
    """The innermost line that is neither ours, SQLAlchemy's nor the standard library's; None if there is none.

    SQLAlchemy executes inside a greenlet, whose frames end at `greenlet_spawn`; the coroutine that awaits it
    stands in the parent greenlet, so the walk goes on there.  A plain function below a coroutine is what drives
    its task: whoever runs the event loop has not sent the statement, so the walk ends there.
    """
    frame = inspect.currentframe()
    current: Any = greenlet.getcurrent()
    in_task = False
    while current is not None:
        while frame is not None:
            code = frame.f_code
            if in_task and not code.co_flags & (_COROUTINE | inspect.CO_GENERATOR):
                return None
            if _is_users(code.co_filename):
                return CallSite(code.co_filename, frame.f_lineno, code.co_qualname)
            in_task = in_task or bool(code.co_flags & _COROUTINE)
            frame = frame.f_back
        current = current.parent
        frame = current.gr_frame if current is not None else None
    return None


# --- Where instances came from -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Origin:
    """The statement that loaded an instance."""

    sql: str
    site: CallSite | None

    def __str__(self) -> str:
        place = "" if self.site is None else f" at {self.site}"
        sql = " ".join(self.sql.split())
        return f"the statement{place}: {sql if len(sql) <= _SHOWN else sql[:_SHOWN] + ' …'}"


_SHOWN = 200
ORIGINS = 4_096
"""The loads that are remembered; an error about an instance of an older one does not name its statement."""
_origins: list[tuple[int, str, CallSite | None, int] | None] = [None] * ORIGINS


def note_origin(number: int, sql: str, rows: int) -> None:
    """Remember which statement a load was of, and its rows; SQLAlchemy numbers loads through the process."""
    _origins[number % ORIGINS] = (number, sql, call_site(), rows)


def rows_of(number: int | None) -> int:
    """The rows of a load, as long as it is remembered; else 0."""
    found = None if number is None else _origins[number % ORIGINS]
    return found[3] if found is not None and found[0] == number else 0


def origin_of(number: int | None) -> Origin | None:
    """The statement of a load, as long as it is remembered."""
    found = None if number is None else _origins[number % ORIGINS]
    return None if found is None or found[0] != number else Origin(found[1], found[2])


# --- SQLAlchemy's cursor events -------------------------------------------------------------------

_STARTED = "catalysis_statement_started"


def _before(
    conn: Connection, cursor: Any, sql: str, parameters: Any, context: Any, many: bool
) -> tuple[str, Any]:
    conn.info[_STARTED] = perf_counter()
    return sql, parameters


def _after(conn: Connection, cursor: Any, sql: str, parameters: Any, context: Any, many: bool) -> None:
    count = cursor.rowcount
    _emit_from(conn, sql, rows=count if count >= 0 else None, error=None)


def _failed(failure: ExceptionContext) -> None:
    if failure.connection is not None and failure.statement is not None:
        _emit_from(
            failure.connection, failure.statement, rows=None, error=type(failure.original_exception).__name__
        )


def _emit_from(conn: Connection, sql: str, *, rows: int | None, error: str | None) -> None:
    ended = perf_counter()
    started = ended if conn.invalidated else conn.info.pop(_STARTED, ended)
    emit(QueryEvent(sql, ended - started, rows, False, fallback_reason.get(), error, call_site()))


_HOOKS: tuple[tuple[str, Any, bool], ...] = (
    ("before_cursor_execute", _before, True),  # with a return value SQLAlchemy keeps the function as it is
    ("after_cursor_execute", _after, False),
    ("handle_error", _failed, False),
)
OWN_HOOKS = frozenset({_before, _after})
"""The listeners above, which the native path does without: it emits its own events."""


def _start_listening() -> None:
    global _listening
    _listening += 1
    if _listening == 1:
        for name, hook, returns in _HOOKS:
            event.listen(Engine, name, hook, **({"retval": True} if returns else {}))


def _stop_listening() -> None:
    global _listening
    _listening -= 1
    if _listening == 0:
        for name, hook, _ in _HOOKS:
            event.remove(Engine, name, hook)
