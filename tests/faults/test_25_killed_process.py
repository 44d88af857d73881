"""25. The writing process is killed while it commits: the file is whole, and every acknowledged row is there.

Mutation seen to fail: the writer acknowledges before it commits.
"""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.faults.checks import names, seen_from_outside
from tests.models import made

WRITER = """
import asyncio, sys
from catalysis import Database
from tests.models import Label

async def main(url, start):
    database = Database(url)
    number = int(start)
    while True:
        async with database.session() as session:
            session.add(Label(name=f"{number} a"))
            await session.flush()
            session.add(Label(name=f"{number} b"))
            await session.commit()
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()
        number += 1

asyncio.run(main(*sys.argv[1:]))
"""


async def acknowledged_before_death(url: str, start: int, lives: float) -> list[int]:
    """Run a writer, kill it without warning, and return what it says that it has committed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WRITER, url, str(start)),
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    lines = [await process.stdout.readline()]
    with suppress(TimeoutError):
        async with asyncio.timeout(lives):
            while True:
                lines.append(await process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    lines += (await process.stdout.read()).splitlines()
    await process.wait()
    return [int(line) for line in lines if line.strip()]


@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=pytest.mark.long)])
async def test_a_writer_that_is_killed_leaves_whole_transactions(backend_url: str, rounds: int):
    async with made(backend_url) as database:
        acknowledged: set[int] = set()
        for round_ in range(rounds):
            acknowledged.update(
                await acknowledged_before_death(backend_url, round_ * 100_000, 0.05 + 0.037 * (round_ % 7))
            )
        found = set(await names(database))
        assert len(acknowledged) > 1
        for number in acknowledged:
            assert {f"{number} a", f"{number} b"} <= found
        assert {name[:-1] for name in found if name.endswith("a")} == {
            name[:-1] for name in found if name.endswith("b")
        }
        async with database.engine.connect() as connection:
            if database.engine.dialect.name == "sqlite":
                assert (await connection.execute(text("PRAGMA integrity_check"))).scalar_one() == "ok"
        if database.engine.dialect.name != "sqlite":
            async with seen_from_outside(backend_url) as server:
                await server.none_in_transaction()
