"""What a type checker must say of correct code.  Checked by `make check`; never run."""

from collections.abc import Sequence
from typing import Any, assert_type
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy import select as sqlalchemy_select
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlmodel import Field, Relationship, select

from catalysis import (
    Database,
    DatabaseDep,
    DatabaseService,
    ModelWithIdAndTimestamps,
    Session,
    SoftDelete,
    count,
    exists,
    load,
    managed,
    run,
    top,
)
from catalysis.tools.keyset import KeysetPage, paginate_keyset
from catalysis.tools.paginate import Page, paginate


class Task(SoftDelete, ModelWithIdAndTimestamps, table=True):
    title: str
    number: int = Field(default=0)


async def results(session: Session, key: UUID) -> None:
    assert_type((await session.exec(select(Task))).all(), Sequence[Task])
    assert_type((await session.exec(select(Task))).one(), Task)
    assert_type((await session.exec(select(Task))).first(), Task | None)
    assert_type((await session.exec(select(Task.title, Task.number))).one(), tuple[str, int])
    assert_type((await session.execute(sqlalchemy_select(Task))).scalar_one(), Task)
    assert_type((await session.execute(sqlalchemy_select(Task))).scalars().all(), Sequence[Task])
    assert_type((await session.scalars(sqlalchemy_select(Task))).one(), Task)
    assert_type(await session.get(Task, key), Task | None)
    assert_type(await session.get_one(Task, key), Task)


class Owner(ModelWithIdAndTimestamps, table=True):
    tasks: list[Task] = Relationship()


async def relationships(owners: list[Owner]) -> None:
    assert_type(await load(owners, count(Owner.tasks)), list[int])
    assert_type(await load(owners, exists(Owner.tasks, Task.number > 1)), list[bool])
    assert_type(await load(owners, top(Owner.tasks, 3, order_by=Task.number)), list[list[Task]])
    await load(owners, Owner.tasks, Task.title)
    assert_type(await managed(answer()), int)
    assert_type(run(answer()), int)


async def answer() -> int:
    return 1


async def pages(session: Session) -> None:
    assert_type(await paginate(session, select(Task)), Page[Task])
    assert_type(await paginate_keyset(session, select(Task)), KeysetPage[Task])
    assert_type(await paginate(session, sqlalchemy_select(Task)), Page[Task])
    assert_type((await paginate(session, select(Task.title, Task.number))).items, list[Row[str, int]])


async def sessions(engine: AsyncEngine, database: Database, given: DatabaseDep) -> None:
    assert_type(given, Session)
    assert_type(database.session(), Session)
    async with async_sessionmaker(engine, class_=Session)() as session:
        assert_type(session, Session)
    async with Session(engine, expire_on_commit=False) as session:
        assert_type(session, Session)

    async def work(session: Session) -> int:
        return 1

    assert_type(await database.transaction(work), int)
    assert_type(
        await database.transaction(work, isolation="serializable", nested="savepoint", retries=3), int
    )

    @database.transactional(retries=3)
    async def decorated(session: Session, key: UUID, *, name: str = "") -> str:
        assert_type(session, Session)
        return name

    assert_type(await decorated(UUID(int=0)), str)
    assert_type(await decorated(UUID(int=0), name="x"), str)


@DatabaseService.transactional(isolation="repeatable read")
async def counted(session: Session) -> int:
    return len((await session.exec(select(Task))).all())


async def of_the_process() -> None:
    assert_type(await counted(), int)


def keywords(**options: Any) -> Task:
    return Task(title="x", **options)
