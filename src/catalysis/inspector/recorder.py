"""Keeps what was told of lately, in bounded memory; thinks, and never waits.

Where a statement runs, its event is put aside and nothing more.  What was put aside is sorted in when a page is asked
for, or when there is a heap of it.  Values of parameters are not even put aside, unless they may be shown.
"""

import sys
import threading
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, NamedTuple
from weakref import WeakSet

from catalysis.events import (
    CallSite,
    DatabaseAddress,
    Observer,
    QueryEvent,
    Scope,
    ScopeEvent,
    Transaction,
    TransactionEvent,
    open_transactions,
)
from catalysis.inspector.masking import mask, shorten
from catalysis.inspector.records import (
    NAME,
    PARAMETERS,
    Execution,
    Limits,
    RecordedScope,
    RecordedTransaction,
    Statement,
)
from catalysis.inspector.values import kept_values, text_of

unobserved: ContextVar[bool] = ContextVar("catalysis_inspector_unobserved", default=False)
"""Set while the panel works: what it does itself is not recorded."""

_HEAP = 128
"""Events that are put aside before they are sorted in unasked."""
_MOST_HEAP = 512
"""While another thread sorts or reads, more are put aside; from here on they wait for it."""
_LONGEST_WAIT = 1.0
"""Seconds; after that the oldest are lost."""


class _Ignored(NamedTuple):
    number: int


class _Valued(NamedTuple):
    event: QueryEvent
    text: str | None
    values: tuple[Any, ...] | None


_Key = tuple[str, DatabaseAddress | None]
_recorders: "WeakSet[Recorder]" = WeakSet()


