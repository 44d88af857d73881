"""`python -m bench.advice`: advice on the starter's own statements over 1,000,000 tasks, as Markdown tables.

Once with the starter's indexes, and once without all that are neither unique nor a constraint's.
"""

import argparse
import asyncio
import re
import time

from rich.console import Console
from tests.servers import PostgresServer

from bench.starter_rows import drop_secondary_indexes, fill, requests, send
from catalysis import Database
from catalysis.advice import Advice, Workload, advise, gather_workload

TASKS = 1_000_000


async def starter_workload(database: Database) -> Workload:
    """The statements behind the starter's lists, searches, counts and changes."""
    wanted = await requests(database)
    with gather_workload(database) as workload:
        statuses = await send(database, wanted)
    assert all(status < 400 or name == "log in" for name, status in statuses.items()), statuses
    return workload


def told(sql: str) -> str:
    """A statement without the list of what it selects."""
    joined = " ".join(sql.split())
    columns, _, rest = joined.partition(" FROM ")
    if joined.startswith("SELECT") and len(columns) > 60:
        joined = f"SELECT … FROM {rest}"
    joined = re.sub(
        r' LEFT OUTER JOIN "user" AS user_1 .* AND category_1.deleted_at IS NULL',
        " LEFT OUTER JOIN …",
        joined,
    )
    return joined.replace("|", "\\|")


def as_markdown(advice: Advice) -> str:
    """The indexes with what they do, then all statements."""
    lines = ["| index | cost before | after | without it alone | MiB |", "| --- | --- | --- | --- | --- |"]
    for index in advice.indexes:
        best = max(index.gains, key=lambda gain: (gain.without or 0) / (gain.after or 1))
        what = index.ddl.partition(" ON ")[2]
        costs = f"{best.before:,.0f} | {best.after:,.1f} | {best.without:,.0f}"
        lines.append(f"| `{what}` | {costs} | {(index.size or 0) / 1024**2:,.1f} |")
    lines += ["", "| statement | cost before | after | index |", "| --- | --- | --- | --- |"]
    for each in sorted(advice.statements, key=lambda one: -(one.before or 0)):
        names = ", ".join(f"`{name}`" for name in each.indexes) or "—"
        lines.append(f"| `{told(each.statement.sql)}` | {each.before:,.1f} | {each.after:,.1f} | {names} |")
    return "\n".join(lines)


async def run(url: str, tasks: int, out: Console) -> None:
    """Fill, ask, and print."""
    database = Database(url)
    await fill(database, tasks)
    workload = await starter_workload(database)
    for title in ("With the starter's own indexes", "Without its secondary indexes"):
        started = time.perf_counter()
        advice = await advise(database, workload, in_transaction=True)
        took = time.perf_counter() - started
        out.print(
            f"\n## {title}: {len(advice.indexes)} indexes for {len(advice.statements)} statements, {took:.0f} s\n"
        )
        out.print(as_markdown(advice), markup=False)
        out.print([str(each.reason) for each in advice.skipped], markup=False)
        await drop_secondary_indexes(database)
    await database.close()


def main() -> None:
    """Start a server for it, and stop it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=TASKS)
    options = parser.parse_args()
    server = PostgresServer.start("shared_buffers=512MB", "max_wal_size=4GB")
    try:
        asyncio.run(run(server.url(), options.tasks, Console(soft_wrap=True, highlight=False)))
    finally:
        server.stop()


if __name__ == "__main__":
    main()
