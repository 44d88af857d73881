"""`@workflow`: a class whose coroutine method `run` Temporal can run, and anybody can call.

Temporal runs it in a sandbox that imports its module again, so nothing here may be done twice to the same class.
"""

from collections.abc import Callable
from importlib.util import find_spec
from inspect import iscoroutinefunction
from typing import Any, TypeVar

from catalysis.errors import ActivityError

C = TypeVar("C", bound=type[Any])


def workflow(
    *, name: str | None = None, display_name: str | None = None, sandboxed: bool = True
) -> Callable[[C], C]:
    """Mark a class as a workflow called `name` (default: the class's own name); its method `run` is the workflow.

        @workflow(name="close-month")
        class CloseMonth:
            async def run(self, month: Month) -> Report:
                return await execute(close_books, month)

    With the extra `temporal` it is Temporal's workflow, to which `temporalio.workflow` adds signals, queries and
    timers.  `await CloseMonth().run(month)` runs it here, without a server, and its activities by `local`.
    `display_name` becomes the class's `__display_name__`.

    Raises:
        ActivityError: there is no coroutine method `run`, or the class is not at the top of a module.
    """

    def mark(cls: C) -> C:
        run = cls.__dict__.get("run")
        if not iscoroutinefunction(run):
            raise ActivityError(
                f"{cls.__name__} has no method `async def run(self, …)`, which a workflow is."
            )
        if "<locals>" in cls.__qualname__:
            raise ActivityError(
                f"{cls.__name__} is inside a function, where Temporal's sandbox cannot find it: put it at the top of "
                "a module."
            )
        cls.__display_name__, cls.__workflow__ = display_name or name or cls.__name__, name or cls.__name__
        if find_spec("temporalio") is not None:
            from temporalio import workflow as temporal

            temporal.run(run)
            temporal.defn(name=name or cls.__name__, sandboxed=sandboxed)(cls)
        return cls

    return mark
