"""Row 30 of the fault catalogue, Temporal's half: the worker is killed in the middle, and the effect happens once.

Killed by SIGKILL, before COMMIT and between COMMIT and the report of it; another worker takes over.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from catalysis import Database
from catalysis.integrations.temporal import worker
from tests.integrations.temporal import flows, jobs
from tests.integrations.temporal.running import bookings, effects, opened, says, working

ROOT = Path(__file__).parents[3]
PATIENCE = 60


@asynccontextmanager
async def process(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    started = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integrations.temporal.doomed",
        *arguments,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


async def run_killed(client: Any, address: str, database: Database, workflow: Any, moment: str) -> Any:
    """The result of a workflow whose first worker is killed at `moment`, and whose second is not."""
    queue, order = f"queue-{uuid4()}", jobs.Order(reference=moment)
    where = (address, queue, database.settings.url)
    async with asyncio.timeout(PATIENCE):
        # The workflow's own steps are taken here, so that only the activity's process dies.
        async with (
            worker(client, queue, workflows=flows.WORKFLOWS, database=database, max_cached_workflows=0),
            process(*where, moment) as doomed,
        ):
            handle = await client.start_workflow(workflow.run, order, id=str(uuid4()), task_queue=queue)
            if moment == "before":
                await says(doomed, "written")
                doomed.kill()
            assert await doomed.wait() == -signal.SIGKILL
        async with working(client, database, queue=queue, max_cached_workflows=0):
            return await handle.result()


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_the_effect_is_there_once(
    client: Any, temporal_address: str, postgres_ledger: Database, moment: str
) -> None:
    """Mutations: with the row committed in a transaction of its own, "before" finds no booking; with no row at all
    (`once` only running `work` in a transaction), "after" finds two.
    """
    await check_once(client, temporal_address, postgres_ledger, moment)


@pytest.mark.long
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_the_effect_is_there_once_on_sqlite(
    client: Any, temporal_address: str, tmp_path: Path, moment: str
) -> None:
    async with opened(f"sqlite+aiosqlite:///{tmp_path / 'test.db'}") as ledger:
        await check_once(client, temporal_address, ledger, moment)


async def check_once(client: Any, address: str, ledger: Database, moment: str) -> None:
    receipt = await run_killed(client, address, ledger, flows.BookOnce, moment)
    (booking,) = await bookings(ledger, moment)
    assert receipt.id == booking.id
    assert receipt.attempt == booking.attempt
    assert (booking.attempt == 1) is (moment == "after")
    assert await effects(ledger) == 1


@pytest.mark.long
async def test_without_it_the_effect_is_there_twice(
    client: Any, temporal_address: str, postgres_ledger: Database
) -> None:
    """The control: the same fault, and an activity that is not idempotent."""
    receipt = await run_killed(client, temporal_address, postgres_ledger, flows.Book, "after")
    found = await bookings(postgres_ledger, "after")
    assert len(found) >= 2
    assert receipt.id in {each.id for each in found}
