"""What SQLAlchemy's own code waits for in greenlets: the flush before a statement, and loads side by side."""

import asyncio
from collections.abc import Callable, Sequence

from sqlalchemy.util.concurrency import greenlet_spawn

from catalysis.engine.alchemy.sessions import HookedSession, autoflush, holds_nothing, must_flush_first
from catalysis.events import call_line, sent_from


async def flush_first(session: HookedSession) -> None:
    """Send what is not flushed, as SQLAlchemy does before a statement that wants it."""
    if must_flush_first(session):
        async with session.turn:
            await greenlet_spawn(autoflush, session)


async def load_together(session: HookedSession, calls: Sequence[Callable[[], None]]) -> None:
    """Load what does not depend on each other, outside a transaction at once; each call runs in a greenlet."""
    if len(calls) > 1 and holds_nothing(session) and not session.turn.is_ours:
        line = call_line()
        tasks = [asyncio.ensure_future(sent_from(line, greenlet_spawn, call)) for call in calls]
        try:
            await asyncio.gather(*tasks)
        finally:  # the first failure is the one to raise, and the others are not left running
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    else:
        for call in calls:
            await greenlet_spawn(call)
