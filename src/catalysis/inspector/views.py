"""What the pages show, worked out of the records: frozen, and without waiting."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from catalysis.events import CallSite
from catalysis.inspector.recorder import Recorder
from catalysis.inspector.records import Execution, RecordedScope, RecordedTransaction, Statement
from catalysis.tools.watch import Repeated, repeated

SHOWN_SCOPES = 100
REPEATED = 3
"""Executions of a statement from one line that make it a repeated one, as in `watch_queries`."""
IDLE = 1.0
"""Seconds without a statement after which a transaction stands out."""

Tone = Literal["good", "notice", "bad", "running"]


# --- Requests and activities ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScopeRow:
    """One request, websocket or activity in the list."""

    number: int
    kind: str
    verb: str
    """GET, WEBSOCKET, ACTIVITY…"""
    name: str
    outcome: str
    tone: Tone
    started: float
    seconds: float
    statements: int
    database_seconds: float
    share: float
    """Of its time that went to the database; statements at the same time count each, up to 1."""
    rows: int
    native: int
    fallbacks: int
    errors: int
    most_repeated: int

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.tone == "running"

    @property
    def is_repeated(self) -> bool:
        """Whether a statement was sent again and again."""
        return self.most_repeated >= REPEATED


def scope_row(scope: RecordedScope) -> ScopeRow:
    """The figures of one scope, which may still be running."""
    verb, _, name = (
        scope.name.partition(" ") if scope.kind != "activity" else (scope.kind.upper(), "", scope.name)
    )
    seconds = max(0.0, time.time() - scope.started) if scope.seconds is None else scope.seconds
    return ScopeRow(
        scope.number,
        scope.kind,
        verb,
        name,
        scope.outcome or "running",
        _tone(scope),
        scope.started,
        seconds,
        scope.statements,
        scope.database_seconds,
        min(1.0, scope.database_seconds / seconds) if seconds else 0.0,
        scope.rows,
        scope.native,
        scope.statements - scope.native,
        scope.errors,
        scope.most_repeated,
    )


def _tone(scope: RecordedScope) -> Tone:
    if scope.outcome is None:
        return "running"
    if scope.outcome == "done" or scope.outcome[:1] in "123":
        return "good"
    return "notice" if scope.outcome[:1] == "4" else "bad"


@dataclass(frozen=True, slots=True)
class ScopeList:
    """The newest that were asked for."""

    rows: tuple[ScopeRow, ...]
    kept: int
    matching: int
    running: int


def scope_list(recorder: Recorder, wanted: str) -> ScopeList:
    """Those whose name or outcome holds `wanted`, newest first."""
    kept = recorder.scopes()
    words = wanted.lower().split()
    matching = [each for each in kept if all(word in f"{each.name} {each.outcome}".lower() for word in words)]
    running = sum(each.seconds is None for each in kept)
    return ScopeList(
        tuple(scope_row(each) for each in matching[:SHOWN_SCOPES]), len(kept), len(matching), running
    )


# --- One of them ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch of time as shares of the scope's, for a picture."""

    left: float
    width: float


@dataclass(frozen=True, slots=True)
class Step:
    """Executions of one statement from one line, one after the other; mostly it is a single one."""

    position: int
    """Of the first, from 1."""
    statement: Statement | None
    executions: tuple[Execution, ...]
    bars: tuple[Bar, ...]
    is_repeated: bool
    """With others of the scope, this or another step's."""
    transaction: str | None

    @property
    def first(self) -> Execution:
        """Which stands for all: they differ in time, rows and outcome alone."""
        return self.executions[0]

    @property
    def seconds(self) -> float:
        """Of all."""
        return sum(each.seconds for each in self.executions)

    @property
    def rows(self) -> int | None:
        """Of all; None if no one knows."""
        known = [each.rows for each in self.executions if each.rows is not None]
        return sum(known) if known else None

    @property
    def error(self) -> str | None:
        """Of the first that failed."""
        return next((each.error for each in self.executions if each.error), None)


@dataclass(frozen=True, slots=True)
class Group:
    """A statement that one line sent again and again."""

    repeated: Repeated
    statement: Statement


@dataclass(frozen=True, slots=True)
class NamedTransaction:
    """A transaction of a scope, with the short name it has there."""

    name: str
    recorded: RecordedTransaction
    bar: Bar
    seconds: float


@dataclass(frozen=True, slots=True)
class ScopePage:
    """A scope with all that is kept of it."""

    row: ScopeRow
    steps: tuple[Step, ...]
    is_grouped: bool
    hidden: int
    """Executions that are counted and not kept."""
    forgotten: bool
    groups: tuple[Group, ...]
    transactions: tuple[NamedTransaction, ...]


