"""Pages by cursor: what they hold, the WHERE they send, and that nobody can break them with a cursor."""

import json
import math
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import sqlmodel
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import String, asc, case, desc, func, insert, inspect, literal, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import aliased, contains_eager, defer, joinedload, registry

from catalysis import DTO, InvalidPage, ModelWithIdAndTimestamps, Session, SoftDelete, include_deleted
from catalysis.tools.cursor import LARGEST, Position, read_cursor, write_cursor
from catalysis.tools.keyset import KeysetPage, paginate_keyset
from tests.tools.paged_models import (
    START,
    Colour,
    Dog,
    Everything,
    Note,
    Owner,
    Tag,
    Task,
    engine_with_tables,
    statements_of,
    task_tag,
    tasks,
)

newest = select(Task).order_by(Task.created_at.desc())


class Model(ModelWithIdAndTimestamps, registry=registry()):
    pass


class Letter(SoftDelete, Model, table=True):
    subject: str


class TaskDTO(DTO):
    id: int
    title: str


@pytest.fixture
async def engine(backend_url: str) -> AsyncIterator[AsyncEngine]:
    """25 tasks; owner 1 has the even ones, owner 2 none; tag 1 is on every task, tag 2 on every fifth."""
    async with engine_with_tables(backend_url) as engine:
        async with AsyncSession(engine) as session:
            session.add_all([Owner(id=1, name="ann"), Owner(id=2, name="Bob")])
            tags = [Tag(id=1, name="all"), Tag(id=2, name="fifth")]
            for task in tasks(25):
                task.owner_id = None if task.id % 2 else 1
                task.tags = tags[: 1 if task.id % 5 else 2]
                task.notes = [Note(number=number) for number in range(task.id % 3)]
                session.add(task)
            session.add_all([Dog(id=number, name="Rex", barks=number % 2) for number in range(5)])
            await session.commit()
        yield engine


