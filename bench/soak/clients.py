"""Clients that ask for anything, and leave when they like."""

import asyncio
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

from bench.soak.application import HIGHEST

ROUTES = {
    "GET /task/{n}": 6,
    "GET /tasks/{n}": 4,
    "GET /together/{n}": 2,
    "GET /slow": 2,
    "GET /waits/{n}": 2,
    "GET /late": 3,
    "GET /pages/{n}": 2,
    "GET /task/-1": 1,
    "POST /w/rename/{n}": 4,
    "POST /w/note": 3,
    "POST /w/refused": 2,
    "POST /w/twenty/{n}": 2,
    "POST /w/late/{n}": 3,
    "GET /w/cursor/{n}": 2,
}
"""What is asked for, and how often in comparison."""
LEAVES = 0.2
"""The share of requests that nobody waits for to the end."""
EXPECTED = frozenset({200, 404, 409})
STEADY, BURST = 24, 256
"""Connections: all the time, and for a moment."""


@dataclass
class Seen:
    """What the clients saw."""

    statuses: Counter[int] = field(default_factory=Counter)
    left: int = 0
    dropped: int = 0
    """Connections that the server closed before its answer."""
    without_retry_after: int = 0
    unexpected: Counter[str] = field(default_factory=Counter)

    @property
    def refused(self) -> int:
        """503s."""
        return self.statuses[503]

    def note(self, route: str, status: int, head: bytes) -> None:
        """Count an answer."""
        self.statuses[status] += 1
        if status == 503:
            self.without_retry_after += b"\r\nretry-after:" not in head.lower()
        elif status not in EXPECTED:
            self.unexpected[f"{status} {route}"] += 1


class Client:
    """One connection at a time, kept while that goes well."""

    def __init__(self, port: int, seen: Seen, seed: int) -> None:
        self._port, self._seen, self._random = port, seen, random.Random(seed)  # noqa: S311 - no secret
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask_until(
        self, ends: asyncio.Event, routes: dict[str, int], *, leaves: float, pause: float
    ) -> None:
        """Ask for one of the routes after another."""
        names, weights = [*routes], [*routes.values()]
        while not ends.is_set():
            (route,) = self._random.choices(names, weights)
            await self._ask(route, self._random.uniform(0, 0.2) if self._random.random() < leaves else None)
            await asyncio.sleep(self._random.uniform(0, pause))
        self._drop()

    async def _ask(self, route: str, leave_after: float | None) -> None:
        method, path = route.format(n=self._random.randrange(HIGHEST)).split()
        try:
            reader, writer = self._streams or await asyncio.open_connection("127.0.0.1", self._port)
            self._streams = reader, writer
            writer.write(f"{method} {path} HTTP/1.1\r\nHost: soak\r\nContent-Length: 0\r\n\r\n".encode())
            async with asyncio.timeout(leave_after):
                status, head = await _answer(reader)
            self._seen.note(route, status, head)
        except TimeoutError:
            self._seen.left += 1
            self._drop()
        except (OSError, asyncio.IncompleteReadError):
            self._seen.dropped += 1
            self._drop()

    def _drop(self) -> None:
        """Go away without a word: half of the time with a reset, else as a closed socket does."""
        if self._streams is not None:
            _, writer = self._streams
            if self._random.random() < 0.5:
                writer.transport.abort()
            else:
                writer.close()
            self._streams = None


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:] if line)
    if b"content-length" in fields:
        await reader.readexactly(int(fields[b"content-length"]))
    else:
        while size := int(await reader.readuntil(b"\n"), 16):
            await reader.readexactly(size + 2)
        await reader.readuntil(b"\n")
    return int(head.split()[1]), head


async def clients(port: int, seen: Seen, seconds: float, seed: int) -> None:
    """So many seconds of steady clients, with a burst in each fifth part of a minute."""
    ends = asyncio.Event()
    steady = [
        asyncio.create_task(Client(port, seen, seed + n).ask_until(ends, ROUTES, leaves=LEAVES, pause=0.03))
        for n in range(STEADY)
    ]
    clock = asyncio.get_running_loop().time
    until = clock() + seconds
    while clock() < until:
        await asyncio.sleep(min(3, until - clock()))
        if clock() < until:
            await burst(port, seen, seed)
            await asyncio.sleep(max(min(6, until - clock()), 0))
    ends.set()
    await asyncio.gather(*steady)


async def burst(port: int, seen: Seen, seed: int) -> None:
    """Three seconds of many more clients than there are connections, each asking for what holds one."""
    ends = asyncio.Event()
    tasks = [
        asyncio.create_task(
            Client(port, seen, seed + n).ask_until(ends, {"GET /slow": 1}, leaves=LEAVES, pause=0.01)
        )
        for n in range(BURST)
    ]
    await asyncio.sleep(3)
    ends.set()
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.gather(*tasks), 30)