def scope_page(recorder: Recorder, scope: RecordedScope, *, grouped: bool) -> ScopePage:
    """Its statements in the order they were sent; if `grouped`, the same one after the other as one step."""
    row = scope_row(scope)
    executions = sorted(scope.executions, key=lambda each: each.started)
    groups = _groups(recorder, scope)
    named = {each.number: f"T{n}" for n, each in enumerate(scope.transactions, 1)}
    in_loops = {(group.statement.number, group.repeated.site) for group in groups}
    parts = (
        [tuple(part) for _, part in groupby(executions, key=_same)] if grouped else [(e,) for e in executions]
    )
    steps: list[Step] = []
    position = 1
    for part in parts:
        first = part[0]
        bars = tuple(_bar(row, each.started, each.seconds) for each in part)
        in_loop = (first.statement, first.site) in in_loops
        transaction = named.get(first.transaction) if first.transaction else None
        steps.append(Step(position, recorder.statement(first.statement), part, bars, in_loop, transaction))
        position += len(part)
    return ScopePage(
        row,
        tuple(steps),
        len(steps) < len(executions),
        scope.statements - len(executions),
        scope.forgotten,
        groups,
        tuple(_named(row, named[each.number], each) for each in scope.transactions),
    )


def _same(execution: Execution) -> tuple[int, CallSite | None, int | None, bool]:
    return execution.statement, execution.site, execution.transaction, execution.native


def _groups(recorder: Recorder, scope: RecordedScope) -> tuple[Group, ...]:
    counts: dict[tuple[str, CallSite, str | None], int] = {}
    statements: dict[str, Statement] = {}
    for (number, site), count in scope.counts.items():
        if count >= REPEATED and (statement := recorder.statement(number)) is not None:
            counts[statement.sql, site, statement.entity] = count
            statements[statement.sql] = statement
    return tuple(Group(each, statements[each.sql]) for each in repeated(counts, REPEATED))


def _bar(row: ScopeRow, started: float, seconds: float) -> Bar:
    whole = row.seconds or 1e-9
    left = min(1.0, max(0.0, (started - row.started) / whole))
    return Bar(left, min(1.0 - left, seconds / whole))


def _named(row: ScopeRow, name: str, recorded: RecordedTransaction) -> NamedTransaction:
    seconds = held(recorded)
    return NamedTransaction(name, recorded, _bar(row, recorded.started, seconds), seconds)


# --- Transactions ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TransactionRow:
    """A transaction, and how long its connection has been held."""

    recorded: RecordedTransaction
    seconds: float
    quiet: float
    """Seconds since its latest statement ended, or since it began."""
    has_scope: bool
    """Whether the scope is still kept."""

    @property
    def is_idle(self) -> bool:
        """Whether it runs, and nothing was heard of it for long."""
        return self.recorded.outcome is None and self.quiet >= IDLE


def held(recorded: RecordedTransaction) -> float:
    """Seconds, until now for one that runs."""
    return max(0.0, time.time() - recorded.started) if recorded.seconds is None else recorded.seconds


def transaction_rows(
    recorder: Recorder, transactions: Iterable[RecordedTransaction]
) -> tuple[TransactionRow, ...]:
    """In the order given."""
    return tuple(
        TransactionRow(
            each,
            held(each),
            max(0.0, time.time() - (each.last or each.started)),
            each.scope is not None and recorder.scope(each.scope) is not None,
        )
        for each in transactions
    )


# --- Statements -----------------------------------------------------------------------------------

ORDERS: dict[str, Callable[[Statement], float]] = {
    "total": lambda each: each.seconds,
    "calls": lambda each: each.calls,
    "mean": lambda each: each.mean,
    "p95": lambda each: each.p95,
    "max": lambda each: each.slowest,
    "rows": lambda each: each.rows,
    "native": lambda each: each.native / each.calls,
    "errors": lambda each: each.errors,
    "latest": lambda each: each.last,
}
"""What the list of statements may be ordered by, the largest first."""


def statement_list(statements: Sequence[Statement], order: str, wanted: str) -> list[Statement]:
    """Those whose SQL holds all words of `wanted`."""
    words = wanted.lower().split()
    matching = [each for each in statements if all(word in each.sql.lower() for word in words)]
    return sorted(matching, key=ORDERS[order], reverse=True)


FEWEST_PLACES = 40
"""For bars: a few calls do not fill the picture."""


@dataclass(frozen=True, slots=True)
class History:
    """The latest durations of a statement, as bars of a picture."""

    bars: tuple[Bar, ...]
    """`left` is the place, `width` here the height, both as shares of 1."""
    width: float
    """Of each bar."""
    seconds: tuple[float, ...]
    largest: float
    p95: float


def history(statement: Statement) -> History:
    """Oldest first; its tallest bar is the slowest of those shown."""
    shown = list(statement.durations)
    places = max(len(shown), FEWEST_PLACES)
    largest = max(shown, default=0.0) or 1e-9
    bars = tuple(
        Bar(n / places, max(0.02, each / largest)) for n, each in enumerate(shown, places - len(shown))
    )
    return History(bars, 0.7 / places, tuple(shown), largest, statement.p95)
