"""A coroutine driven by hand, so that it can be cancelled at a step of one's choice."""

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any


class Stepped:
    """Await it once, in a task of its own: the coroutine is cancelled where it waits for the `at`-th time.

    `late` is the race that loses most: what it waited for has come, and the cancellation comes before the coroutine
    has seen it.  Otherwise it comes while it waits, and what it waits for is cancelled with it.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any], at: int, *, late: bool) -> None:
        self._coroutine, self._at, self._late = coroutine, at, late
        self.steps = 0
        """How often it has waited."""

    @property
    def was_cancelled(self) -> bool:
        """Whether it came so far."""
        return self.steps >= self._at

    def __await__(self) -> Generator[Any, Any, Any]:
        thrown: BaseException | None = None
        while True:
            try:
                if thrown is None:
                    waited = self._coroutine.send(None)
                else:
                    error, thrown = thrown, None
                    waited = self._coroutine.throw(error)
            except StopIteration as end:
                return end.value
            self.steps += 1
            if self.steps == self._at and not self._late:
                task = asyncio.current_task()
                assert task
                task.cancel()
            try:
                yield waited
            except BaseException as error:
                thrown = error
            else:
                if self.steps == self._at and self._late:
                    thrown = asyncio.CancelledError()


async def cancelled_at(coroutine: Coroutine[Any, Any, Any], at: int, *, late: bool) -> bool:
    """Run it, cancelled at that step; whether it was, and ended so.  False if it ended before."""
    stepped = Stepped(coroutine, at, late=late)

    async def use() -> Any:
        return await stepped

    (outcome,) = await asyncio.gather(asyncio.create_task(use()), return_exceptions=True)
    if stepped.was_cancelled:
        assert isinstance(outcome, asyncio.CancelledError), f"the cancellation was swallowed: {outcome!r}"
        return True
    if isinstance(outcome, BaseException):
        raise outcome
    return False
