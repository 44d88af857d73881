"""What a worker of Temporal's is told: what surrounds each activity, and which modules workflows may share.

Imported by `worker` only, because it needs `temporalio`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sqlalchemy.orm import DeclarativeBase
from sqlmodel import SQLModel
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from catalysis.errors import ActivityError
from catalysis.integrations.temporal.attempts import Surroundings, surround

LIBRARIES = ("catalysis", "sqlalchemy", "sqlmodel", "greenlet", "pydantic_settings")
"""They make nothing that a workflow could see change, and importing them for each run would cost a second."""


class Surrounding(Interceptor):
    """Tells each activity which worker runs it."""

    def __init__(self, surroundings: Surroundings) -> None:
        """`surroundings` is shared by all."""
        self._surroundings = surroundings

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002 - Temporal's name
        """As Temporal asks for it."""
        return _Inside(next, self._surroundings)


class _Inside(ActivityInboundInterceptor):
    def __init__(self, following: ActivityInboundInterceptor, surroundings: Surroundings) -> None:
        super().__init__(following)
        self._surroundings = surroundings

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002 - Temporal's name
        surround(self._surroundings)  # the task is the activity's own
        return await super().execute_activity(input)


def runner_for(
    activities: Sequence[Callable[..., Any]], workflows: Sequence[type[Any]]
) -> SandboxedWorkflowRunner:
    """Temporal's sandbox, which passes through what cannot be imported twice, or need not be.

    Raises:
        ActivityError: a workflow stands in the module of a mapped class, whose table would be declared twice.
    """
    models = {each.__module__ for each in _mapped()}
    own = {each.__module__ for each in workflows}
    for each in workflows:
        if each.__module__ in models:
            raise ActivityError(
                f"The workflow {each.__name__} and a mapped class are both in {each.__module__}, which Temporal's "
                "sandbox imports again, and a table cannot be declared twice: give workflows a module of their own."
            )
    shared = models | {each.__module__ for each in activities}
    restrictions = SandboxRestrictions.default.with_passthrough_modules(*LIBRARIES, *(shared - own))
    return SandboxedWorkflowRunner(restrictions=restrictions)


def _mapped() -> Iterator[type[Any]]:
    pending: list[type[Any]] = [SQLModel, DeclarativeBase]
    while pending:
        each = pending.pop()
        if "__mapper__" in vars(each):
            yield each
        pending.extend(each.__subclasses__())
