"""`python -m bench.inspector`: what the inspector costs the starter, in requests per second.

Three servers of the same code take turns: two without the inspector, whose difference is the noise, and one with it.
The client writes prepared bytes on kept connections, so that most of the time is the server's.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlencode

from rich.console import Console
from rich.table import Table
from tests.servers import PostgresServer, free_port

from catalysis import Database
from catalysis.starter.app.seed import DEMO_LOGINS, DEMO_PASSWORD

SERVERS = {"off": "0", "off again": "0", "on": "1"}
PATHS = {"one task": "/tasks/{task}", "20 tasks and their count": "/tasks?size=20"}
CONNECTIONS = 8


@contextmanager
def serving(url: str, inspector: str, folder: Path) -> Iterator[int]:
    """A server of its own process, ready; its port."""
    port = free_port()
    environment = {**os.environ, "DATABASE_URL": url, "DATABASE_INSPECTOR": inspector, "PORT": str(port)}
    command = [sys.executable, "-m", "catalysis.starter"]
    server = subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.DEVNULL)  # noqa: S603 - ours
    try:
        yield port
    finally:
        server.terminate()
        server.wait()


async def ask(port: int, request: bytes) -> bytes:
    """One answer, waiting up to half a minute for the server to be there."""
    for _ in range(300):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)
            continue
        try:
            return await exchange(reader, writer, request)
        finally:
            writer.close()
    raise SystemExit("a server did not start")


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bytes:
    """Send a request and return the body of its answer, which must be a success."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 2"):
        raise SystemExit(f"a server answered {head.splitlines()[0].decode()}")
    length = next(line for line in head.lower().splitlines() if line.startswith(b"content-length:"))
    return await reader.readexactly(int(length.split(b":")[1]))


def get(path: str, token: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


async def log_in(port: int) -> str:
    form = urlencode({"username": next(iter(DEMO_LOGINS)), "password": DEMO_PASSWORD})
    head = (
        "POST /auth/token HTTP/1.1\r\nHost: localhost\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(form)}\r\n\r\n"
    )
    return json.loads(await ask(port, (head + form).encode()))["access_token"]


async def load(port: int, request: bytes, seconds: float) -> float:
    """Requests per second of a few clients that ask again and again."""
    until, answered = time.perf_counter() + seconds, 0

    async def client() -> None:
        nonlocal answered
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < until:
            await exchange(reader, writer, request)
            answered += 1
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    return answered / (time.perf_counter() - started)


async def measure(ports: dict[str, int], rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """The median rate of each server, taking turns, for each path."""
    tokens = {name: await log_in(port) for name, port in ports.items()}
    report: dict[str, dict[str, float]] = {}
    for title, path in PATHS.items():
        requests: dict[str, bytes] = {}
        for name, port in ports.items():
            tasks = json.loads(await ask(port, get("/tasks?size=1", tokens[name])))
            requests[name] = get(path.format(task=tasks["items"][0]["id"]), tokens[name])
            await load(port, requests[name], 1)
        rates: dict[str, list[float]] = {name: [] for name in ports}
        for turn in range(rounds):
            names = [*ports]
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                rates[name].append(await load(ports[name], requests[name], seconds))
        report[title] = {name: statistics.median(each) for name, each in rates.items()}
    return report


async def on_databases(server: PostgresServer, number: int) -> list[str]:
    """Empty databases, one for each server."""
    admin = Database(server.url(), isolation_level="AUTOCOMMIT")
    async with admin.engine.connect() as connection:
        for each in range(number):
            await connection.exec_driver_sql(f"CREATE DATABASE starter_{each}")
    await admin.close()
    return [server.url(f"starter_{each}") for each in range(number)]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=2, help="of each turn")
    given = parser.parse_args()
    postgres = PostgresServer.start()
    try:
        with TemporaryDirectory() as folder:
            urls = asyncio.run(on_databases(postgres, len(SERVERS)))
            servers = [serving(url, on, Path(folder)) for url, on in zip(urls, SERVERS.values(), strict=True)]
            with servers[0] as first, servers[1] as second, servers[2] as third:
                ports = dict(zip(SERVERS, (first, second, third), strict=True))
                report = asyncio.run(measure(ports, given.rounds, given.seconds))
    finally:
        postgres.stop()
    table = Table("path", *SERVERS, title="requests per second (of those without)")
    for title, rates in report.items():
        shown = [f"{rate:,.0f} ({rate / rates['off']:.1%})" for rate in rates.values()]
        table.add_row(title, *shown)
    Console().print(table)


if __name__ == "__main__":
    main()
