"""Temporal activities: `@activity` marks a coroutine function as one, and it stays an ordinary function.

Without the extra `temporal` the mark is kept for later and the function is simply called.
"""

from collections.abc import Awaitable, Callable
from functools import wraps
from importlib.util import find_spec
from typing import ParamSpec, TypeVar

from catalysis.events import scoped
from catalysis.loading.managed import managed

P = ParamSpec("P")
R = TypeVar("R")
Function = Callable[P, Awaitable[R]]


def activity(
    *, display_name: str | None = None, name: str | None = None
) -> Callable[[Function[P, R]], Function[P, R]]:
    """Mark a coroutine function as an activity called `name` (default: the function's own name).

    It runs in a managed scope: touching what was not loaded loads it.

    `display_name` is for people; it becomes the function's `__display_name__`.  The function can be called
    directly, and registered with a Temporal worker as it is when the extra `temporal` is installed.
    """

    def mark(function: Function[P, R]) -> Function[P, R]:
        title = display_name or name or function.__name__

        @wraps(function)
        async def in_scope(*args: P.args, **kwargs: P.kwargs) -> R:
            with scoped("activity", title):
                return await managed(function(*args, **kwargs))

        in_scope.__display_name__ = title  # pyright: ignore[reportAttributeAccessIssue] - an attribute we add
        if find_spec("temporalio") is not None:
            from temporalio.activity import defn

            defn(name=name)(in_scope)
        return in_scope

    return mark
