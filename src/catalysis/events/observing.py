"""Who hears of what happens: a process in which nobody listens pays nothing."""

from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any

from catalysis.events.happened import QueryEvent
from catalysis.events.hooks import attach, detach
from catalysis.events.telling import Listener, Observer, in_context, listeners


class _Subscriber(Observer):
    """Hears statements only."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def on_statement(self, happened: QueryEvent, parameters: Any) -> None:
        self._listener(happened)


def observe(observer: Observer) -> Callable[[], None]:
    """Tell `observer` of everything in the process; returns the function that ends it."""
    with listeners.changing:
        listeners.observers = (*listeners.observers, observer)
    attach()
    observing = True

    def end() -> None:
        nonlocal observing
        if observing:
            observing = False
            with listeners.changing:
                kept = list(listeners.observers)
                kept.remove(observer)  # once, if it observes twice
                listeners.observers = tuple(kept)
            detach()

    return end


def subscribe(listener: Listener) -> Callable[[], None]:
    """Call `listener` with every statement of the process; returns the function that ends it.

    The listener runs where the statement ran: it must be quick and must not raise.
    """
    return observe(_Subscriber(listener))


@contextmanager
def heard_in_context(listener: Listener) -> Generator[None]:
    """Call `listener` with the statements of this task and of the tasks it starts, and with no others."""
    listening = True

    def hear(happened: QueryEvent) -> None:
        if listening:
            listener(happened)

    token = in_context.set((*in_context.get(), hear))
    attach()
    try:
        yield
    finally:
        listening = False
        detach()
        with suppress(ValueError):  # a generator may be closed in another context than it was started in
            in_context.reset(token)
