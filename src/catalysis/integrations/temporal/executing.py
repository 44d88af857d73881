"""Asking for an activity: of Temporal inside a workflow, and elsewhere in this process, under the same policy."""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar
from uuid import uuid4

from catalysis.errors import ActivityError
from catalysis.integrations.temporal.attempts import Place, local_attempt
from catalysis.integrations.temporal.definition import Definition, Options, definition_of
from catalysis.integrations.temporal.failures import failure_of

P = ParamSpec("P")
R = TypeVar("R")

_log = logging.getLogger(__name__)


async def execute(function: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
    """The result of the activity, which runs as its own options say: timeouts, heartbeats, retries, queue.

    In a workflow Temporal has a worker run it.  Elsewhere it is run here, as `local` does: the same code does with a
    server and without.

    Raises:
        ActivityError: it is no activity of ours.
        temporalio.exceptions.ActivityError: in a workflow, it failed for good.
    """
    definition = definition_of(function)
    workflow: Any = sys.modules.get("temporalio.workflow")  # who is in a workflow has imported it
    if workflow is None or not workflow.in_workflow():
        return await local(function, *args, **kwargs)
    return await workflow.execute_activity(
        definition.name,
        args=definition.parameters.positional(args, kwargs),
        result_type=definition.parameters.result,
        **for_temporal(definition.options),
    )


async def local(function: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call the activity here, again as long as its `retry` and its deadline say; no server is asked.

    An effect that is once is so for all attempts of this call; this process must live for them.

    Raises:
        ActivityError: it is no activity of ours.
        TimeoutError: its last attempt took longer than its timeout, or all of them longer than its deadline.
    """
    definition = definition_of(function)
    place = Place("", "", "", f"local-{uuid4()}", definition.name)
    retry, number = definition.options.retry, 1
    async with asyncio.timeout(definition.options.deadline):
        while True:
            try:
                with local_attempt(place, number):
                    async with asyncio.timeout(definition.options.timeout):
                        return await function(*args, **kwargs)
            except Exception as error:
                if number == retry.attempts or not may_help(error, definition):
                    raise
                why = type(error).__name__
                _log.warning("%s is called again after %s (attempt %d)", definition.name, why, number + 1)
            await asyncio.sleep(retry.pause_after(number))
            number += 1


def may_help(error: Exception, definition: Definition) -> bool:
    """Whether Temporal would attempt the activity again after this error."""
    if isinstance(error, ActivityError) or getattr(error, "non_retryable", False):
        return False
    failure = failure_of(error, is_once=definition.idempotent)
    names = {type(error).__name__, getattr(error, "type", None), failure and failure.type}
    return names.isdisjoint(definition.options.retry.never) and (failure is None or failure.retryable)


def for_temporal(options: Options) -> dict[str, Any]:
    """The options as arguments of Temporal's `execute_activity`."""
    from temporalio.common import RetryPolicy

    retry = options.retry
    given = {
        "start_to_close_timeout": timedelta(seconds=options.timeout),
        "schedule_to_close_timeout": options.deadline and timedelta(seconds=options.deadline),
        "heartbeat_timeout": options.silence and timedelta(seconds=options.silence),
        "retry_policy": RetryPolicy(
            initial_interval=timedelta(seconds=retry.first_pause),
            backoff_coefficient=retry.factor,
            maximum_interval=timedelta(seconds=retry.bound),
            maximum_attempts=retry.attempts or 0,
            non_retryable_error_types=list(retry.never) or None,
        ),
        "task_queue": options.queue,
        "activity_id": options.activity_id,
    }
    return {name: value for name, value in given.items() if value is not None}
