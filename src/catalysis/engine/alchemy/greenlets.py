"""Greenlets in which code that does not await may wait: SQLAlchemy's own, and that of a managed scope."""

import asyncio
from typing import Any

from greenlet import getcurrent, greenlet
from sqlalchemy.util import concurrency

current_greenlet = getcurrent


class ScopeGreenlet(greenlet):
    """Runs a coroutine, and what that calls; SQLAlchemy takes it for one of its own."""

    __sqlalchemy_greenlet_provider__ = True
    task: asyncio.Task[Any] | None = None
    """The task that awaits the scope; None between two."""
    has_ended = False
    """Whether its coroutine has come to its end."""
    outcome: tuple[Any, BaseException | None] = (None, None)
    """Of the coroutine that has ended: its result, or the error it raised."""
    coroutine: Any = None
    """What it runs, where that is a coroutine; the task's own does not lead to it."""
    relays = False
    """Whether it has just handed on what its coroutine waits for; else, what an attribute access waits for."""


def running_task() -> asyncio.Task[Any] | None:
    """The task that runs now; None outside an event loop."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def in_scope() -> bool:
    """Whether this code runs directly in a managed scope of its own task.

    A task that is started eagerly runs its first step inside the greenlet of whoever started it, and must not
    suspend that.
    """
    current = getcurrent()
    return isinstance(current, ScopeGreenlet) and current.task is running_task()


def can_wait() -> bool:
    """Whether code that does not await may wait for the database here."""
    current = getcurrent()
    if isinstance(current, ScopeGreenlet):
        return current.task is running_task()
    return concurrency.in_greenlet()


_shim: Any = concurrency
_Spawned: type[greenlet] = _shim._concurrency_shim._AsyncIoGreenlet


class _Reparented(_Spawned):
    """SQLAlchemy's greenlet of one call, which goes back to whoever resumed it last.

    SQLAlchemy's own goes back to where it was made.  An eager task makes it inside the scope of the task that
    started it, and later steps resume it from the event loop.
    """

    def switch(self, *args: Any, **kwargs: Any) -> Any:
        current = getcurrent()
        if self.parent is not current:
            self.parent = current
        return super().switch(*args, **kwargs)

    def throw(self, *args: Any) -> Any:
        current = getcurrent()
        if self.parent is not current:
            self.parent = current
        return super().throw(*args)


def allow_eager_tasks() -> None:
    """Let SQLAlchemy's greenlets be resumed from elsewhere than where they were made; for the whole process."""
    _shim._concurrency_shim._AsyncIoGreenlet = _Reparented
