"""A database with the tables of the jobs, a worker on it, and a look at what they did."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from sqlalchemy import select, text
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ActivityError as ActivityFailed

from catalysis import Database
from catalysis.integrations.temporal import worker
from tests.integrations.temporal import flows, jobs


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    await database.create_all(jobs.Model.metadata)
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def working(
    client: Any, database: Database, *, queue: str | None = None, **options: Any
) -> AsyncIterator[str]:
    """A worker of a queue, by default of one of its own, whose name comes out."""
    queue = queue or f"queue-{uuid4()}"
    async with worker(
        client,
        queue,
        activities=jobs.ACTIVITIES,
        workflows=flows.WORKFLOWS,
        database=database,
        **{"grace": 5, **options},
    ):
        yield queue


async def run(client: Any, queue: str, workflow: Any, *args: Any) -> Any:
    return await client.execute_workflow(workflow.run, args=args, id=str(uuid4()), task_queue=queue)


async def bookings(database: Database, reference: str) -> list[jobs.Booking]:
    async with database.session() as session:
        found = select(jobs.Booking).where(jobs.Booking.reference == reference)
        return list((await session.scalars(found)).all())


async def effects(database: Database) -> int:
    async with database.session() as session:
        return (await session.execute(text("SELECT count(*) FROM catalysis_effect"))).scalar_one()


async def until(database: Database, condition: str, *, backends: str = "> 0") -> None:
    """Wait until so many backends are as `condition` says; each look is a transaction of its own, or shows no news."""
    watcher = Database(database.settings)
    look = text(f"SELECT count(*) {backends} FROM pg_stat_activity WHERE {condition}")
    try:
        while True:
            async with watcher.session() as session:
                if (await session.execute(look)).scalar_one():
                    return
            await asyncio.sleep(0.02)
    finally:
        await watcher.close()


def cause_of(failed: WorkflowFailureError) -> Any:
    """What the activity told of its failure."""
    assert isinstance(failed.cause, ActivityFailed)
    return failed.cause.cause


async def says(running: asyncio.subprocess.Process, line: str) -> None:
    """Wait until the process has printed the line."""
    assert running.stdout is not None
    async for each in running.stdout:
        if each.decode().strip() == line:
            return
    raise AssertionError(f"it ended ({running.returncode}) before it said {line!r}")