class Recorder(Observer):
    """The latest scopes, statements and transactions of a process."""

    def __init__(self, limits: Limits | None = None, *, keeps_parameters: bool = False) -> None:
        self.limits = limits or Limits()
        self.keeps_parameters = keeps_parameters
        self.version = 0
        """Grows with everything that is recorded."""
        self._heap: deque[Any] = deque(maxlen=_MOST_HEAP)
        self._sorting = threading.Lock()
        self._numbers = 0
        self._empty()
        _recorders.add(self)

    def _empty(self) -> None:
        self._scopes: dict[int, RecordedScope] = {}
        self._executions = 0
        self._statements: dict[_Key, Statement] = {}
        self._by_number: dict[int, Statement] = {}
        self._by_sent: dict[_Key, Statement] = {}
        self._text = 0
        self._sites: dict[CallSite, CallSite] = {}
        self._open: dict[int, RecordedTransaction] = {}
        self._ended: deque[RecordedTransaction] = deque(maxlen=self.limits.transactions)
        self._ignored: set[int] = set()

    # --- Where it happens: nothing but putting aside ----------------------------------------------

    def on_statement(self, happened: QueryEvent, parameters: Any) -> None:
        """Put it aside."""
        if unobserved.get():
            return
        if len(happened.sql) > self.limits.sql:
            happened = replace(happened, sql=happened.sql[: self.limits.sql])
        if self.keeps_parameters:
            text = text_of(parameters, self.limits.parameters)
            self.put(_Valued(happened, text, kept_values(parameters)))
        else:
            self.put(happened)

    def on_transaction_begun(self, transaction: Transaction) -> None:
        """Put it aside."""
        if not unobserved.get():
            self.put(transaction)

    def on_transaction_ended(self, happened: TransactionEvent) -> None:
        """Put it aside."""
        if not unobserved.get():
            self.put(happened)

    def on_scope_started(self, scope: Scope) -> None:
        """Put it aside."""
        self.put(scope)

    def on_scope_ended(self, happened: ScopeEvent) -> None:
        """Put it aside."""
        self.put(happened)

    def ignore(self, scope: Scope) -> None:
        """Record nothing of this scope, which is running: neither here nor in another recorder of the process."""
        for recorder in list(_recorders):
            recorder.put(_Ignored(scope.number))

    def put(self, happened: Any) -> None:
        """Put aside what was told of."""
        self._heap.append(happened)
        if (waiting := len(self._heap)) >= _HEAP:
            self._sort(_LONGEST_WAIT if waiting >= _MOST_HEAP // 2 else 0)

    # --- Sorting in -------------------------------------------------------------------------------

    def _sort(self, longest_wait: float) -> None:
        """Sort in what was put aside, unless another thread is at it for so many seconds."""
        if self._sorting.acquire(blocking=longest_wait > 0, timeout=longest_wait or -1):
            try:
                self._sort_all()
            finally:
                self._sorting.release()

    def _sort_all(self) -> None:
        while self._heap:
            self._sort_in(self._heap.popleft())

    def _sort_in(self, happened: Any) -> None:
        parameters, values = None, None
        if isinstance(happened, _Ignored):
            self._ignore(happened.number)
            return
        if isinstance(happened, _Valued):
            happened, parameters, values = happened
        if self._ignored and self._is_ignored(happened):
            return
        self.version += 1
        if isinstance(happened, QueryEvent):
            self._add_execution(happened, parameters, values)
        elif isinstance(happened, Scope):
            self._add_scope(happened)
        elif isinstance(happened, ScopeEvent):
            self._end_scope(happened)
        elif isinstance(happened, Transaction):
            self._add_transaction(happened)
        elif isinstance(happened, TransactionEvent):
            self._end_transaction(happened)

    def _ignore(self, number: int) -> None:
        self._ignored.add(number)
        if len(self._ignored) > _MOST_HEAP:  # of scopes whose end is not heard
            self._ignored.discard(min(self._ignored))
        if (scope := self._scopes.pop(number, None)) is not None:
            self._executions -= scope.weight
            self.version -= 1

    def _is_ignored(self, happened: Any) -> bool:
        if isinstance(happened, ScopeEvent):
            if (number := happened.scope.number) not in self._ignored:
                return False
            self._ignored.discard(number)
            return True
        scope = (
            happened.transaction.scope
            if isinstance(happened, TransactionEvent)
            else getattr(happened, "scope", None)
        )
        return scope is not None and scope.number in self._ignored

    # --- Scopes -----------------------------------------------------------------------------------

    def _add_scope(self, scope: Scope) -> RecordedScope:
        recorded = RecordedScope(scope.number, scope.kind, scope.name[:NAME], scope.started)
        self._scopes[scope.number] = recorded
        if len(self._scopes) > self.limits.scopes:
            oldest = self._scopes.pop(next(iter(self._scopes)))
            self._executions -= oldest.weight
        return recorded

    def _end_scope(self, happened: ScopeEvent) -> None:
        if (recorded := self._scopes.get(happened.scope.number)) is not None:
            recorded.name = happened.scope.name[:NAME]
            recorded.seconds = happened.seconds
            recorded.outcome = happened.outcome[:NAME]

    def _make_room(self) -> None:
        """Take the executions of the oldest scopes that have some."""
        for scope in self._scopes.values():
            if self._executions <= self.limits.executions:
                return
            if scope.executions:
                self._executions -= scope.weight
                scope.forget()

    # --- Statements -------------------------------------------------------------------------------

    def _add_execution(self, event: QueryEvent, parameters: str | None, values: Any) -> None:
        site = None if event.site is None else self._site(event.site)
        statement = self._statement(event)
        self._count(statement, event, site, values)
        transaction = None if event.transaction is None else self._open.get(event.transaction.number)
        if transaction is not None:
            transaction.statements += 1
            transaction.last = event.started + event.seconds
        scope = None if event.scope is None else self._scopes.get(event.scope.number)
        if scope is None:
            return
        scope.statements += 1
        scope.database_seconds += event.seconds
        scope.rows += event.rows or 0
        scope.native += event.native
        scope.errors += event.error is not None
        if site is not None and not scope.forgotten:
            key = (statement.number, site)
            if key in scope.counts or len(scope.counts) < self.limits.executions_in_scope:
                scope.counts[key] = scope.counts.get(key, 0) + 1
        if len(scope.executions) < self.limits.executions_in_scope and not scope.forgotten:
            scope.executions.append(
                Execution(
                    statement.number,
                    event.started,
                    event.seconds,
                    event.rows,
                    event.native,
                    event.reason,
                    event.error,
                    site,
                    event.transaction and event.transaction.number,
                    parameters,
                )
            )
            weight = 1 if parameters is None else 1 + _size(parameters) // PARAMETERS
            scope.weight += weight
            self._executions += weight
            if self._executions > self.limits.executions:
                self._make_room()

    def _site(self, site: CallSite) -> CallSite:
        """The same line as one object."""
        if (known := self._sites.get(site)) is None:
            if len(self._sites) >= self.limits.statements * 4:
                self._sites.clear()
            known = self._sites[site] = site
        return known

    def _statement(self, event: QueryEvent) -> Statement:
        statement = self._by_sent.get((event.sql, event.database))
        if statement is None:
            shown = event.sql if self.keeps_parameters else mask(event.sql)
            statement = self._statements.get((shown, event.database)) or self._new_statement(shown, event)
            self._send(statement, event.sql)
        # To the end: the first is the one that was not used for longest.
        key = statement.sql, statement.database
        self._statements[key] = self._statements.pop(key)
        while len(self._statements) > self.limits.statements or self._text > self.limits.text:
            oldest = self._statements.pop(next(iter(self._statements)))
            del self._by_number[oldest.number], self._by_sent[oldest.sent, oldest.database]
            self._text -= _size(oldest.sql) + _size(oldest.sent)
        return statement

    def _new_statement(self, shown: str, event: QueryEvent) -> Statement:
        self._numbers += 1
        is_cut = len(event.sql) >= self.limits.sql
        statement = Statement(self._numbers, shown, shorten(shown), "", is_cut, event.database, event.entity)
        statement.durations = deque(maxlen=self.limits.durations)
        self._statements[shown, event.database] = self._by_number[statement.number] = statement
        self._text += _size(shown) + _size("")
        return statement

    def _send(self, statement: Statement, sent: str) -> None:
        """Note the text it was sent as; only literals differ from the one before."""
        self._by_sent.pop((statement.sent, statement.database), None)
        self._text += _size(sent) - _size(statement.sent)
        statement.sent, statement.parameters = sent, None
        self._by_sent[sent, statement.database] = statement

    def _count(self, statement: Statement, event: QueryEvent, site: CallSite | None, values: Any) -> None:
        statement.calls += 1
        statement.seconds += event.seconds
        statement.slowest = max(statement.slowest, event.seconds)
        statement.durations.append(event.seconds)
        statement.rows += event.rows or 0
        statement.last = event.started
        if event.error is None:
            statement.parameters = values
        else:
            statement.errors += 1
            statement.error = event.error
        if event.native:
            statement.native += 1
        else:
            statement.reason = event.reason
        if site is not None and (site in statement.sites or len(statement.sites) < self.limits.sites):
            statement.sites[site] = statement.sites.get(site, 0) + 1
        else:
            statement.elsewhere += 1

    # --- Transactions -----------------------------------------------------------------------------

    def _add_transaction(self, transaction: Transaction) -> None:
        scope = transaction.scope
        recorded = RecordedTransaction(
            transaction.number,
            transaction.started,
            transaction.site and self._site(transaction.site),
            scope and scope.number,
            scope and scope.name[:NAME],
            transaction.database,
        )
        self._open[transaction.number] = recorded
        if len(self._open) > self.limits.transactions:  # those of connections that were lost never end
            self._keep_open()
        while len(self._open) > self.limits.transactions:
            del self._open[next(iter(self._open))]
        held = None if scope is None else self._scopes.get(scope.number)
        if held is not None and len(held.transactions) < self.limits.transactions_in_scope:
            held.transactions.append(recorded)

    def _keep_open(self) -> None:
        running = {each.number for each in open_transactions()}
        self._open = {number: each for number, each in self._open.items() if number in running}

    def _end_transaction(self, happened: TransactionEvent) -> None:
        if (recorded := self._open.pop(happened.transaction.number, None)) is not None:
            recorded.seconds, recorded.outcome = happened.seconds, happened.outcome
            self._ended.append(recorded)

    # --- Asked for by the pages -------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Generator[None]:
        """Sort in what was put aside; for the length of the block nothing changes."""
        with self._sorting:
            self._sort_all()
            yield

    def scopes(self) -> list[RecordedScope]:
        """Newest first; as all below, to be asked for while `reading`."""
        return list(reversed(self._scopes.values()))

    def scope(self, number: int) -> RecordedScope | None:
        """One of them, while it is kept."""
        return self._scopes.get(number)

    def statements(self) -> list[Statement]:
        """In no order that means anything."""
        return list(self._statements.values())

    def statement(self, number: int) -> Statement | None:
        """One of them, while it is kept."""
        return self._by_number.get(number)

    def open_transactions(self) -> list[RecordedTransaction]:
        """Those that run now, oldest first."""
        self._keep_open()
        return sorted(self._open.values(), key=lambda each: each.started)

    def ended_transactions(self) -> list[RecordedTransaction]:
        """The latest that ended, newest first."""
        return list(reversed(self._ended))

    def changes_by_itself(self) -> bool:
        """Whether something runs, whose duration grows."""
        return bool(self._open) or any(each.seconds is None for each in self._scopes.values())

    def clear(self) -> None:
        """Forget everything but what runs."""
        with self.reading():
            running = {number: each for number, each in self._scopes.items() if each.seconds is None}
            open_, ignored = self._open, self._ignored
            self._empty()
            for each in running.values():
                each.forget()
            self._scopes, self._open, self._ignored = running, open_, ignored
            self.version += 1


def _size(text: str) -> int:
    """Bytes: a text with one rare character takes four for each."""
    return sys.getsizeof(text)
