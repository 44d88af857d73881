"""Where an attempt runs: in a Temporal worker, in `local`, or simply called; with which database and which resources.

What a worker shares among its activities lives here.  A session never does.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session as SyncSession

from catalysis.database import Database, DatabaseService
from catalysis.errors import ActivityError


@dataclass(frozen=True, slots=True)
class Place:
    """What makes an activity's effect one and the same: the row's key."""

    namespace: str
    workflow_id: str
    run_id: str
    activity_id: str
    activity: str


class Resources:
    """What `per_worker` parameters get: each made once, at its first use."""

    def __init__(self) -> None:
        self._made: dict[Callable[[], Any], asyncio.Task[Any]] = {}
        self._opened = AsyncExitStack()

    async def get(self, make: Callable[[], Any]) -> Any:
        """The thing; those who ask while it is being made wait for the same one.

        Raises:
            ActivityError: it is a session.
        """
        task = self._made.get(make)
        if task is None:
            task = self._made[make] = asyncio.create_task(self._make(make))
            task.add_done_callback(lambda done: self._forget_failed(make, done))
        return await asyncio.shield(task)  # who gives up does not take it from the others

    def _forget_failed(self, make: Callable[[], Any], task: asyncio.Task[Any]) -> None:
        if task.cancelled() or task.exception() is not None:
            self._made.pop(make, None)

    async def _make(self, make: Callable[[], Any]) -> Any:
        thing = make()
        if isinstance(thing, AsyncSession | SyncSession):  # it has opened nothing yet
            raise ActivityError(
                f"{getattr(make, '__qualname__', make)} makes a session, and a worker's activities would share it.  "
                "Ask for `session: Session`: each attempt gets its own."
            )
        if isawaitable(thing):
            return await thing
        if hasattr(thing, "__aenter__"):
            return await self._opened.enter_async_context(thing)
        return thing

    async def close(self) -> None:
        """Leave the context managers, the newest first."""
        for task in list(self._made.values()):
            await asyncio.wait([task])
        self._made.clear()
        await self._opened.aclose()


@dataclass(slots=True, eq=False)
class Surroundings:
    """What a worker shares among its activities."""

    database: Database | None = None
    """None: the process's own."""
    resources: Resources = field(default_factory=Resources)


_surroundings: ContextVar[Surroundings | None] = ContextVar("catalysis_worker", default=None)
_next: ContextVar["tuple[Place, int] | None"] = ContextVar("catalysis_next_attempt", default=None)
"""What `local` says of the activity that it is about to call."""
_entered: ContextVar[object] = ContextVar("catalysis_entered_activity", default=None)
"""The task token of the activity that is running: an activity that it calls is a plain function."""
_number: ContextVar[int] = ContextVar("catalysis_attempt_number", default=1)


def surround(surroundings: Surroundings) -> None:
    """Say, in an activity's own task, which worker runs it."""
    _surroundings.set(surroundings)


def current_database() -> Database:
    """The worker's database, else the process's own."""
    here = _surroundings.get()
    return (here and here.database) or DatabaseService.database()


@asynccontextmanager
async def current_resources() -> AsyncGenerator[Resources]:
    """The worker's; without a worker, new ones, closed at the end."""
    if (here := _surroundings.get()) is not None:
        yield here.resources
        return
    own = Resources()
    try:
        yield own
    finally:
        await own.close()


@contextmanager
def local_attempt(place: Place, number: int) -> Generator[None]:
    """The activity called inside is attempt `number` at `place`, without a server."""
    token = _next.set((place, number))
    try:
        yield
    finally:
        _next.reset(token)


@dataclass(frozen=True, slots=True)
class Attempt:
    """Who runs the activity that is being called."""

    info: Any
    """Temporal's, if its server asked for this very call; else None."""
    place: Place | None
    """None for a plain call."""


@contextmanager
def entered(name: str) -> Generator[Attempt]:
    """This call as an attempt; activities called inside are plain calls."""
    info, local = temporal_info(), _next.get()
    number = _number.get()
    if local is not None:
        (place, number), info_of_it = local, None
    elif info is None or info.task_token == _entered.get():
        place, info_of_it = None, None
    else:
        place, info_of_it, number = _place_of(info, name), info, info.attempt
    tokens = _next.set(None), _entered.set(info and info.task_token), _number.set(number)
    try:
        yield Attempt(info_of_it, place)
    finally:
        for variable, token in zip((_next, _entered, _number), tokens, strict=True):
            variable.reset(token)  # pyright: ignore[reportArgumentType] - each its own


def attempt_number() -> int:
    """Which attempt at the activity this is, from 1; 1 in a plain call."""
    return _number.get()


def temporal_info() -> Any:
    """What Temporal says of the activity that runs in this context; None outside of its workers."""
    temporal = sys.modules.get("temporalio.activity")  # who runs in a worker has imported it
    return temporal.info() if temporal is not None and temporal.in_activity() else None


def _place_of(info: Any, name: str) -> Place:
    """The run belongs to it: Temporal numbers activities anew in each, and a workflow's id may be used again."""
    namespace = getattr(info, "namespace", None) or info.workflow_namespace or ""
    run = info.workflow_run_id or getattr(info, "activity_run_id", None) or ""
    return Place(namespace, info.workflow_id or "", run, info.activity_id, name)
