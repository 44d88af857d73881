"""A worker's process that a test kills: `python -m tests.integrations.temporal.doomed address queue url moment`.

`moment` is "before" (it waits before COMMIT, and says so) or "after" (it kills itself when COMMIT has been answered,
before anything is told to Temporal).
"""

import asyncio
import os
import signal
import sys

from sqlalchemy import event

from catalysis import DatabaseService
from catalysis.integrations.temporal import connect, worker
from catalysis.unit_of_work import UnitOfWork
from tests.integrations.temporal import jobs


async def wait(session: object) -> None:
    print("written", flush=True)
    await asyncio.Event().wait()


def die(session: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def main(address: str, queue: str, url: str, moment: str) -> None:
    DatabaseService.configure(url)
    if moment == "before":
        jobs.on["book_once"] = wait
    if moment == "after":
        event.listen(UnitOfWork, "after_commit", die)
    client = await connect(address)
    activities = [jobs.book_once, jobs.book]
    async with worker(client, queue, activities=activities):
        print("working", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
