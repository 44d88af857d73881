"""Proxies in front of PostgreSQL: one counts round trips, which end with the server's ReadyForQuery; one has faults."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


class RoundTrips:
    """How many there were since `reset`, over all connections."""

    def __init__(self) -> None:
        self.count = 0

    def reset(self) -> None:
        self.count = 0

    async def watch(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward the server's messages, which are a letter and a length each, and count those that end a trip."""
        try:
            writer.write(await reader.readexactly(1))  # the answer to the question for SSL is one byte
            while True:
                head = await reader.readexactly(5)
                body = await reader.readexactly(int.from_bytes(head[1:]) - 4)
                self.count += head[:1] == b"Z"
                writer.write(head + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()


@asynccontextmanager
async def counted(url: str) -> AsyncIterator[tuple[str, RoundTrips]]:
    """A URL that leads to the same database through a proxy, and its counter."""
    trips, port = RoundTrips(), urlsplit(url).port
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection("127.0.0.1", port)
        for work in (_forward(reader, ours), trips.watch(theirs, writer)):
            task = asyncio.create_task(work)
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield url.replace(f":{port}/", f":{server.sockets[0].getsockname()[1]}/"), trips
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()


# --- Faults ---------------------------------------------------------------------------------------

_CANCEL_REQUEST = (80877102).to_bytes(4)
_ENDS_A_REQUEST = frozenset({b"Q", b"S", b"H"})
"""A query, Sync and Flush: what the server answers without being sent more."""


class Faults:
    """What befalls the requests that clients send through the proxy; one fault at a time, once."""

    def __init__(self) -> None:
        self.requests = 0
        """How many have come since the fault was set."""
        self.struck = asyncio.Event()
        """Set when the fault has happened; for a reply that is cut, when the server has given it."""
        self.flows = asyncio.Event()
        """Cleared while nothing is forwarded, in either direction."""
        self.flows.set()
        self.released = asyncio.Event()
        """Set when a reply that was held may go on, or a cancel request that is late."""
        self.delivered = asyncio.Event()
        """Set when the server has taken a cancel request that came late."""
        self.cancels_late = False
        self._strikes: Callable[[bytes], bool] | None = None
        self._place = ""

    def cut(self, what: bytes | int, place: str) -> None:
        """Cut the connection at the request that contains `what`, or that is the `what`-th from now on, from 0.

        `place` is "request": the server never sees it; "reply": it has answered, and the client never sees that;
        "silence": as "reply", and nobody closes anything; "hold": as that, and it comes after `release`; "reset": the
        server gets it, and the client gets TCP's RST.
        """
        self.requests, self._place = 0, place
        self.struck.clear()
        self.released.clear()
        self._strikes = lambda body: what in body if isinstance(what, bytes) else self.requests == what

    def hold_cancels(self) -> None:
        """Cancel requests come late from now on: who sent one is told that it is done, and it goes on at `release`."""
        self.cancels_late = True
        for each in (self.struck, self.released, self.delivered):
            each.clear()

    def freeze(self) -> None:
        """A black hole from now on: everything is taken, nothing comes out, and nobody closes anything."""
        self.flows.clear()

    def thaw(self) -> None:
        """What was taken comes out."""
        self.flows.set()

    def release(self) -> None:
        """Let a reply go on that was held."""
        self.released.set()

    def clear(self) -> None:
        """No fault any more."""
        self._strikes, self.cancels_late = None, False
        self.thaw()
        self.release()

    def place_for(self, body: bytes) -> str:
        """Where the connection is cut at this request; empty if it is not."""
        strikes = self._strikes is not None and self._strikes(body)
        self.requests += 1
        if not strikes:
            return ""
        self._strikes = None
        return self._place


class _Wire:
    """One client's connection through the proxy."""

    def __init__(self, faults: Faults, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.faults, self.client, self.server = faults, client, server
        self.muted = ""
        self.is_late = False
        """Whether it is of a cancel request that was held."""

    async def requests(self, reader: asyncio.StreamReader) -> None:
        """Forward the client's messages: those before the connection is up have no letter."""
        try:
            code = b""
            while (
                code[:2] != b"\x00\x03"
            ):  # the version of the protocol: that is the start, and no SSLRequest
                size = await reader.readexactly(4)
                await self.faults.flows.wait()
                code = await reader.readexactly(int.from_bytes(size) - 4)
                if self.faults.cancels_late and code.startswith(_CANCEL_REQUEST):
                    return await self.come_late(size + code)
                self.server.write(size + code)
            pending = b""
            while True:
                head = await reader.readexactly(5)
                await self.faults.flows.wait()
                pending += head + await reader.readexactly(int.from_bytes(head[1:]) - 4)
                if head[:1] not in _ENDS_A_REQUEST:
                    if head[:1] == b"X":
                        self.server.write(pending)
                    continue
                place = self.faults.place_for(pending)
                if place == "request" or (place and head[:1] == b"H"):
                    self.faults.struck.set()
                    self.close()
                self.muted = place
                self.server.write(pending)
                if place == "reset":
                    await self.server.drain()
                    self.faults.struck.set()
                    self.reset()
                pending = b""
        except (asyncio.IncompleteReadError, ConnectionError):
            self.close()

    async def come_late(self, request: bytes) -> None:
        """Send a cancel request on when nobody waits for it any more; the server closes when it is done."""
        self.is_late = True
        self.client.close()
        self.faults.struck.set()
        await self.faults.released.wait()
        self.server.write(request)

    async def replies(self, reader: asyncio.StreamReader) -> None:
        """Forward the server's, or take the one that is to be lost."""
        try:
            self.client.write(await reader.readexactly(1))  # the answer to the question for SSL is one byte
            while True:
                head = await reader.readexactly(5)
                body = await reader.readexactly(int.from_bytes(head[1:]) - 4)
                await self.faults.flows.wait()
                if self.muted == "hold":
                    self.faults.struck.set()
                    await self.faults.released.wait()
                    self.muted = ""
                if not self.muted:
                    self.client.write(head + body)
                elif head[:1] == b"Z":
                    self.faults.struck.set()
                    if self.muted == "reply":
                        self.close()
        except (asyncio.IncompleteReadError, ConnectionError):
            if self.is_late:
                self.faults.delivered.set()
            self.close()

    def reset(self) -> None:
        """Have the client's side closed with RST, as by a firewall."""
        self.client.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        self.client.transport.abort()
        self.server.close()

    def close(self) -> None:
        """Cut both sides."""
        self.client.close()
        self.server.close()


@asynccontextmanager
async def faulty(url: str) -> AsyncIterator[tuple[str, Faults]]:
    """A URL that leads to the same database through a proxy, and the faults it can be told to have."""
    faults, port = Faults(), urlsplit(url).port
    tasks: set[asyncio.Task[None]] = set()
    wires: list[_Wire] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            theirs, ours = await asyncio.open_connection("127.0.0.1", port)
        except OSError:  # the server is down: so is this connection
            writer.close()
            return
        wire = _Wire(faults, writer, ours)
        wires.append(wire)
        for work in (wire.requests(reader), wire.replies(theirs)):
            task = asyncio.create_task(work)
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield url.replace(f":{port}/", f":{server.sockets[0].getsockname()[1]}/"), faults
    finally:
        server.close()
        for wire in wires:
            wire.close()
        for task in list(tasks):
            task.cancel()
