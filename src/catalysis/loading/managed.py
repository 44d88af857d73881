"""The managed scope: a coroutine driven in a greenlet, where touching an unloaded attribute waits for the database.

What the coroutine awaits is handed on to the event loop as it is; what an attribute access waits for is awaited here.
No database is known in this module.
"""

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator
from importlib import import_module
from importlib.util import find_spec
from types import CoroutineType
from typing import Any, TypeVar

from greenlet import GreenletExit

from catalysis.engine.alchemy.greenlets import (
    ScopeGreenlet,
    allow_eager_tasks,
    current_greenlet,
    in_scope,
    running_task,
)

T = TypeVar("T")


async def managed(awaitable: Awaitable[T]) -> T:
    """Await it in a managed scope, and return its result.

    Inside, touching an unloaded relationship, a deferred or an expired attribute of a `Session`'s instance waits
    for the database.  A task that is started inside is outside: it gets `RelationshipNotLoaded`, or enters a scope
    of its own.  So are threads (`asyncio.to_thread`), callbacks and sync routes.  A scope within a scope is one.
    """
    return await in_own_scope(awaitable)


def in_own_scope(awaitable: Awaitable[T]) -> Awaitable[T]:
    """The same, to be awaited at once: without a coroutine in between."""
    return awaitable if in_scope() else _Scope(awaitable)


def run(main: Coroutine[Any, Any, T], *, debug: bool | None = None) -> T:
    """`asyncio.run` in a managed scope, on uvloop where that is installed."""
    with asyncio.Runner(debug=debug, loop_factory=_loop_factory()) as runner:
        return runner.run(managed(main))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    return import_module("uvloop").new_event_loop if find_spec("uvloop") else None


if sys.version_info >= (3, 12):
    allow_eager_tasks()


class _Scope(Awaitable[T]):
    """Awaited once, by the task that the scope belongs to."""

    def __init__(self, awaitable: Awaitable[T]) -> None:
        self._awaitable = awaitable

    def __await__(self) -> Generator[Any, Any, T]:
        idle = _greenlets.idle
        scope = idle.pop() if idle else ScopeGreenlet(_serve)
        scope.task, scope.has_ended = running_task(), False
        current = current_greenlet()
        scope.gr_context = current.gr_context  # what is set inside is seen outside
        if scope.parent is not current:
            scope.parent = current
        waited = scope.switch(self._awaitable)
        while not scope.has_ended:
            try:
                if scope.relays:
                    scope.relays = False
                    given = yield waited
                else:
                    given = yield from _awaited(waited)
            except BaseException as error:
                _comes_back(scope)
                waited = scope.throw(type(error), error, error.__traceback__)
            else:
                if scope.parent is not current_greenlet():
                    _comes_back(scope)
                waited = scope.switch(given)
        (result, error), scope.outcome = scope.outcome, (None, None)
        scope.gr_context = None
        if len(idle) < IDLE:
            idle.append(scope)
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame
        return result


IDLE = 64
"""The greenlets that a thread keeps for its next scopes: to make one takes several times as long as to use it."""


class _Greenlets(threading.local):
    def __init__(self) -> None:
        self.idle: list[ScopeGreenlet] = []


_greenlets = _Greenlets()


def _awaited(awaitable: Awaitable[Any]) -> Generator[Any, Any, Any]:
    return awaitable.__await__()


def _comes_back(scope: ScopeGreenlet) -> None:
    """It comes back to whoever resumed it last."""
    scope.parent = current_greenlet()


def _serve(awaitable: Any) -> None:
    """The life of a scope's greenlet: one awaitable after another, each answered in `scope.outcome`."""
    while True:
        scope: Any = current_greenlet()
        try:
            scope.outcome = _drive(scope, awaitable), None
        except GreenletExit:  # nobody will resume it: this is how a greenlet is taken down
            raise
        except BaseException as error:
            scope.outcome = None, error
        scope.has_ended, scope.task, scope.coroutine, awaitable = True, None, None, None
        back = scope.parent
        assert back is not None
        # A frame that waits must not hold its greenlet, nor an error with the frame in its traceback.
        del scope
        awaitable = back.switch()
        del back


def _drive(scope: ScopeGreenlet, awaitable: Any) -> Any:
    """Run the coroutine, handing on what it waits for."""
    is_coroutine = awaitable.__class__ is CoroutineType
    coroutine = scope.coroutine = awaitable if is_coroutine else _awaiting(awaitable)
    given: Any = None
    thrown: BaseException | None = None
    while True:
        try:
            if thrown is None:
                waited = coroutine.send(given)
            else:
                error, thrown = thrown, None
                try:
                    waited = coroutine.throw(error)
                finally:
                    del error  # its traceback holds this frame
        except StopIteration as end:
            return end.value
        scope.relays = True
        try:
            assert scope.parent is not None
            given = scope.parent.switch(waited)
        except BaseException as error:
            thrown = error


async def _awaiting(awaitable: Awaitable[T]) -> T:
    return await awaitable
