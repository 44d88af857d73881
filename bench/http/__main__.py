"""`python -m bench.http`: the three applications take turns, path by path; medians, ratios, JSON and a table."""

import argparse
import asyncio
import json
import statistics
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

from rich.console import Console
from rich.table import Table
from sqlmodel import col, select
from tests.servers import PostgresServer

from bench.http.answers import PATHS
from bench.http.serving import Run, Server, serving, wrk
from bench.models import Task, fill
from catalysis import Database

CONTENDERS = {"asyncpg": "bench.http.by_hand", "SQLModel": "bench.http.stock", "Catalysis": "bench.http.ours"}
"""The first is the measure."""
Report = dict[str, dict[int, dict[str, dict[str, float]]]]
"""Path's title → connections → contender → figures."""


async def prepared(url: str) -> dict[str, str]:
    """Fill the database; which task and user are asked for."""
    database = Database(url)
    await fill(database)
    async with database.session() as session:
        task = (await session.exec(select(Task).order_by(col(Task.number)).offset(5_000).limit(1))).one()
    await database.close()
    return {"task": str(task.id), "user": str(task.user_id)}


def check(servers: dict[str, Server], path: str) -> None:
    """Refuse to time answers that differ."""
    answers = {name: json.loads(server.get(path)) for name, server in servers.items()}
    expected = next(iter(answers.values()))
    for name, answer in answers.items():
        if answer != expected or not answer:
            raise SystemExit(f"{name} answers {path} differently")


def median(runs: list[Run]) -> dict[str, float]:
    """Of each figure, but the most of what must not happen at all."""
    figures = [run.as_json() for run in runs]
    return {
        name: (max if name in ("refused", "broken") else statistics.median)(each[name] for each in figures)
        for name in figures[0]
    }


def measure(
    servers: dict[str, Server], path: str, connections: int, rounds: int, seconds: float
) -> dict[str, dict[str, float]]:
    """The servers in turn, each round begun by another; the first round warms up."""
    runs: dict[str, list[Run]] = {name: [] for name in servers}
    names = [*servers]
    for turn in range(rounds + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            run = wrk(servers[name], path, connections, seconds if turn else 1)
            if turn:
                runs[name].append(run)
    return {name: median(each) for name, each in runs.items()}


def rows_of(report: Report) -> list[list[str]]:
    """The report as rows of text: rates as ratios to the first contender."""
    rows: list[list[str]] = []
    for title, by_connections in report.items():
        for connections, figures in by_connections.items():
            base = figures[next(iter(CONTENDERS))]
            row = [title, str(connections), f"{base['rate']:,.0f} ({base['p99']:.0f})"]
            for name in [*CONTENDERS][1:]:
                own = figures[name]
                row.append(f"{own['rate'] / base['rate']:.2f} ({own['p99']:.0f})")
            row.append(" / ".join(f"{figures[name]['cpu']:.0f}" for name in CONTENDERS))
            row.append(
                " / ".join(f"{figures[name]['refused'] + figures[name]['broken']:.0f}" for name in CONTENDERS)
            )
            rows.append(row)
    return rows


def table_of(report: Report) -> Table:
    """For a terminal."""
    first, *others = CONTENDERS
    table = Table(
        title=f"requests per second, as ratios to {first} (p99 in ms); µs of processor time a request"
    )
    for heading in ("path", "clients", f"{first}/s", *others, "processor", "failed"):
        table.add_column(heading)
    for row in rows_of(report):
        table.add_row(*row)
    return table


def run(given: argparse.Namespace, url: str) -> Report:
    """Start the servers, check and measure."""
    asked = asyncio.run(prepared(url))
    paths = {
        path: title for path, title in PATHS.items() if not given.path or path.split("/")[1] in given.path
    }
    report: Report = {}
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(serving(module, url, stderr=DEVNULL))  # failures are counted
            for name, module in CONTENDERS.items()
        }
        for path in PATHS:
            check(servers, path.format_map(asked))
        for path, title in paths.items():
            report[title] = {
                connections: measure(
                    servers, path.format_map(asked), connections, given.rounds, given.seconds
                )
                for connections in given.connections
            }
    return report


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="of each turn")
    parser.add_argument("--connections", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--path", action="append", choices=[path.split("/")[1] for path in PATHS])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    postgres = PostgresServer.start()
    try:
        report = run(given, postgres.url())
    finally:
        postgres.stop()
    parser_used = "httptools" if find_spec("httptools") else "h11"
    loop = "uvloop" if find_spec("uvloop") else "asyncio"
    console = Console(width=160)
    console.print(f"uvicorn on {loop} and {parser_used}, one worker; wrk and PostgreSQL on the same cores")
    console.print(table_of(report))
    if given.json:
        document: dict[str, Any] = {"loop": loop, "parser": parser_used, "paths": report}
        given.json.write_text(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
