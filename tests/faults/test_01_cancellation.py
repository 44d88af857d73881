"""1. Cancelled at whatever step, whatever was called: no connection is lost, and none left in a transaction.

Mutations seen to fail: `Lease.give_up` does nothing; `discard` terminates the connection instead of closing it politely
(the statement runs on at the server); `_roll_back_first` does nothing (SQLite's write lock stays); `stream` without
`give_up` (a backend stays in a transaction).
"""

import asyncio
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, func, text
from sqlalchemy.orm import selectinload
from sqlmodel import col, select

from catalysis import (
    Database,
    DatabaseSettings,
    Session,
    UncommittedChanges,
    bulk_insert,
    bulk_update,
    count,
    delete_where,
    explain,
    load,
    managed,
    paginate,
    paginate_keyset,
    update_where,
    upsert,
)
from tests.faults.checks import Server, eventually, seen_from_outside
from tests.faults.stepping import cancelled_at
from tests.models import Job, Label, Person, made

Work = Callable[[Database, Session], Awaitable[Any]]
APART = MetaData()
Table("apart", APART, Column("id", Integer, primary_key=True))


async def _get(database: Database, session: Session) -> None:
    key = (await session.exec(select(Label.id))).first()
    session.expunge_all()
    await session.get(Label, key)


async def _refresh(database: Database, session: Session) -> None:
    label = (await session.exec(select(Label))).first()
    await session.refresh(label)


async def _stream(database: Database, session: Session) -> None:
    async for _ in await session.stream_scalars(select(Label).execution_options(yield_per=2)):
        pass


async def _flush(database: Database, session: Session) -> None:
    session.add(Label(name="flushed"))
    await session.flush()


async def _commit_one(database: Database, session: Session) -> None:
    label = (await session.exec(select(Label))).first()
    label.name += "x"
    await session.commit()


async def _commit_two(database: Database, session: Session) -> None:
    for label in (await session.exec(select(Label))).all():
        label.name += "y"
    await session.flush()
    await session.commit()


async def _write_token(database: Database, session: Session) -> None:
    await _commit_one(database, session)
    await session.write_token()
    await database.write_token()


async def _rollback(database: Database, session: Session) -> None:
    session.add(Label(name="rolled back"))
    await session.flush()
    await session.rollback()


async def _delete(database: Database, session: Session) -> None:
    person = (await session.exec(select(Person).limit(1))).one()
    await session.delete(person)
    await session.flush()
    await session.restore(person)
    await session.rollback()


async def _delete_hard(database: Database, session: Session) -> None:
    await session.delete((await session.exec(select(Person).limit(1))).one(), hard=True)
    await session.flush()
    await session.rollback()


async def _merge(database: Database, session: Session) -> None:
    key = (await session.exec(select(Label.id))).first()
    session.expunge_all()
    await session.merge(Label(id=key, name="merged"))
    await session.rollback()


async def _begin(database: Database, session: Session) -> None:
    async with session.begin():
        await session.exec(select(Label))
        async with session.begin_nested():
            session.add(Job(title="nested", person=(await session.exec(select(Person).limit(1))).one()))
        await session.rollback()


async def _run_sync(database: Database, session: Session) -> None:
    await session.run_sync(lambda sync: sync.scalars(select(Label)).all())
    await session.connection()
    await session.reset()


async def _invalidate(database: Database, session: Session) -> None:
    await session.connection()
    await session.invalidate()


async def _touch(database: Database, session: Session) -> None:
    async def touch() -> None:
        for person in (await session.exec(select(Person))).all():
            assert person.jobs

    await managed(touch())


async def _load(database: Database, session: Session) -> None:
    people = (await session.exec(select(Person))).all()
    await load(people, Person.jobs, Person.teams)
    await load(people, count(Person.jobs))


async def _transaction(database: Database, session: Session) -> None:
    async def work(inner: Session) -> None:
        await inner.exec(select(Label))
        await inner.execute(text("UPDATE label SET updated_at = updated_at"))

    await database.transaction(work)


async def _isolated(database: Database, session: Session) -> None:
    async def work(inner: Session) -> None:
        await inner.exec(select(Label))
        await database.transaction(lambda part: part.exec(select(Person)), nested="savepoint")

    await database.transaction(work, isolation="serializable")


async def _tables(database: Database, session: Session) -> None:
    await database.create_all(APART)
    await database.drop_all(APART)


async def _bulk(database: Database, session: Session) -> None:
    await bulk_insert(session, Label, [{"name": f"bulk {n}"} for n in range(300)])
    await session.rollback()


async def _upsert(database: Database, session: Session) -> None:
    await upsert(session, Label, [{"name": "label 0"}, {"name": "new"}], key="name")
    await session.rollback()


async def _bulk_update(database: Database, session: Session) -> None:
    labels = (await session.exec(select(Label))).all()
    await bulk_update(session, Label, [{"id": each.id, "name": f"{each.name}z"} for each in labels])
    await session.rollback()


async def _where(database: Database, session: Session) -> None:
    await update_where(session, Label, col(Label.name) == "none", values={"name": "no"})
    await delete_where(session, Label, col(Label.name) == "none")
    await session.rollback()


