"""Heartbeats: signs of life to Temporal's server, which answers with a cancellation if there is one.

Outside of a worker they are silent, so that an activity can be called anywhere.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

from catalysis.integrations.temporal.attempts import temporal_info

_details: ContextVar[list[tuple[Any, ...]] | None] = ContextVar("catalysis_heartbeat_details", default=None)


def heartbeat(*details: Any) -> None:
    """Tell Temporal how far the activity is; the next attempt gets `details` from `last_heartbeat`."""
    if temporal_info() is None:
        return
    from temporalio.activity import heartbeat as beat

    if (newest := _details.get()) is not None:
        newest[0] = details
    beat(*details)


def last_heartbeat() -> tuple[Any, ...]:
    """The details of the last heartbeat of the attempt before, as plain JSON; empty if there were none."""
    info = temporal_info()
    return () if info is None else tuple(info.heartbeat_details)


@asynccontextmanager
async def beating(seconds: float | None) -> AsyncGenerator[None]:
    """Heartbeats every so many seconds for the length of the block; None: only those by hand.

    An event loop that is blocked beats no more, and its activities count as lost: that is what the beats are for.
    """
    if seconds is None:
        yield
        return
    # A beat without details would take those of the beat before away, also the ones of the attempt before.
    token = _details.set(newest := [last_heartbeat()])
    task = asyncio.create_task(_beat(seconds, newest))
    try:
        yield
    finally:
        _details.reset(token)
        task.cancel()


async def _beat(seconds: float, newest: list[tuple[Any, ...]]) -> None:
    from temporalio.activity import heartbeat as beat

    while True:
        await asyncio.sleep(seconds)
        beat(*newest[0])
