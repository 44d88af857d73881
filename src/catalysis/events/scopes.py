"""Requests and activities, told of while somebody listens."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

from catalysis.events.happened import Scope, ScopeEvent
from catalysis.events.telling import listeners


@dataclass(slots=True)
class _Running:
    scope: Scope
    rename: Callable[[], str | None] | None


_current: ContextVar[_Running | None] = ContextVar("catalysis_scope", default=None)


def current_scope() -> Scope | None:
    """The request or activity that this task works for."""
    running = _current.get()
    if running is None:
        return None
    if running.rename is not None and (name := running.rename()) is not None:
        running.scope.name, running.rename = name, None
    return running.scope


DONE = "done"


@dataclass(slots=True)
class Told:
    """What is known of a scope only at its end."""

    scope: Scope
    outcome: str = DONE


@contextmanager
def scoped(
    kind: Literal["request", "websocket", "activity"],
    name: str,
    rename: Callable[[], str | None] | None = None,
) -> Generator[Told]:
    """Tell of a scope for the length of the block; what is set in `Told` meanwhile is told at its end.

    `rename` is asked for a better name at each statement, until it has one.
    """
    scope = Scope(kind, name, time.time())
    told = Told(scope)
    for observer in listeners.observers:
        observer.on_scope_started(scope)
    running = _Running(scope, rename)
    token = _current.set(running)
    started = time.perf_counter()
    try:
        yield told
    except BaseException as error:
        if told.outcome == DONE:
            told.outcome = type(error).__name__
        raise
    finally:
        _current.reset(token)
        running.rename = (
            None  # a connection opened meanwhile keeps a copy of the context, and so what this refers to
        )
        happened = ScopeEvent(scope, time.perf_counter() - started, told.outcome)
        for observer in listeners.observers:
            observer.on_scope_ended(happened)
