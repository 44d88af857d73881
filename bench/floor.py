"""`python -m bench.floor`: how near the engine is to the least that real instances cost in Python.

The floor has no session that opens and closes, no plan to look for, no lease and no events: a prepared statement on a
connection that is held, and the generated hydrator over its rows.  Where the operation has a statement of SQLAlchemy's,
building it and its cache key are part of the floor, since that is the user's own code.
"""

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
from rich.console import Console
from rich.table import Table
from sqlalchemy.orm import joinedload
from sqlmodel import col, select
from tests.servers import PostgresServer

from bench.__main__ import keys_of
from bench.contenders.drivers import Asyncpg
from bench.contenders.sessions import Sessions
from bench.models import Task, User, fill
from bench.operations import Keys
from catalysis import Database, Session
from catalysis.engine.binding import bind
from catalysis.engine.collector import paused
from catalysis.engine.coverage import reading_of
from catalysis.engine.instances import load_of

CHILDREN = "WHERE bench_task.user_id = ANY($1)"
Way = Callable[[], Awaitable[Any]]


class Floor:
    """The operations, each at its least."""

    def __init__(self, connection: Any, session: Session, keys: Keys) -> None:
        self.connection, self.session, self.keys = connection, session, keys
        self.unit = session.sync_session
        self.readings: dict[str, Any] = {}

    def twenty_statement(self) -> Any:
        return select(Task).where(Task.user_id == self.keys.user).order_by(col(Task.number).desc()).limit(20)

    async def prepare(self) -> None:
        thousand = select(Task).order_by(col(Task.number)).limit(1_000)
        both = (joinedload(Task.user), joinedload(Task.category))
        for name, statement, sql in (
            ("one", select(Task).where(Task.id == self.keys.one), None),
            ("twenty", self.twenty_statement(), None),
            ("thousand", thousand, None),
            ("with_two", thousand.options(*both), None),
            ("users", select(User).order_by(col(User.name)), None),
            ("children", select(Task), CHILDREN),
        ):
            (await self.session.exec(statement)).all()  # its plan has met its rows
            reading = reading_of(self.unit, statement, None, {}, None)
            sent = None if isinstance(reading, str) else bind(self.unit, reading)
            if sent is None:
                raise SystemExit(f"{name} is not native")
            text = sent.sql if sql is None else f"{sent.sql} {sql}"
            self.readings[name] = (reading, await self.connection.prepare(text), sent.parameters)

    def instances(self, name: str, rows: Any) -> list[Any]:
        reading = self.readings[name][0]
        with paused(len(rows)):
            return reading.plan.hydrator_of_many(rows, load_of(self.unit, reading, len(rows)))

    async def whole(self, name: str) -> list[Any]:
        self.unit.expunge_all()
        _, statement, parameters = self.readings[name]
        return self.instances(name, await statement.fetch(*parameters))

    async def one(self) -> Any:
        return await self.whole("one")

    async def twenty(self) -> Any:
        self.twenty_statement()._generate_cache_key()
        return await self.whole("twenty")

    async def thousand(self) -> Any:
        return await self.whole("thousand")

    async def with_two(self) -> Any:
        return await self.whole("with_two")

    async def with_children(self) -> Any:
        users = await self.whole("users")
        rows = await self.readings["children"][1].fetch([user.id for user in users])
        children: dict[Any, list[Any]] = {user.id: [] for user in users}
        for task in self.instances("children", rows):
            children[task.__dict__["user_id"]].append(task)
        for user in users:
            user.__dict__["tasks"] = children[user.id]
        return users


OPERATIONS = {"one": 400, "twenty": 200, "thousand": 60, "with_two": 60, "with_children": 20}


async def medians(ways: list[Way], rounds: int) -> list[float]:
    """Of each way in seconds, in turns."""
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds):
        for way, taken in zip(ways, times, strict=True):
            if rounds <= 60:
                gc.collect()
            started = time.perf_counter()
            await way()
            taken.append(time.perf_counter() - started)
    return [statistics.median(each) for each in times]


async def main() -> None:
    server = PostgresServer.start()
    try:
        database, plain = Database(server.url()), server.url().replace("+asyncpg", "")
        await fill(database)
        keys, by_hand = await keys_of(database.engine), await Asyncpg.open(plain)
        ours = Sessions("Catalysis", database.session)
        connection = await asyncpg.connect(plain)
        async with database.session() as session:
            floor = Floor(connection, session, keys)
            await floor.prepare()
            table = Table("operation", "by hand", "floor", "Catalysis")
            for name, rounds in OPERATIONS.items():
                ways: list[Way] = [
                    lambda name=name: getattr(by_hand, name)(keys),
                    getattr(floor, name),
                    lambda name=name: getattr(ours, name)(keys),
                ]
                base, least, taken = await medians(ways, rounds)
                table.add_row(name, f"{base * 1e6:,.0f} µs", f"{least / base:.2f}", f"{taken / base:.2f}")
            Console().print(table)
        await connection.close()
        await by_hand.close()
        await database.close()
    finally:
        server.stop()


if __name__ == "__main__":
    asyncio.run(main())