@pytest.fixture
async def session(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    async with AsyncSession(engine) as session:
        yield session


async def forward(session: AsyncSession, statement: Any, size: int) -> tuple[list[Any], KeysetPage[Any]]:
    """The items of all pages from the first, and the last page."""
    page = await paginate_keyset(session, statement, size=size)
    assert page.previous_cursor is None
    items = list(page.items)
    while page.next_cursor is not None:
        page = await paginate_keyset(session, statement, after=page.next_cursor, size=size)
        items += page.items
    return items, page


async def backward(session: AsyncSession, statement: Any, last: KeysetPage[Any]) -> list[Any]:
    """The items of all pages before the last one, and of that."""
    page, items = last, list(last.items)
    while page.previous_cursor is not None:
        page = await paginate_keyset(session, statement, before=page.previous_cursor, size=last.size)
        items = page.items + items
    return items


# --- What the pages hold --------------------------------------------------------------------------


async def test_forward_to_the_end_and_back_to_the_start(session: AsyncSession):
    first = await paginate_keyset(session, newest, size=10)
    assert [task.id for task in first.items] == list(range(25, 15, -1))
    assert (first.has_next, first.has_previous, first.previous_cursor) == (True, False, None)

    second = await paginate_keyset(session, newest, after=first.next_cursor, size=10)
    assert [task.id for task in second.items] == list(range(15, 5, -1))
    assert (second.has_next, second.has_previous) == (True, True)

    third = await paginate_keyset(session, newest, after=second.next_cursor, size=10)
    assert [task.id for task in third.items] == [5, 4, 3, 2, 1]
    assert (third.has_next, third.next_cursor, third.has_previous) == (False, None, True)

    again = await paginate_keyset(session, newest, before=third.previous_cursor, size=10)
    assert [task.id for task in again.items] == list(range(15, 5, -1))
    assert (again.has_next, again.has_previous) == (True, True)
    start = await paginate_keyset(session, newest, before=again.previous_cursor, size=10)
    assert [task.id for task in start.items] == list(range(25, 15, -1))
    assert (start.has_next, start.has_previous) == (True, False)


SHAPES: dict[str, Any] = {
    "no order": select(Task),
    "nullable": select(Task).order_by(Task.priority),
    "nullable descending": select(Task).order_by(Task.priority.desc()),
    "nulls first": select(Task).order_by(Task.priority.desc().nulls_first()),
    "nulls last": select(Task).order_by(Task.priority.nulls_last(), Task.title.desc()),
    "mixed": select(Task).order_by(Task.created_at.desc(), Task.title),
    "key in the middle": select(Task).order_by(Task.priority, Task.id.desc(), Task.title),
    "expression": select(Task).order_by(func.lower(Task.title).desc()),
    "expression with parameters": select(Task).order_by(case((Task.priority > 1, "high"), else_="low"), Task.title),
    "label": select(Task, func.coalesce(Task.priority, 9).label("p")).order_by(desc("p")),
    "label itself": select(Task, p := (Task.priority * 2).label("p")).order_by(p.desc().nulls_first()),
    "names": select(Task).order_by("created_at", desc("title")),
    "name of a joined column": select(Task).join(Task.owner).order_by("name", asc("title")),
    "scalar subquery": select(Task).order_by(
        select(func.count()).select_from(Note).where(Note.task_id == Task.id).scalar_subquery().desc()
    ),
    "collation": select(Task).order_by(Task.title.collate("C")),
    "join to one": select(Task).join(Task.owner).order_by(Owner.name.desc(), Task.title),
    "outer join": select(Task).outerjoin(Task.owner).order_by(Owner.name, Task.title.desc()),
    "outer join of a collection": select(Owner, Task).outerjoin(Owner.tasks).order_by(Task.title),
    "several entities": select(Task, Owner.name).join(Task.owner).order_by(Owner.name),
    "join that repeats": select(Task).join(Task.tags).order_by(Task.created_at),
    "join that repeats, eager collection": (
        select(Task).join(Task.tags).order_by(Task.priority).options(joinedload(Task.notes))
    ),
    "eager collections": newest.options(joinedload(Task.tags), joinedload(Task.notes)),
    "eager to one": newest.options(joinedload(Task.owner)),
    "contains_eager to one": select(Task).join(Task.owner).options(contains_eager(Task.owner)),
    "joined through a table": select(Task).join(task_tag).join(Tag).order_by(Tag.name),
    "FROM a, b": select(Owner).where(Task.owner_id == Owner.id).order_by(Owner.name),
    "alias": select(a := aliased(Task)).order_by(a.priority, a.title),
    "subquery": select(s := aliased(Task, select(Task).limit(20).subquery())).order_by(s.priority),
    "columns": select(Task.title, Task.priority).order_by(Task.priority),
    "column": select(Task.priority).order_by(Task.priority),
    "distinct": select(Task).join(Task.tags).distinct().order_by(Task.priority),
    "distinct columns": select(Task.priority, Task.owner_id).distinct().order_by(Task.owner_id.desc()),
    "grouped": select(Task.priority, func.count()).group_by(Task.priority).order_by(func.count().desc()),
    "grouped entity": (
        select(Owner, func.count(Task.id)).outerjoin(Owner.tasks).group_by(Owner.id).order_by(func.count(Task.id))
    ),
    "having": select(Task.priority).group_by(Task.priority).having(func.count() > 4),
    "composite key": select(Note).order_by(Note.number.desc()),
    "joined inheritance": select(Dog).order_by(Dog.barks, Dog.name.desc()),
    "table": select(Task.__table__).order_by(Task.__table__.c.priority),
    "for update": newest.with_for_update(),
}


async def test_any_statement_can_be_walked_both_ways(session: AsyncSession):
    for shape, statement in SHAPES.items():
        if shape == "collation" and session.get_bind().dialect.name == "sqlite":
            statement = select(Task).order_by(Task.title.collate("NOCASE"))
        eager = [joinedload(Task.tags, innerjoin=False)] if "eager" in shape else []
        rows = (await session.execute(statement)).unique().all() if eager else (await session.execute(statement)).all()
        expected = [row[0] for row in rows] if len(rows[0]) == 1 else rows
        walked, last = await forward(session, statement, size=3)
        if "repeats, eager" not in shape:  # where unique() takes what the join repeats for one
            assert sorted(map(str, walked)) == sorted(map(str, expected)), shape
        assert await backward(session, statement, last) == walked, shape
        whole = await paginate_keyset(session, statement, size=100)
        assert whole.items == walked, shape
        assert (whole.next_cursor, whole.previous_cursor) == (None, None)


async def test_rows_come_as_they_were_selected(session: AsyncSession):
    page = await paginate_keyset(
        session, select(Task.title, Owner.name).join(Task.owner).order_by(Task.priority, Task.id), size=1
    )
    assert page.items[0]._fields == ("title", "name")
    assert page.items[0]._mapping[Task.title] == page.items[0].title


async def test_attributes_are_not_touched_for_a_cursor(engine: AsyncEngine, session: AsyncSession):
    statement = newest.options(defer(Task.created_at))
    with statements_of(engine) as sent:
        page = await paginate_keyset(session, statement, size=5)
    assert len(sent) == 1
    assert inspect(page.items[0]).unloaded >= {"created_at"}
    assert page.next_cursor is not None
    session.expire_all()
    after = await paginate_keyset(session, statement, after=page.next_cursor, size=5)
    assert [inspect(task).identity for task in after.items] == [(20,), (19,), (18,), (17,), (16,)]


async def test_the_way_back_from_an_empty_page_begins_at_its_own_cursor(session: AsyncSession):
    statement = select(Task).order_by(Task.priority.desc(), Task.title)
    first = await paginate_keyset(session, statement, size=4)
    stayed = [task.id for task in first.items]
    await session.execute(task_tag.delete())
    await session.execute(Note.__table__.delete())
    await session.execute(Task.__table__.delete().where(Task.id.not_in(stayed)))

    empty = await paginate_keyset(session, statement, after=first.next_cursor, size=4)
    assert (empty.items, empty.has_next, empty.has_previous) == ([], False, True)
    back = await paginate_keyset(session, statement, before=empty.previous_cursor, size=3)
    assert [task.id for task in back.items] == stayed[1:]
    front = await paginate_keyset(session, statement, before=back.previous_cursor, size=3)
    assert ([task.id for task in front.items], front.has_previous) == (stayed[:1], False)

    await session.execute(Task.__table__.delete())
    nothing = await paginate_keyset(session, statement, before=back.previous_cursor, size=3)
    assert (nothing.items, nothing.has_next, nothing.has_previous) == ([], True, False)
    assert (await paginate_keyset(session, statement, after=nothing.next_cursor)).items == []
    assert (await paginate_keyset(session, statement)).model_dump() == {
        "items": [],
        "size": 20,
        "next_cursor": None,
        "previous_cursor": None,
        "has_next": False,
        "has_previous": False,
    }
