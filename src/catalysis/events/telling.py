"""Telling those who listen."""

import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from catalysis.events.happened import QueryEvent, Scope, ScopeEvent, Transaction, TransactionEvent

Listener = Callable[[QueryEvent], None]


class Observer:
    """Override what is wanted, and `observe` it.

    Everything is called where it happens: it must be quick and must not raise.
    """

    def on_statement(self, happened: QueryEvent, parameters: Any) -> None:
        """A statement ended.

        `parameters` are the values as the driver got them, a sequence for one execution and a list of such for many:
        nothing of them is in the event, and whoever keeps them keeps secrets.
        """

    def on_transaction_begun(self, transaction: Transaction) -> None:
        """A connection began a transaction, and is lent until its end."""

    def on_transaction_ended(self, happened: TransactionEvent) -> None:
        """A transaction ended, of those that began while somebody listened."""

    def on_scope_started(self, scope: Scope) -> None:
        """A request, websocket or activity began."""

    def on_scope_ended(self, happened: ScopeEvent) -> None:
        """It ended."""


class _Listeners:
    changing = threading.Lock()
    observers: tuple[Observer, ...] = ()
    count = 0
    """Of all who listen, those of a context included."""
    are_attached = False
    """To SQLAlchemy's events."""


listeners = _Listeners()
in_context: ContextVar[tuple[Listener, ...]] = ContextVar("catalysis_listeners", default=())


def is_heard() -> bool:
    """Whether anybody listens."""
    return listeners.count > 0


def emit(happened: QueryEvent, parameters: Any) -> None:
    """Tell of a statement."""
    for listener in in_context.get():
        listener(happened)
    for observer in listeners.observers:
        observer.on_statement(happened, parameters)
