"""`make bench`: the contenders take turns in one run, so that a machine that slows down slows all of them."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import aiosqlite
import asyncpg
from rich.console import Console
from rich.table import Table
from tests.servers import PostgresServer

from bench.operations import ROWS, Item, Model, Operation, Owner, operations, sessions
from catalysis import Database

ROUNDS = 60


async def _fill(database: Database) -> tuple[UUID, UUID]:
    await database.create_all(Model.metadata)
    async with database.session() as session:
        owner = Owner(name="owner")
        session.add(owner)
        await session.flush()
        items = [Item(title=f"item {number}", number=number, owner_id=owner.id) for number in range(ROWS)]
        session.add_all(items)
        await session.commit()
        return items[ROWS // 2].id, owner.id


def _postgres_fetch(pool: Any) -> Callable[..., Awaitable[Any]]:
    async def fetch(sql: str, *parameters: Any) -> Any:
        for number in range(1, len(parameters) + 1):
            sql = sql.replace("?", f"${number}", 1)
        return await pool.fetch(sql, *parameters)

    return fetch


def _sqlite_fetch(connection: aiosqlite.Connection) -> Callable[..., Awaitable[Any]]:
    async def fetch(sql: str, *parameters: Any) -> Any:
        plain = [each.hex if isinstance(each, UUID) else each for each in parameters]
        return await connection.execute_fetchall(sql, plain)

    return fetch


async def _compare(
    database: Database, fetch: Callable[..., Awaitable[Any]], table: Table, backend: str
) -> None:
    key, owner = await _fill(database)
    for operation in operations(key, owner):
        contenders = {name: operation.session(make) for name, make in sessions(database.engine).items()}
        if not operation.name.startswith("insert"):
            contenders["driver"] = operation.driver(fetch)
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for turn in range(ROUNDS + 5):
            for name, run in contenders.items():
                started = time.perf_counter()
                await run()
                if turn >= 5:  # the first turns fill caches
                    times[name].append(time.perf_counter() - started)
        table.add_row(backend, operation.name, *_ratios(operation, times))


def _ratios(operation: Operation, times: dict[str, list[float]]) -> list[str]:
    medians = {name: statistics.median(each) for name, each in times.items()}
    driver = medians.get("driver")
    stock = medians["stock SQLModel"]
    return [
        "-" if driver is None else f"{stock / driver:.2f}",
        "-" if driver is None else f"{medians['Catalysis'] / driver:.2f}",
        f"{medians['Catalysis'] / stock:.2f}",
        f"{medians['Catalysis'] * 1e6:,.0f}",
    ]


async def _main() -> None:
    table = Table(title="ratios of medians, contenders taking turns")
    for heading in (
        "backend",
        "operation",
        "stock / driver",
        "Catalysis / driver",
        "Catalysis / stock",
        "µs",
    ):
        table.add_column(heading, justify="left" if heading in ("backend", "operation") else "right")
    server = PostgresServer.start()
    try:
        database = Database(server.url())
        pool = await asyncpg.create_pool(server.url().replace("+asyncpg", ""))
        await _compare(database, _postgres_fetch(pool), table, "PostgreSQL")
        await pool.close()
        await database.close()
    finally:
        server.stop()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "bench.db"
        database = Database(f"sqlite:///{path}")
        async with aiosqlite.connect(path) as connection:
            await _compare(database, _sqlite_fetch(connection), table, "SQLite")
        await database.close()
    Console().print(table)


if __name__ == "__main__":
    asyncio.run(_main())
