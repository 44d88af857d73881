"""The application that is soaked.  Reads and transactions have a database each, so that the server tells them apart."""

import asyncio
import gc
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from greenlet import greenlet
from pydantic import BaseModel, ConfigDict
from sqlalchemy import text
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel, col, delete, select

from bench.models import TASKS, Model, Task
from catalysis import Database, DatabaseDep, DatabaseSettings, PoolExhausted, Session, paginate_keyset
from catalysis.integrations.fastapi import add_error_handlers, lifespan

READS, WRITES = "soak-reads", "soak-writes"
"""Names of the connections, as `pg_stat_activity` has them."""
POOL = {READS: 10, WRITES: 5}
PATIENCE = 1.0
"""Seconds that a request waits for a connection, before it is a 503."""
SLOW = "CREATE VIEW soak_slow AS SELECT n AS id, pg_sleep(0.1)::text AS slept FROM generate_series(1, 9) n"


class View(SQLModel, registry=registry()):
    """Apart from the tables that `create_all` makes."""


class Slow(View, table=True):
    """A view whose rows take 100 ms each: a statement that holds its connection, and yet is a plain read."""

    __tablename__ = "soak_slow"
    id: int = Field(primary_key=True)
    slept: str


class Note(Model, table=True):
    __tablename__ = "soak_note"
    text: str


