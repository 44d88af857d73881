"""Temporal activities: `@activity` marks a coroutine function as one, and it stays an ordinary function.

Without the extra `temporal` the mark is kept for later and the function is simply called.
"""

from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
Function = Callable[P, Awaitable[R]]


def activity(
    *, display_name: str | None = None, name: str | None = None
) -> Callable[[Function[P, R]], Function[P, R]]:
    """Mark a coroutine function as an activity called `name` (default: the function's own name).

    `display_name` is for people; it becomes the function's `__display_name__`.  The function can be called
    directly, and registered with a Temporal worker as it is when the extra `temporal` is installed.
    """

    def mark(function: Function[P, R]) -> Function[P, R]:
        function.__display_name__ = display_name or name or function.__name__  # pyright: ignore[reportFunctionMemberAccess] - an attribute we add
        if find_spec("temporalio") is not None:
            from temporalio.activity import defn

            defn(name=name)(function)
        return function

    return mark
