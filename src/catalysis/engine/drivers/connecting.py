"""How asyncpg's connections are opened: to the host that may be written to, where several are named, and in time."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none

from catalysis.errors import CannotConnect

HEAD_START = 0.25
"""Seconds that a host has before the next one is tried beside it: one that has vanished answers nothing.

Source: RFC 8305, "Happy Eyeballs", which does so for the addresses of one host.
"""

_untyped: Any = asyncpg
_PASSES = (
    OSError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.TargetServerAttributeNotMatched,
)
"""What is wrong with a server for now, and not with what it was asked for."""


async def connect(*args: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
    """As `asyncpg.connect`; of several hosts, the first to let us in that may be written to.

    Raises:
        CannotConnect: none could be reached, or did in time, or none of several may be written to.
        PostgresError: a server refused the user, the password or the database.
    """
    try:
        if not isinstance(host, list):
            return await _to(host, port, args, options)
        options.setdefault("target_session_attrs", "read-write")
        hosts = zip(cast("list[str]", host), port, strict=True)
        return await _first_of(list(hosts), args, options)
    except TimeoutError as late:
        if isinstance(late, CannotConnect):
            raise
        raise CannotConnect(f"no answer in {options.get('timeout')} s", None, late) from late


async def _to(host: str | None, port: int | None, args: Any, options: dict[str, Any]) -> Any:
    try:
        return await _untyped.connect(*args, host=host, port=port, **options)
    except TimeoutError:
        raise
    except _PASSES as failure:
        raise _none_of({"the server" if host is None else f"{host}:{port}": failure}) from failure


async def _first_of(hosts: Sequence[tuple[str, int]], args: Any, options: dict[str, Any]) -> Any:
    left, under_way = list(hosts), dict[asyncio.Task[Any], str]()
    failures: dict[str, BaseException] = {}
    won: asyncio.Task[Any] | None = None
    try:
        while won is None and (left or under_way):
            if left:
                host, port = left.pop(0)
                attempt = _untyped.connect(*args, **options | {"host": host, "port": port})
                under_way[asyncio.ensure_future(attempt)] = f"{host}:{port}"
            waits = HEAD_START if left else None
            done, _ = await asyncio.wait(under_way, timeout=waits, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if (failure := task.exception()) is not None:
                    failures[under_way.pop(task)] = failure
                else:
                    won = won or task
    finally:
        for task in under_way:
            if task is not won:
                task.add_done_callback(_close_late)
                task.cancel()
    if won is None:
        raise _none_of(failures)
    return won.result()


def _close_late(attempt: "asyncio.Task[Any]") -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().terminate()


def _none_of(failures: dict[str, BaseException]) -> BaseException:
    """What is wrong with us goes before what is wrong with a server: it will not pass."""
    for failure in failures.values():
        if not isinstance(failure, _PASSES):
            return failure
    tried = ", ".join(f"{host} ({_why(failure)})" for host, failure in failures.items())
    slowest = next((each for each in failures.values() if isinstance(each, TimeoutError)), None)
    return CannotConnect(tried, None, slowest or list(failures.values())[-1])


def _why(failure: BaseException) -> str:
    if isinstance(failure, asyncpg.TargetServerAttributeNotMatched):
        return "may not be written to"
    return "no answer in time" if isinstance(failure, TimeoutError) else type(failure).__name__
