"""`make bench`: the contenders take turns in one run, so that a machine that slows down slows all of them."""

import argparse
import asyncio
import gc
import json
import statistics
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fastapi import FastAPI
from rich.console import Console
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession as SQLModelSession
from tests.proxy import counted
from tests.servers import PostgresServer

from bench import loading, writing
from bench.contenders.alchemy import ORM, Core
from bench.contenders.drivers import Aiosqlite, Asyncpg
from bench.contenders.peers import Piccolo, TortoiseORM
from bench.contenders.sessions import Sessions
from bench.models import TASKS, Task, TaskDTO, fill
from bench.operations import OPERATIONS, Contender, Keys, Operation
from catalysis import Database, Session, watch_queries
from catalysis.integrations.asgi import ManagedScope

WARM_UP = 3
POOL = {"pool_size": 10, "max_overflow": 0}


def session_contenders(engine: AsyncEngine) -> list[Contender]:
    """Those that differ in their session alone."""
    return [
        Sessions("Catalysis", lambda: Session(engine, expire_on_commit=False)),
        Sessions("SQLModel", lambda: SQLModelSession(engine, expire_on_commit=False)),
        ORM(engine),
        Core(engine),
    ]


async def keys_of(engine: AsyncEngine) -> Keys:
    """Rows from the middle, so that nobody is favoured."""
    async with AsyncSession(engine) as session:
        tasks = (await session.scalars(select(Task).order_by(Task.number).offset(5_000).limit(64))).all()
        first = tasks[0]
        return Keys(first.id, [task.id for task in tasks], first.user_id, first.category_id)


async def check(operation: Operation, contenders: list[Contender], keys: Keys) -> None:
    """Refuse to time answers that differ."""
    expected = operation.plain(await operation.of(contenders[0])(keys))
    for contender in contenders[1:]:
        answer = operation.plain(await operation.of(contender)(keys))
        if answer != expected:
            raise SystemExit(f"{contender.name} answers {operation.title!r} differently")


async def measure(operation: Operation, contenders: list[Contender], keys: Keys) -> dict[str, float]:
    """The median time of each contender in seconds."""
    times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for turn in range(operation.rounds + WARM_UP):
        for contender in contenders[turn % len(contenders) :] + contenders[: turn % len(contenders)]:
            work = operation.of(contender)
            if operation.is_large:  # nobody pays for the garbage of the contender before
                gc.collect()
            started = time.perf_counter()
            await work(keys)
            if turn >= WARM_UP:
                times[contender.name].append(time.perf_counter() - started)
    return {name: statistics.median(each) for name, each in times.items()}


async def in_turns(works: dict[str, Any], rounds: int) -> dict[str, float]:
    """The median time of each, taking turns; the answers must be equal."""
    answers = [sorted(await work()) for work in works.values()]
    if any(answer != answers[0] for answer in answers):
        raise SystemExit("the ways to load relationships answer differently")
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + WARM_UP):
        for name in [*works][turn % len(works) :] + [*works][: turn % len(works)]:
            gc.collect()
            started = time.perf_counter()
            await works[name]()
            if turn >= WARM_UP:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(each) for name, each in times.items()}


async def relationships(pool: Any, engine: AsyncEngine, console: Console) -> dict[str, Any]:
    """Each way to load relationships."""
    found = loading.ways(
        pool,
        lambda: Session(engine, expire_on_commit=False),
        lambda: SQLModelSession(engine, expire_on_commit=False),
    )
    report = {
        title: await in_turns({name: each[kind] for name, each in found.items()}, 20)
        for kind, title in loading.TITLES.items()
    }
    console.print(loading.table_of(report))
    return report


async def writes(
    engine: AsyncEngine, by_hand: dict[str, Any], keys: Keys, console: Console
) -> dict[str, Any]:
    """What writing costs; the rows that are new are deleted in between."""
    ways = {
        "by hand": by_hand,
        "Catalysis": writing.by_session(lambda: Session(engine, expire_on_commit=False), Task, keys),
        "SQLModel": writing.by_session(
            lambda: SQLModelSession(engine, expire_on_commit=False), writing.StockTask, keys
        ),
    }
    table = Table("operation", "by hand", "Catalysis", "SQLModel", title=f"writing on {engine.dialect.name}")
    report: dict[str, Any] = {}
    for kind, title in writing.TITLES.items():
        times: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range((200 if kind == "one" else 25) + WARM_UP):
            async with AsyncSession(engine) as session:
                await session.execute(delete(Task).where(col(Task.number) >= TASKS))
                await session.commit()
            for name in [*ways][turn % len(ways) :] + [*ways][: turn % len(ways)]:
                if kind != "one":
                    gc.collect()
                started = time.perf_counter()
                await ways[name][kind]()
                if turn >= WARM_UP:
                    times[name].append(time.perf_counter() - started)
        medians = report[title] = {name: statistics.median(each) for name, each in times.items()}
        base = medians["by hand"]
        table.add_row(
            title,
            f"{base * 1e6:,.0f} µs",
            *[f"{medians[name] / base:.2f}" for name in ("Catalysis", "SQLModel")],
        )
    console.print(table)
    return report


