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


async def test_a_session_of_ours_and_sqlmodels_select(backend_url: str):
    async with engine_with_tables(backend_url, Model) as engine, Session(engine) as session:
        letters = [Letter(subject=f"letter {number % 3}") for number in range(12)]
        session.add_all(letters)
        await session.commit()
        await session.delete(letters[5])
        await session.commit()
        query = sqlmodel.select(Letter).order_by(sqlmodel.col(Letter.created_at).desc())
        walked, last = await forward(session, query, size=4)
        stayed = [letter for letter in letters if letter is not letters[5]]
        assert sorted(letter.id for letter in walked) == sorted(letter.id for letter in stayed)
        assert await backward(session, query, last) == walked
        walked, _ = await forward(session, query.options(include_deleted()), size=4)
        assert len(walked) == 12


# --- What is sent ---------------------------------------------------------------------------------


async def where_sent(engine: AsyncEngine, session: AsyncSession, statement: Any) -> tuple[str, str]:
    """The conditions for the second page and for the one before the last."""
    first = await paginate_keyset(session, statement, size=4)
    conditions: list[str] = []
    for direction in ("after", "before"):
        with statements_of(engine) as sent:
            await paginate_keyset(session, statement, **{direction: first.next_cursor}, size=4)
        assert len(sent) == 1
        _, _, rest = sent[0].partition(" WHERE ")
        conditions.append(rest.partition(" LIMIT ")[0])
    return conditions[0], conditions[1]


async def test_columns_that_are_never_null_are_compared_as_a_row(backend_url: str):
    async with engine_with_tables(backend_url) as engine, AsyncSession(engine) as session:
        session.add_all(tasks(25))
        await session.flush()
        strict = engine.dialect.name == "postgresql"
        moment, number, word = (
            ("$1::TIMESTAMP WITH TIME ZONE", "$2::BIGINT", "$2::VARCHAR") if strict else ("?", "?", "?")
        )
        assert await where_sent(engine, session, newest) == (
            f"(task.created_at, task.id) < ({moment}, {number}) ORDER BY task.created_at DESC, task.id DESC",
            f"(task.created_at, task.id) > ({moment}, {number}) ORDER BY task.created_at ASC, task.id ASC",
        )
        number = "$1::BIGINT" if strict else "?"
        assert await where_sent(engine, session, select(Task)) == (
            f"task.id > {number} ORDER BY task.id ASC",
            f"task.id < {number} ORDER BY task.id DESC",
        )

        number = "$3::BIGINT" if strict else "?"
        mixed = select(Task).order_by(Task.created_at.desc(), Task.title)
        assert (await where_sent(engine, session, mixed))[0] == (
            f"task.created_at <= {moment} AND (task.created_at < {moment} OR task.created_at = {moment} AND "
            f"(task.title > {word} OR task.title = {word} AND task.id > {number})) "
            "ORDER BY task.created_at DESC, task.title ASC, task.id ASC"
        )


async def test_columns_that_may_be_null_are_spelled_out(backend_url: str):
    async with engine_with_tables(backend_url) as engine, AsyncSession(engine) as session:
        session.add_all([Owner(id=1, name="ann"), *tasks(25)])
        await session.flush()
        p, number = ("$1::BIGINT", "$2::BIGINT") if engine.dialect.name == "postgresql" else ("?", "?")

        last = select(Task).order_by(Task.priority.asc().nulls_last())
        assert await where_sent(engine, session, last) == (
            f"task.priority > {p} OR task.priority IS NULL OR task.priority = {p} AND task.id > {number} "
            "ORDER BY task.priority ASC NULLS LAST, task.id ASC",
            f"task.priority < {p} OR task.priority = {p} AND task.id < {number} "
            "ORDER BY task.priority DESC NULLS FIRST, task.id DESC",
        )
        # The value is NULL here.
        first = select(Task).order_by(Task.priority.desc().nulls_first())
        number = number.replace("2", "1")
        assert await where_sent(engine, session, first) == (
            f"task.priority IS NOT NULL OR task.priority IS NULL AND task.id < {number} "
            "ORDER BY task.priority DESC NULLS FIRST, task.id DESC",
            f"task.priority IS NULL AND task.id > {number} "
            "ORDER BY task.priority ASC NULLS LAST, task.id ASC",
        )

        # NOT NULL in its table, but not on the far side of an outer join.
        joined = select(Task).outerjoin(Task.owner).order_by(Owner.name.nulls_last())
        assert "owner.name IS NULL AND" in (await where_sent(engine, session, joined))[0]
        counted = select(Owner.name, func.count()).outerjoin(Owner.tasks).group_by(Owner.name)
        with statements_of(engine) as sent:
            page = await paginate_keyset(session, select(Task.title, func.count()).group_by(Task.title), size=1)
            await paginate_keyset(
                session, select(Task.title, func.count()).group_by(Task.title), after=page.next_cursor
            )
            await paginate_keyset(session, counted)
        assert "WHERE" not in sent[1]
        assert "HAVING task.title > " in sent[1]


async def test_an_index_over_the_order_serves(backend_url: str):
    async with engine_with_tables(backend_url) as engine, AsyncSession(engine) as session:
        await session.execute(text("CREATE INDEX newest_task ON task (created_at, id)"))
        session.add_all(tasks(25))
        await session.flush()
        first = await paginate_keyset(session, newest, size=4)
        explaining = "EXPLAIN " if engine.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN "
        if engine.dialect.name == "postgresql":
            await session.execute(text("SET LOCAL enable_seqscan = off"))
            await session.execute(text("SET LOCAL enable_sort = off"))

        def explain(conn: Any, cursor: Any, sql: str, parameters: Any, *rest: Any) -> tuple[str, Any]:
            return explaining + sql, parameters

        for statement in (newest, select(Task).order_by(Task.created_at.desc(), Task.id)):
            page = await paginate_keyset(session, statement, size=4)
            sync = (await session.connection()).sync_connection
            from sqlalchemy import event

            event.listen(sync, "before_cursor_execute", explain, retval=True)
            from catalysis.tools.capabilities import capabilities_of
            from catalysis.tools.seek import plan_seek

            seek = plan_seek(statement, capabilities_of(session, statement))
            planned = seek.statement(seek.read(page.next_cursor), backward=False, limit=5)
            raw = (await session.connection()).sync_connection
            plan = await session.run_sync(lambda s: str(raw.execute(planned).all()))
            event.remove(sync, "before_cursor_execute", explain)
            assert "newest_task" in plan
            assert first is not None