WORK: dict[str, Work] = {
    "exec": lambda _, session: session.exec(select(Label)),
    "scalars": lambda _, session: session.scalars(select(Label)),
    "scalar": lambda _, session: session.scalar(select(func.count(Label.id))),
    "text": lambda _, session: session.execute(text("SELECT 1")),
    "get": _get,
    "in a transaction": lambda _, session: session.exec(select(Label, func.now())),
    "eager loads": lambda _, session: session.exec(
        select(Person).options(selectinload(Person.jobs), selectinload(Person.teams))
    ),
    "refresh": _refresh,
    "stream": _stream,
    "flush": _flush,
    "commit one": _commit_one,
    "commit two": _commit_two,
    "write_token": _write_token,
    "rollback": _rollback,
    "delete": _delete,
    "delete hard": _delete_hard,
    "merge": _merge,
    "begin": _begin,
    "run_sync": _run_sync,
    "invalidate": _invalidate,
    "touch": _touch,
    "load": _load,
    "transaction": _transaction,
    "isolated": _isolated,
    "tables": _tables,
    "health": lambda database, _: database.health(),
    "paginate": lambda _, session: paginate(session, select(Label).order_by(Label.name), page=1, size=2),
    "paginate_keyset": lambda _, session: paginate_keyset(
        session, select(Label).order_by(Label.name), size=2
    ),
    "explain": lambda _, session: explain(session, select(Label)),
    "bulk_insert": _bulk,
    "upsert": _upsert,
    "bulk_update": _bulk_update,
    "where": _where,
}


@pytest.fixture
async def small(backend_url: str) -> AsyncIterator[Database]:
    """A database with a pool of two: what is lost twice is missed."""
    async with made(backend_url) as filled, filled.session() as session:
        session.add_all([Label(name=f"label {n}") for n in range(6)])
        session.add_all([Person(name=name, jobs=[Job(title="x")]) for name in ("ada", "bob")])
        await session.commit()
    settings = DatabaseSettings(url=backend_url, pool_size=2, max_overflow=0, pool_timeout=10)
    database = Database(settings)
    yield database
    await database.close()


async def _cancel_at_each_step(database: Database, work: Work, server: Server | None, steps: Any) -> int:
    """At those steps until it ends by itself; how many there were."""

    async def use() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", UncommittedChanges
            )  # of work that ended and left its flush behind
            async with database.session() as session:
                await work(database, session)

    await use()
    last = 0
    for late in (False, True):
        for step in steps:
            if not await cancelled_at(use(), step, late=late):
                break
            last = max(last, step)
            await eventually(lambda: database.pool_figures().lent == 0, f"lost at step {step}, {late=}")
            if server is not None:
                await server.none_in_transaction()
            async with asyncio.timeout(20), database.session() as session:
                assert len((await session.exec(select(Label))).all()) >= 6, f"after step {step}, {late=}"
    return last


async def _all_of(database: Database, name: str, steps: Any) -> int:
    if database.engine.dialect.name != "postgresql":
        return await _cancel_at_each_step(database, WORK[name], None, steps)
    async with seen_from_outside(database.settings.url) as server:
        return await _cancel_at_each_step(database, WORK[name], server, steps)


async def test_everything_can_be_cancelled_at_some_steps(small: Database):
    for name in WORK:
        assert await _all_of(small, name, [1, 3, 7]) >= 1, name


@pytest.mark.long
@pytest.mark.parametrize("name", WORK)
async def test_it_can_be_cancelled_at_every_step(small: Database, name: str):
    assert await _all_of(small, name, range(1, 1_000)) < 999


async def test_a_cold_pool_can_be_cancelled_at_every_step(backend_url: str):
    """Connecting is where most of the waiting is: each time with no connection there."""
    async with made(backend_url) as filled:
        async with filled.session() as session:
            session.add(Label(name="x"))
            await session.commit()
        database = Database(DatabaseSettings(url=backend_url, pool_size=1, max_overflow=0, pool_timeout=10))

        async def use() -> None:
            async with database.session() as session:
                await session.exec(select(Label))

        for late in (False, True):
            for step in range(1, 1_000, 1 if filled.engine.dialect.name == "sqlite" else 2):
                if not await cancelled_at(use(), step, late=late):
                    break
                await eventually(lambda: database.pool_figures().lent == 0, f"lost at step {step}, {late=}")
                async with asyncio.timeout(20), database.session() as session:
                    assert (await session.exec(select(Label.name))).all() == ["x"]
                await database.close()
            else:
                raise AssertionError("it never ends")
            await database.close()


SLOW = {
    "native": lambda session: session.exec(select(Label, func.pg_sleep(30))),
    "outside a transaction": lambda session: session.scalar(
        select(func.count(Label.id)).where(text("(SELECT pg_sleep(30)) IS NOT NULL"))
    ),
    "by SQLAlchemy": lambda session: session.execute(text("SELECT pg_sleep(30)")),
}


@pytest.mark.parametrize("how", SLOW)
async def test_what_was_cancelled_does_not_run_on_at_the_server(postgres_url: str, how: str):
    async with made(postgres_url) as database, seen_from_outside(postgres_url) as server:
        async with database.session() as session:
            session.add(Label(name="x"))
            await session.commit()

        async def use() -> None:
            async with database.session() as session:
                await SLOW[how](session)

        task = asyncio.create_task(use())

        await eventually(lambda: server.waits_at("PgSleep"), "it never began")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.none_running("pg_sleep")
        await eventually(lambda: database.pool_figures().lent == 0, "lost")


async def test_closing_waits_until_what_was_given_up_is_cancelled(postgres_url: str):
    """Mutation: without the wait in `Database.close`, the event loop ends first, and the server sleeps on."""

    async def give_up() -> None:
        database = Database(postgres_url)

        async def use() -> None:
            async with database.session() as session:
                await session.exec(select(func.pg_sleep(30)))

        task = asyncio.create_task(use())
        async with seen_from_outside(postgres_url) as server:
            await eventually(lambda: server.waits_at("PgSleep"), "it never began")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await database.close()

    await asyncio.to_thread(asyncio.run, give_up())
    async with seen_from_outside(postgres_url) as server:
        await server.none_running("pg_sleep")