async def scope_costs(engine: AsyncEngine, keys: Keys, console: Console) -> dict[str, Any]:
    """What a managed scope costs a request of FastAPI that never needs it, called without a server."""
    app = FastAPI()

    @app.get("/task")
    async def task() -> TaskDTO:
        async with Session(engine, expire_on_commit=False) as session:
            return TaskDTO.model_validate(await session.get(Task, keys.one))

    bare = app.router.middleware_stack
    stacks = {"bare": bare, "in a scope": ManagedScope(bare)}
    scope = {"type": "http", "method": "GET", "path": "/task", "headers": [], "query_string": b""}

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        if message.get("status", 200) != 200:
            raise SystemExit("the request failed")

    times: dict[str, list[float]] = {name: [] for name in stacks}
    for turn in range(6_000):
        for name in [*stacks][:: 1 if turn % 2 else -1]:
            app.router.middleware_stack = stacks[name]
            started = time.perf_counter()
            await app(dict(scope), receive, send)
            times[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(each) for name, each in times.items()}
    console.print(
        f"a request for one row, in a managed scope: {medians['in a scope'] / medians['bare']:.3f}", medians
    )
    return medians


async def native_share(contender: Contender, keys: Keys) -> Counter[str]:
    """How the statements of all operations went: natively, or why not."""
    with watch_queries() as queries:
        for operation in OPERATIONS:
            await operation.of(contender)(keys)
    return Counter("native" if each.native else str(each.reason) for each in queries)


async def compare(
    backend: str, contenders: list[Contender], keys: Keys, chosen: list[Operation], console: Console
) -> dict[str, Any]:
    """Measure and print one backend; the first contender is the measure."""
    table = Table(title=f"{backend}: ratios of medians to hand-written {contenders[0].name}")
    table.add_column("operation")
    for contender in contenders:
        table.add_column(contender.name, justify="right")
    report: dict[str, Any] = {}
    for operation in chosen:
        await check(operation, contenders, keys)
        medians = await measure(operation, contenders, keys)
        base = medians[contenders[0].name]
        ratios = [f"{medians[each.name] / base:.2f}" for each in contenders[1:]]
        table.add_row(operation.title, f"{base * 1e6:,.0f} µs", *ratios)
        report[operation.title] = medians
    console.print(table)
    share = await native_share(contenders[1], keys)
    console.print(f"{contenders[1].name}: {share['native']} of {share.total()} statements native", share)
    return report


async def on_postgres(chosen: list[Operation], console: Console) -> dict[str, Any]:
    server = PostgresServer.start()
    try:
        database = Database(server.url())
        await fill(database)
        await database.close()
        engine = create_async_engine(server.url(), **POOL)
        contenders: list[Contender] = [await Asyncpg.open(server.url().replace("+asyncpg", ""))]
        contenders += [*session_contenders(engine)]
        contenders += [await TortoiseORM.open(server.url()), await Piccolo.open(server.url())]
        keys = await keys_of(engine)
        report = await compare("PostgreSQL", contenders, keys, chosen, console)
        report["relationships"] = await relationships(contenders[0].pool, engine, console)
        by_hand = writing.by_asyncpg(contenders[0].pool, keys)
        report["writing"] = await writes(engine, by_hand, keys, console)
        report["scope"] = await scope_costs(engine, keys, console)
        report["round trips"] = await round_trips(server.url(), keys, chosen, console)
        for contender in contenders:
            await contender.close()
        await engine.dispose()
        return report
    finally:
        server.stop()


async def on_sqlite(chosen: list[Operation], console: Console) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "bench.db"
        database = Database(f"sqlite:///{path}", **POOL)
        await fill(database)
        contenders: list[Contender] = [await Aiosqlite.open(str(path))]
        contenders += session_contenders(database.engine)
        keys = await keys_of(database.engine)
        report = await compare("SQLite", contenders, keys, chosen, console)
        by_hand = writing.by_aiosqlite(contenders[0].connection, keys)
        report["writing"] = await writes(database.engine, by_hand, keys, console)
        for contender in contenders:
            await contender.close()
        await database.close()
        return report


async def round_trips(url: str, keys: Keys, chosen: list[Operation], console: Console) -> dict[str, Any]:
    """How often each contender waits for the server, counted between it and us; everything is prepared before."""
    async with counted(url) as (through, trips):
        engine = create_async_engine(through, **POOL)
        contenders: list[Contender] = [
            await Asyncpg.open(through.replace("+asyncpg", "")),
            *session_contenders(engine)[:2],
        ]
        table = Table("operation", *[each.name for each in contenders], title="round trips")
        found: dict[str, Any] = {}
        for operation in chosen:
            counts: dict[str, int] = {}
            for contender in contenders:
                for _ in range(12):  # more often than the pool has connections
                    await operation.of(contender)(keys)
                await asyncio.sleep(0.05)
                trips.reset()
                await operation.of(contender)(keys)
                await asyncio.sleep(0.05)
                counts[contender.name] = trips.count
            table.add_row(operation.title, *[str(count) for count in counts.values()])
            found[operation.title] = counts
        console.print(table)
        for contender in contenders:
            await contender.close()
        await engine.dispose()
        return found


async def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--only", choices=["postgres", "sqlite"])
    parser.add_argument("--operation", action="append", choices=[each.method for each in OPERATIONS])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    chosen = [each for each in OPERATIONS if not given.operation or each.method in given.operation]
    console, report = Console(width=160), {}
    if given.only != "sqlite":
        report["PostgreSQL"] = await on_postgres(chosen, console)
    if given.only != "postgres":
        report["SQLite"] = await on_sqlite(chosen, console)
    if given.json:
        given.json.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    asyncio.run(main())
