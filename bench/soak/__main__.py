"""Soak, look, judge."""

import argparse
import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table
from tests.servers import PostgresServer

from bench.http.serving import Server, serving
from bench.models import fill
from bench.soak.application import POOL, READS, WRITES, prepare
from bench.soak.clients import Seen, clients
from bench.soak.watching import Idle, backends, watch
from catalysis import Database

WARM_UP = 8.0
"""Seconds: a burst is in it, so that all that is kept for later has been made."""
KEPT_GREENLETS = 64
"""What a thread keeps for its next managed scopes (`catalysis.loading.managed.IDLE`)."""
GROWTH = 0.10, 8 * 2**20
"""How much memory may grow after the warm-up: a share of it, or bytes, whichever is more."""
LONGEST_IDLE = 5.0
"""Seconds that a transaction may wait for its own application's next statement: that of one that was left never comes.

Long, since what is asked of the application in a burst keeps its event loop busy, and others have the processor too.
"""


@dataclass(frozen=True)
class Verdict:
    """One thing that must hold."""

    what: str
    holds: bool
    seen: str


async def look(server: Server, at: str) -> dict[str, Any]:
    """What is alive in the process once everybody has left; waits ten seconds at most for that."""
    for _ in range(20):
        await asyncio.sleep(0.5)
        figures = json.loads(await asyncio.to_thread(server.get, "/debug"))
        if figures["lent"] == 0 and figures["sessions"] == 0:
            break
    return {"at": at, "rss": server.process.memory_info().rss, **figures}


async def soak(server: Server, url: str, seconds: float) -> dict[str, Any]:
    """The figures of a run."""
    seen, idle = Seen(), Idle()
    watching = asyncio.create_task(watch(url, idle))
    looks: list[dict[str, Any]] = []
    for at, length in {
        "after the warm-up": WARM_UP,
        "half-way": seconds / 2,
        "at the end": seconds / 2,
    }.items():
        await clients(server.port, seen, length, seed=len(looks) * 1_000)
        looks.append(await look(server, at))
    watching.cancel()
    return {"looks": looks, "seen": seen, "idle": idle, "backends": await backends(url)}


def judged(found: dict[str, Any], said: str) -> list[Verdict]:
    """What must hold, and whether it does."""
    seen, idle, looks = found["seen"], found["idle"], found["looks"]
    first, last = looks[0], looks[-1]
    share, least = GROWTH
    grown, allowed = last["rss"] - first["rss"], max(first["rss"] * share, least)

    def each(name: str) -> str:
        return ", ".join(str(look[name]) for look in looks)

    return [
        Verdict(
            "no connection stays lent",
            not any(look["lent"] or look["leases"] for look in looks),
            each("lent"),
        ),
        Verdict(
            "the server has no more than the pools",
            found["backends"] <= sum(POOL.values()),
            str(found["backends"]),
        ),
        Verdict("no session stays", not any(look["sessions"] for look in looks), each("sessions")),
        Verdict("no task stays", all(look["tasks"] == first["tasks"] for look in looks), each("tasks")),
        Verdict(
            f"no greenlet stays, beyond {KEPT_GREENLETS} kept",
            last["greenlets"] <= max(first["greenlets"], KEPT_GREENLETS + 2),
            each("greenlets"),
        ),
        Verdict(
            f"memory is flat (+{allowed / 2**20:.0f} MiB)",
            grown <= allowed,
            " → ".join(f"{look['rss'] / 2**20:.1f}" for look in looks) + " MiB",
        ),
        Verdict(
            "reads are never idle in a transaction",
            not idle.seen[READS],
            f"{idle.seen[READS]} of {idle.looks}",
        ),
        Verdict(
            f"no transaction is idle for {LONGEST_IDLE:g} s",
            idle.longest.get(WRITES, 0) < LONGEST_IDLE,
            f"seen {idle.seen[WRITES]}, unmoved {idle.seen_twice[WRITES]}, {idle.longest.get(WRITES, 0) * 1000:.0f} ms",
        ),
        *answered(seen),
        Verdict("the server says nothing", not said, said[-300:]),
    ]


def answered(seen: Any) -> list[Verdict]:
    """What must hold of the answers."""
    return [
        Verdict("nothing but 2xx, 404, 409 and 503", not seen.unexpected, str(dict(seen.unexpected))),
        Verdict(
            "every 503 says Retry-After",
            seen.refused > 0 and not seen.without_retry_after,
            f"{seen.refused} of them",
        ),
        Verdict("no answer is missing", not seen.dropped, str(seen.dropped)),
    ]


def main() -> None:
    """Run, print, and exit with 1 if something does not hold."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    postgres = PostgresServer.start()
    try:
        url = postgres.url()
        asyncio.run(filled(url))
        with TemporaryDirectory() as folder, (log := Path(folder) / "log").open("w") as said:
            with serving("bench.soak.application", url, stderr=said) as server:
                found = asyncio.run(soak(server, url, given.minutes * 60))
            verdicts = judged(found, log.read_text())
    finally:
        postgres.stop()
    report(found, verdicts)
    if given.json:
        given.json.write_text(json.dumps({**found, "verdicts": verdicts}, indent=2, default=vars))
    sys.exit(not all(verdict.holds for verdict in verdicts))


async def filled(url: str) -> None:
    """Make the tables and their rows."""
    database = Database(url)
    await fill(database)
    await database.close()
    await prepare(url)


def report(found: dict[str, Any], verdicts: list[Verdict]) -> None:
    """Print what was seen."""
    console, seen = Console(width=140), found["seen"]
    table = Table("must hold", "", "seen (after the warm-up, half-way, at the end)")
    for verdict in verdicts:
        table.add_row(verdict.what, "yes" if verdict.holds else "[red]NO[/red]", verdict.seen)
    console.print(table)
    console.print(f"answers: {dict(sorted(seen.statuses.items()))}; left before the answer: {seen.left}")
    console.print("idle in transaction:", dict(found["idle"].queries.most_common(8)))


if __name__ == "__main__":
    main()
