"""What `catalysis worker` does: find activities and workflows, and work on a queue until it is told to end."""

import asyncio
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalysis.errors import ActivityError, SettingsError
from catalysis.integrations.temporal.definition import Definition
from catalysis.integrations.temporal.workers import connect, worker
from catalysis.tools.named_model import import_models


@dataclass(frozen=True, slots=True)
class Found:
    """What a worker can run."""

    activities: tuple[Callable[..., Any], ...]
    workflows: tuple[type[Any], ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Which server, and which of its queues; None: as Temporal's own settings say."""

    address: str | None
    namespace: str | None
    queue: str


def find(targets: Sequence[str], root: Path = Path()) -> Found:
    """The activities and workflows that the targets name: `app.activities` for all in a module, or `app.jobs:one`.

    Raises:
        ActivityError: a module or name is not there, two activities or workflows have one name, or there are none.
    """
    activities: dict[str, Any] = {}
    workflows: dict[str, Any] = {}
    for target in targets:
        for each in _members(target, root):
            definition, name = getattr(each, "__activity__", None), getattr(each, "__workflow__", None)
            if isinstance(definition, Definition):
                _add(activities, definition.name, each)
            elif isinstance(each, type) and isinstance(name, str):
                _add(workflows, name, each)
    if not activities and not workflows:
        raise ActivityError(
            f"There is no activity or workflow in {', '.join(targets)}.  Mark them with @activity(…) or @workflow(…)."
        )
    return Found(tuple(activities.values()), tuple(workflows.values()))


def _members(target: str, root: Path) -> list[Any]:
    module_name, _, name = target.partition(":")
    try:
        module = import_models(module_name, root)
    except SettingsError:
        raise ActivityError(f"There is no module {module_name!r} here.") from None
    if not name:
        return list(vars(module).values())
    if not hasattr(module, name):
        raise ActivityError(f"There is no {name!r} in {module_name}.")
    return [getattr(module, name)]


def _add(known: dict[str, Any], name: str, thing: Any) -> None:
    if known.setdefault(name, thing) is not thing:
        raise ActivityError(
            f"Two activities or workflows are called {name!r}: give one of them another name."
        )


async def serve(
    found: Found, place: Place, *, grace: float = 30, on_started: Callable[[], None] | None = None
) -> None:
    """Work until SIGTERM or SIGINT; then end as `worker` does.

    Raises:
        ActivityError: there is no server, or the worker cannot be made.
    """
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    client = await connect(place.address, place.namespace)
    running = worker(client, place.queue, activities=found.activities, workflows=found.workflows, grace=grace)
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stop.set)
    try:
        async with running:
            if on_started is not None:
                on_started()
            await stop.wait()
    finally:
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(each)  # a second one ends the process
