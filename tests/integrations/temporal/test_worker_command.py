"""`catalysis worker` in a process of its own."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import Client
from typer.testing import CliRunner

from catalysis import ActivityError, Database
from catalysis.cli import app
from catalysis.integrations.temporal import connect, worker
from catalysis.integrations.temporal.serving import find
from tests.integrations.temporal import flows, jobs
from tests.integrations.temporal.running import bookings, says, until

ROOT = Path(__file__).parents[3]
JOBS, FLOWS = "tests.integrations.temporal.jobs", "tests.integrations.temporal.flows"


async def test_it_works_until_sigterm_and_finishes_what_runs(
    client: Any, temporal_address: str, postgres_ledger: Database
) -> None:
    """SIGTERM comes while the activity is in its transaction: it is cancelled after `--grace`, and nothing stays."""
    queue = f"queue-{uuid4()}"
    options = ["--address", temporal_address, "--queue", queue, "--grace", "0.2"]
    command = ["-c", "from catalysis.cli import app; app()", "worker", JOBS, FLOWS, *options]
    running = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        "--url",
        postgres_ledger.settings.url,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert running.stdout is not None
    try:
        async with asyncio.timeout(60):
            ready = (
                f"Working on {queue}: {len(jobs.ACTIVITIES)} activities, {len(flows.WORKFLOWS)} workflows."
            )
            await says(running, ready)
            receipt = await client.execute_workflow(
                flows.BookOnce.run, jobs.Order(reference="command"), id=str(uuid4()), task_queue=queue
            )
            handle = await client.start_workflow(
                flows.One.run, args=["wait_long", ["held"]], id=str(uuid4()), task_queue=queue
            )
            await until(
                postgres_ledger, "state = 'idle in transaction' AND query LIKE 'INSERT INTO booking%'"
            )
            running.send_signal(signal.SIGTERM)
            assert (await running.stdout.read()).decode().endswith("Ended.\n")
            # After that a thread of Temporal's may still end, which aborts an interpreter that is ending (rarely).
            assert await running.wait() in (0, -signal.SIGABRT)
            await handle.terminate()
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()
    assert [each.id for each in await bookings(postgres_ledger, "command")] == [receipt.id]
    assert await bookings(postgres_ledger, "held") == []


def test_what_it_finds() -> None:
    found = find([JOBS, f"{FLOWS}:BookOnce"], ROOT)
    assert set(found.activities) == set(jobs.ACTIVITIES)
    assert found.workflows == (flows.BookOnce,)
    for target, said in (
        ("tests.nowhere", "There is no module 'tests.nowhere'"),
        (f"{JOBS}:nothing", "There is no 'nothing'"),
        ("tests.models", "There is no activity or workflow in tests.models"),
    ):
        with pytest.raises(ActivityError, match=said):
            find([target], ROOT)


def test_a_server_that_is_not_there_is_one_line() -> None:
    done = CliRunner().invoke(app, ["worker", JOBS, "--address", "127.0.0.1:1"])
    assert done.exit_code == 1
    assert "There is no Temporal server at 127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_client_without_the_pydantic_converter_is_refused(
    client: Any, temporal_address: str, postgres_ledger: Database
) -> None:
    plain = await Client.connect(temporal_address)
    with pytest.raises(ActivityError, match="turns Pydantic models into dictionaries"):
        async with worker(plain, "q", activities=jobs.ACTIVITIES, database=postgres_ledger):
            pass


async def test_a_missing_table_of_effects_is_said_at_the_start(client: Any, postgres_url: str) -> None:
    database = Database(postgres_url)
    with pytest.raises(ActivityError, match="There is no table catalysis_effect"):
        async with worker(client, "q", activities=[jobs.book_once], database=database):
            pass
    await database.close()


async def test_connect_says_where_it_looked() -> None:
    with pytest.raises(ActivityError, match=r"127\.0\.0\.1:1,"):
        await connect("127.0.0.1:1")
