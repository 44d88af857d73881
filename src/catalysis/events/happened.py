"""What is told of: frozen, and without a parameter's value.  Times are Unix timestamps, durations seconds."""

from dataclasses import dataclass, field
from itertools import count
from typing import Literal

from catalysis.events.sites import CallSite

_numbers = count(1)


def _number() -> int:
    return next(_numbers)


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """Which database a statement went to; no user, no password."""

    system: str
    """`postgresql`, `sqlite`…: SQLAlchemy's name of the dialect."""
    name: str | None
    """Of the database; SQLite: of its file."""
    host: str | None = None
    """The server's name; of several, all of them with their ports, separated by commas."""
    port: int | None = None
    role: Literal["primary", "replica"] = "primary"
    """What the server is to the application: where it writes, or one of the replicas that it reads from."""


@dataclass(slots=True, eq=False)
class Scope:
    """A request, a websocket or an activity, whose statements belong together."""

    kind: Literal["request", "websocket", "activity"]
    name: str
    """`GET /tasks/{task_id}`, with the route's placeholders once the route is known; an activity's name."""
    started: float
    number: int = field(default_factory=_number)


@dataclass(frozen=True, slots=True, eq=False)
class Transaction:
    """A transaction on one connection, which is lent as long as it lasts."""

    database: DatabaseAddress
    started: float
    site: CallSite | None
    scope: Scope | None
    number: int = field(default_factory=_number)


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
    started: float = 0.0
    database: DatabaseAddress | None = None
    """Where it went: to the primary, or to which replica."""
    scope: Scope | None = None
    """What it was sent for; None outside of requests and activities."""
    transaction: Transaction | None = None
    """The one it was sent in; None for a statement by itself."""

    @property
    def file(self) -> str | None:
        """The file of the user's code that sent the statement."""
        return self.site and self.site.file

    @property
    def line(self) -> int | None:
        """The line in that file."""
        return self.site and self.site.line


@dataclass(frozen=True, slots=True)
class TransactionEvent:
    """A transaction that ended; told when ROLLBACK is sent, and of a COMMIT when its connection is free again."""

    transaction: Transaction
    seconds: float
    outcome: Literal["commit", "rollback", "unknown"]
    """`rollback` also where the database refused the COMMIT; `unknown` where it gave no answer."""


@dataclass(frozen=True, slots=True)
class ScopeEvent:
    """A request, websocket or activity that ended."""

    scope: Scope
    seconds: float
    outcome: str
    """The response's status (`200`), `done` where there is none, or the class of the exception that ended it."""
