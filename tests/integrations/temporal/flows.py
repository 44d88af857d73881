"""Workflows of the tests, apart from the tables: the sandbox imports this module again for each run."""

import asyncio
from typing import Any

from catalysis.integrations.temporal import execute, workflow
from tests.integrations.temporal import jobs


@workflow(display_name="Book a thing once")
class BookOnce:
    async def run(self, order: jobs.Order) -> jobs.Receipt:
        return await execute(jobs.book_once, order)


@workflow()
class Book:
    async def run(self, order: jobs.Order) -> jobs.Receipt:
        return await execute(jobs.book, order=order)


@workflow()
class BookTwice:
    async def run(self, order: jobs.Order) -> list[jobs.Receipt]:
        return [await execute(jobs.book_once, order), await execute(jobs.book_once, order)]


@workflow(name="one")
class One:
    """Runs the activity that it is told, with what it is given."""

    async def run(self, name: str, args: list[Any]) -> Any:
        return await execute(getattr(jobs, name), *args)


@workflow()
class TakeSeats:
    async def run(self, number: str, times: int) -> list[int]:
        return await asyncio.gather(*(execute(jobs.take_seat, number) for _ in range(times)))


WORKFLOWS = [BookOnce, Book, BookTwice, One, TakeSeats]