class Named(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    name: str


class TaskWithUser(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: UUID
    title: str
    number: int
    user: Named


async def prepare(url: str) -> None:
    """What the routes need beside the tables of `bench.models`."""
    database = Database(url)
    async with database.engine.begin() as connection:
        await connection.execute(text(SLOW))
    await database.close()


def _database(url: str, name: str) -> Database:
    settings = DatabaseSettings(url=url, pool_size=POOL[name], max_overflow=0, pool_timeout=PATIENCE)
    return Database(settings, connect_args={"server_settings": {"application_name": name}})


def application(url: str) -> FastAPI:
    """The routes; those that write are mounted under /w."""
    reads, writes = _database(url, READS), _database(url, WRITES)

    @asynccontextmanager
    async def live(app: FastAPI) -> AsyncIterator[dict[str, Database]]:
        async with lifespan(reads)(app) as state:
            for each in (
                reads,
                writes,
            ):  # at an engine's first connection SQLAlchemy asks for versions, in a transaction
                assert (await each.health()).ready
            yield state
        await writes.close()

    app = FastAPI(lifespan=live)
    add_error_handlers(app)
    writing = writing_routes(writes)
    writing.state.database = writes
    app.mount("/w", writing)
    reading_routes(app, reads)

    @app.get("/debug")
    async def debug() -> dict[str, int]:
        """What is alive in the process."""
        gc.collect()
        return {
            "lent": reads.pool_figures().lent + writes.pool_figures().lent,
            "open": reads.pool_figures().open + writes.pool_figures().open,
            "leases": len(reads.leases()) + len(writes.leases()),
            "tasks": len(asyncio.all_tasks()),
            "greenlets": sum(isinstance(each, greenlet) for each in gc.get_objects()),
            "sessions": sum(isinstance(each, Session) for each in gc.get_objects()),
        }

    return app


def by_number(number: int) -> Any:
    """The query for one task."""
    return select(Task).where(Task.number == number)


def reading_routes(app: FastAPI, database: Database) -> None:
    """Routes that only read, and so must never be seen idle in a transaction."""

    @app.get("/task/{number}", response_model=TaskWithUser)
    async def one(number: int, db: DatabaseDep) -> Any:
        found = (await db.exec(by_number(number))).one_or_none()
        if found is None:
            raise HTTPException(404)
        return found  # its user is loaded when it is rendered

    @app.get("/tasks/{start}", response_model=list[TaskWithUser])
    async def several(start: int, db: DatabaseDep) -> Any:
        query = select(Task).where(Task.number >= start).order_by(col(Task.number)).limit(20)
        return (await db.exec(query)).all()

    @app.get("/together/{start}")
    async def together(start: int, db: DatabaseDep) -> int:
        found = await asyncio.gather(*[db.exec(by_number(start + step)) for step in range(5)])
        return len(found)

    @app.get("/slow")
    async def slow(db: DatabaseDep) -> str:
        return (await db.exec(select(Slow).limit(1))).one().slept

    @app.get("/waits/{number}")
    async def waits(number: int, db: DatabaseDep) -> str:
        """Waits for something else, with a session in hand that has read."""
        found = (await db.exec(by_number(number))).one()
        await asyncio.sleep(0.3)
        await db.refresh(found)
        return found.title

    @app.get("/late")
    async def late(db: DatabaseDep) -> bool:
        try:
            async with asyncio.timeout(random.uniform(0, 0.15)):  # noqa: S311 - no secret
                await db.exec(select(Slow).limit(1))
        except TimeoutError:
            return True
        return False

    streaming_routes(app, database)


def streaming_routes(app: FastAPI, database: Database) -> None:
    """What reads on while its body is being sent."""

    @app.get("/pages/{start}")
    async def pages(start: int) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            cursor = None
            for _ in range(10):
                async with database.session() as session:
                    query = select(Task).where(Task.number >= start).order_by(col(Task.number))
                    page = await paginate_keyset(session, query, size=20, after=cursor)
                cursor = page.next_cursor
                yield "".join(f"{task.title}\n" for task in page.items)
                await asyncio.sleep(0.02)

        return StreamingResponse(told_when_busy(body()))


async def told_when_busy(body: AsyncIterator[str]) -> AsyncIterator[str]:
    """What streams has sent its 200 by the time that it finds the pool empty: the client is told in the body."""
    try:
        async for part in body:
            yield part
    except PoolExhausted:
        yield "busy\n"


def writing_routes(database: Database) -> FastAPI:
    """Routes with transactions."""
    app = FastAPI()
    add_error_handlers(app)

    @app.post("/rename/{number}")
    async def rename(number: int, db: DatabaseDep) -> str:
        task = (await db.exec(by_number(number))).one()
        task.title = f"{number} renamed"
        await db.flush()
        user = (await db.exec(select(Task).where(Task.user_id == task.user_id).limit(3))).all()
        await db.commit()
        return f"{task.title} {len(user)}"

    @app.post("/note")
    async def note(db: DatabaseDep) -> UUID:
        made = Note(text="soaked")
        db.add(made)
        await db.commit()
        await db.exec(delete(Note).where(col(Note.id) < made.id))
        await db.commit()
        return made.id

    @app.post("/refused")
    async def refused(db: DatabaseDep) -> None:
        db.add(Note(text="never there"))
        await db.flush()
        raise HTTPException(409)

    @app.post("/twenty/{start}")
    async def twenty(start: int) -> int:
        async def work(session: Session) -> int:
            query = select(Task).where(Task.number >= start).order_by(col(Task.number)).limit(20)
            found = (await session.exec(query)).all()
            for task in found:
                task.done = not task.done
            return len(found)

        return await database.transaction(work)

    interrupted_routes(app, database)
    return app


def interrupted_routes(app: FastAPI, database: Database) -> None:
    """Transactions that a timeout, or a client who leaves, may end at any time."""

    @app.post("/late/{number}")
    async def late(number: int, db: DatabaseDep) -> bool:
        try:
            async with asyncio.timeout(random.uniform(0, 0.15)):  # noqa: S311 - no secret
                task = (await db.exec(by_number(number))).one()
                task.title = "never there"
                await db.flush()
                await db.exec(select(Slow).limit(1))
        except TimeoutError:
            await db.rollback()
            return True
        await db.rollback()
        return False

    @app.get("/cursor/{start}")
    async def cursor(start: int) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            async with database.session() as session:
                query = select(Task).where(Task.number >= start).order_by(col(Task.number)).limit(100)
                rows = await session.stream_scalars(query, execution_options={"yield_per": 10})
                async for task in rows:
                    yield f"{task.title}\n"
                    if task.number % 10 == 0:
                        await asyncio.sleep(0.005)

        return StreamingResponse(told_when_busy(body()))


HIGHEST = TASKS - 200
"""The highest number to ask for, so that there are rows behind it."""
