"""What the database server says of the application, every tenth of a second."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import asyncpg

EVERY = 0.1
"""Seconds between two looks."""
QUERY = """
    SELECT application_name AS name, pid, state_change, query,
           extract(epoch FROM clock_timestamp() - state_change)::float AS seconds
    FROM pg_stat_activity
    WHERE application_name LIKE 'soak-%' AND state LIKE 'idle in transaction%'
"""


@dataclass
class Idle:
    """Who was seen idle in a transaction, by the connection's name."""

    looks: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    seen_twice: Counter[str] = field(default_factory=Counter)
    """Those that had not moved since the look before."""
    longest: dict[str, float] = field(default_factory=dict)
    """Seconds since their last statement."""
    queries: Counter[str] = field(default_factory=Counter)

    def note(self, rows: list[asyncpg.Record], before: set[tuple[int, object]]) -> set[tuple[int, object]]:
        """Count one look; what was idle in it."""
        self.looks += 1
        for row in rows:
            name = row["name"]
            self.seen[name] += 1
            self.seen_twice[name] += (row["pid"], row["state_change"]) in before
            self.longest[name] = max(self.longest.get(name, 0), row["seconds"])
            self.queries[f"{name}: {' '.join(row['query'].split())[:60]}"] += 1
        return {(row["pid"], row["state_change"]) for row in rows}


async def watch(url: str, idle: Idle) -> None:
    """Look until cancelled."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    before: set[tuple[int, object]] = set()
    clock = asyncio.get_running_loop().time
    due = clock()
    try:
        while True:
            before = idle.note(await connection.fetch(QUERY), before)
            due = max(due + EVERY, clock())
            await asyncio.sleep(due - clock())
    finally:
        connection.terminate()


async def backends(url: str) -> int:
    """Connections of the application that the server has."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        return await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'soak-%'"
        )
    finally:
        await connection.close()
