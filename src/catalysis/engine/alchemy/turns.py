"""Who may use a session's transaction now: one task at a time."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.util.concurrency import await_only

from catalysis.engine.alchemy.greenlets import can_wait


class Turn:
    """The lock under which a session takes its transaction's connection, or hands a statement to SQLAlchemy.

    A task that has it may take it again: a flush loads what it needs.
    """

    __slots__ = ("_depth", "_lock", "_owner")

    def __init__(self) -> None:
        self._lock: asyncio.Lock | None = None
        """Made when it is first needed: a session that only reads never does."""
        self._owner: asyncio.Task[Any] | None = None
        self._depth = 0

    @property
    def is_ours(self) -> bool:
        """Whether the running task has it."""
        return self._owner is not None and self._owner is asyncio.current_task()

    async def take(self) -> None:
        """Wait for it."""
        if not self.is_ours:
            if self._lock is None:
                self._lock = asyncio.Lock()
            await self._lock.acquire()
            self._owner = asyncio.current_task()
        self._depth += 1

    def leave(self) -> None:
        """Give it to whoever waits for it."""
        self._depth -= 1
        if self._depth == 0 and self._lock is not None:
            self._owner = None
            self._lock.release()

    async def __aenter__(self) -> None:
        await self.take()

    async def __aexit__(self, *_: object) -> None:
        self.leave()

    @contextmanager
    def waited_for(self) -> Generator[None]:
        """The same from inside a greenlet; a session that is used without one is used by one task."""
        if self.is_ours or not can_wait():
            yield
            return
        await_only(self.take())
        try:
            yield
        finally:
            self.leave()
