"""What the recorder keeps, and how much of it: everything here is bounded by `Limits`.

Times are Unix timestamps, durations seconds.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from catalysis.events import CallSite, DatabaseAddress


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept.  By these the recorder stays below `MOST_BYTES`, whatever the application sends."""

    scopes: int = 500
    executions_in_scope: int = 200
    executions: int = 20_000
    """Of all scopes; the oldest scopes lose theirs first.  One with long parameters counts as several."""
    statements: int = 500
    """Different ones; the longest unused goes first."""
    durations: int = 200
    """The latest of each statement."""
    sites: int = 12
    """The first lines that each statement was sent from."""
    sql: int = 8_000
    """Characters of one statement; the rest is cut off."""
    text: int = 4_000_000
    """Bytes of all statements, as they are sent and as they are shown."""
    transactions: int = 200
    transactions_in_scope: int = 20
    parameters: int = 500
    """Characters of the parameters of one execution, where they may be shown at all."""


MOST_BYTES = 32 * 2**20
PARAMETERS = 200
"""Bytes of an execution's parameters, each of which makes it count as one more."""
NAME = 200
"""Characters of a scope's name."""


@dataclass(slots=True, eq=False)
class Statement:
    """One SQL text, its literals masked unless they may be shown, and what became of its executions."""

    number: int
    sql: str
    short: str
    """On one line."""
    sent: str
    """As it was sent the last time, for EXPLAIN alone; cut off at `Limits.sql`."""
    is_cut: bool
    database: DatabaseAddress | None
    entity: str | None
    calls: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    rows: int = 0
    native: int = 0
    errors: int = 0
    last: float = 0.0
    reason: str | None = None
    """Why the latest of those that were not native was not."""
    error: str | None = None
    durations: deque[float] = field(default_factory=deque[float])
    sites: dict[CallSite, int] = field(default_factory=dict[CallSite, int])
    elsewhere: int = 0
    """Executions from lines beyond `Limits.sites`, or from no line of the user's."""
    parameters: Any = None
    """Of the latest execution, where they may be shown; None too if they are large."""

    @property
    def mean(self) -> float:
        """Seconds."""
        return self.seconds / self.calls if self.calls else 0.0

    @property
    def p95(self) -> float:
        """Seconds; of the latest executions."""
        ordered = sorted(self.durations)
        return ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))] if ordered else 0.0


class Execution(
    NamedTuple
):  # made for each statement that is sent: three times as quick as a frozen dataclass
    """One sending of a statement."""

    statement: int
    """Its number; the statement itself may be forgotten sooner than this."""
    started: float
    seconds: float
    rows: int | None
    native: bool
    reason: str | None
    error: str | None
    site: CallSite | None
    transaction: int | None
    parameters: str | None


@dataclass(slots=True, eq=False)
class RecordedTransaction:
    """A transaction that ended, or runs."""

    number: int
    started: float
    site: CallSite | None
    scope: int | None
    scope_name: str | None
    database: DatabaseAddress
    statements: int = 0
    last: float | None = None
    """When the latest statement in it ended."""
    seconds: float | None = None
    outcome: str | None = None


@dataclass(slots=True, eq=False)
class RecordedScope:
    """A request, websocket or activity, with the first of its executions and figures about all."""

    number: int
    kind: str
    name: str
    started: float
    seconds: float | None = None
    """None while it runs; so is `outcome`."""
    outcome: str | None = None
    statements: int = 0
    database_seconds: float = 0.0
    rows: int = 0
    native: int = 0
    errors: int = 0
    executions: list[Execution] = field(default_factory=list[Execution])
    weight: int = 0
    """What the executions count for."""
    forgotten: bool = False
    """Its executions had to make room."""
    counts: dict[tuple[int, CallSite], int] = field(default_factory=dict[tuple[int, CallSite], int])
    """By statement and line, as far as `Limits.executions_in_scope` goes."""
    transactions: list[RecordedTransaction] = field(default_factory=list[RecordedTransaction])

    def forget(self) -> None:
        """Keep the figures alone."""
        self.executions, self.counts, self.weight, self.forgotten = [], {}, 0, True

    @property
    def most_repeated(self) -> int:
        """How often the statement was sent that was sent most often from one line."""
        return max(self.counts.values(), default=0)
