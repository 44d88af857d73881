"""Pages by cursor: what they hold, the WHERE they send, and that nobody can break them with a cursor."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlmodel
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from sqlalchemy import (
    String,
    asc,
    case,
    desc,
    func,
    inspect,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import (
    aliased,
    contains_eager,
    defer,
    joinedload,
    registry,
)

from catalysis import DTO, InvalidPage, ModelWithIdAndTimestamps, Session, SoftDelete, include_deleted
from catalysis.tools.capabilities import capabilities_of
from catalysis.tools.cursor import LARGEST
from catalysis.tools.keyset import KeysetPage, paginate_keyset
from catalysis.tools.seek import plan_seek
from tests.tools.paged_models import (
    Dog,
    Note,
    Owner,
    Tag,
    Task,
    engine_with_tables,
    statements_of,
    task_tag,
    tasks,
)
from tests.tools.walks import backward, closed, forward, opened

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
    """25 tasks; owner 1 has the even ones, owners 2 and 3 none; tag 1 is on every task, tag 2 on every fifth."""
    async with engine_with_tables(backend_url) as engine:
        async with AsyncSession(engine) as session:
            session.add_all([Owner(id=1, name="ann"), Owner(id=2, name="Bob"), Owner(id=3, name="Eve")])
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
    "expression with parameters": select(Task).order_by(
        case((Task.priority > 1, "high"), else_="low"), Task.title
    ),
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
    "distinct, by a time": select(Task).join(Task.tags).distinct().order_by(Task.created_at),
    "self join": select(one := aliased(Task), two := aliased(Task)).join(two, one.owner_id == two.owner_id),
    "outer join for its far side": select(Task).select_from(Owner).outerjoin(Owner.tasks),
    "self join that repeats": select(one).join(two, one.priority == two.priority).order_by(two.title),
    "grouped": select(Task.priority, func.count()).group_by(Task.priority).order_by(func.count().desc()),
    "grouped entity": (
        select(Owner, func.count(Task.id))
        .outerjoin(Owner.tasks)
        .group_by(Owner.id)
        .order_by(func.count(Task.id))
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
        rows = (
            (await session.execute(statement)).unique().all()
            if eager
            else (await session.execute(statement)).all()
        )
        expected = [row[0] for row in rows] if len(rows[0]) == 1 else rows
        walked, last = await forward(session, statement, size=3)
        if "repeats, eager" not in shape:  # where unique() takes what the join repeats for one
            assert sorted(map(str, walked)) == sorted(map(str, expected)), shape
        assert await backward(session, statement, last) == walked, shape
        whole = await paginate_keyset(session, statement, size=1000, max_size=1000)
        assert whole.items == walked, shape
        assert (whole.next_cursor, whole.previous_cursor) == (None, None)


async def test_rows_come_as_they_were_selected(session: AsyncSession):
    page = await paginate_keyset(
        session, select(Task.title, Owner.name).join(Task.owner).order_by(Task.priority, Task.id), size=1
    )
    assert page.items[0]._fields == ("title", "name")
    assert page.items[0]._mapping[Task.title] == page.items[0].title

    one, two = aliased(Task), aliased(Task)  # of one name, or none
    pair = (await paginate_keyset(session, select(one, two).join(two, one.id == two.id - 1), size=1)).items[0]
    assert (pair[0].id, pair[1].id) == (1, 2)
    assert (pair._mapping[one].id, pair._mapping[two].id) == (1, 2)


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
            ("CAST($1::VARCHAR AS TIMESTAMP WITH TIME ZONE)", "$2::BIGINT", "$2")
            if strict
            else ("?", "?", "?")
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
            page = await paginate_keyset(
                session, select(Task.title, func.count()).group_by(Task.title), size=1
            )
            await paginate_keyset(
                session, select(Task.title, func.count()).group_by(Task.title), after=page.next_cursor
            )
            await paginate_keyset(session, counted)
        assert "WHERE" not in sent[1]
        assert "HAVING task.title > " in sent[1]


async def test_an_index_over_the_order_serves(backend_url: str):
    async with engine_with_tables(backend_url) as engine, AsyncSession(engine) as session:
        connection = await session.connection()
        await connection.exec_driver_sql("CREATE INDEX newest_task ON task (created_at, id)")
        session.add_all(tasks(25))
        await session.flush()
        explain, condition = "EXPLAIN QUERY PLAN ", "(created_at"
        if engine.dialect.name == "postgresql":
            explain, condition = "EXPLAIN ", "Index Cond: ("
            await connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            await connection.exec_driver_sql("SET LOCAL enable_bitmapscan = off")
        for statement in (newest, newest.order_by(Task.title)):
            page = await paginate_keyset(session, statement, size=4)
            seek = plan_seek(statement, capabilities_of(session, statement))
            planned = seek.statement(seek.read(page.next_cursor or ""), backward=False, limit=5)
            compiled: Any = planned.compile(dialect=engine.dialect)
            parameters = tuple(compiled.params[name] for name in compiled.positiontup)
            plan = str((await connection.exec_driver_sql(explain + compiled.string, parameters)).all())
            assert "newest_task" in plan
            assert condition in plan


# --- What is refused ------------------------------------------------------------------------------

UNPAGEABLE: list[tuple[Any, str]] = [
    (newest.limit(5), "LIMIT"),
    (text("SELECT 1"), "TextClause has no pages"),
    (select(Task.id).union(select(Note.task_id)).order_by("id"), "UNION"),
    (select(Task).ext(distinct_on(Task.priority)), "DISTINCT ON"),
    (select(func.count(Task.id)), "no order and no primary key"),
    (select(literal(1)), "no order and no primary key"),
    (select(Task).order_by(text("title")), "only the database can read"),
    (select(Task).order_by("nothing"), "only the database can read"),
    (select(Task).order_by(func.rank().over(order_by=Task.title)), "window function"),
    (select(Task.title).distinct().order_by(Task.id), "does not select"),
    (select(Owner).join(Owner.tasks).options(contains_eager(Owner.tasks)), "selectinload"),
]


async def test_statements_that_have_no_cursors(session: AsyncSession):
    for statement, said in UNPAGEABLE:
        with pytest.raises(InvalidPage, match=said):
            await paginate_keyset(session, statement)


async def test_rows_that_cannot_be_told_apart_are_reported(session: AsyncSession):
    statement = (
        select(Task.priority).select_from(Task).order_by(Task.priority).with_only_columns(Task.priority + 0)
    )
    with pytest.raises(InvalidPage, match="Two rows are equal"):
        await paginate_keyset(session, statement, size=3)
    assert len((await paginate_keyset(session, statement, size=100)).items) == 25


async def test_bounds(session: AsyncSession):
    for options in ({"size": 0}, {"size": 101}, {"size": 11, "max_size": 10}):
        with pytest.raises(InvalidPage, match="size is not between"):
            await paginate_keyset(session, newest, **options)
    with pytest.raises(InvalidPage, match="both given"):
        await paginate_keyset(session, newest, after="a", before="b")


async def test_a_cursor_of_something_else_is_refused(session: AsyncSession):
    cursor = (await paginate_keyset(session, newest, size=5)).next_cursor
    assert cursor is not None
    for other in (
        select(Task),
        select(Task).order_by(Task.created_at),
        newest.order_by(Task.id),
        select(Task).order_by(Task.created_at.desc().nulls_last()),
        select(a := aliased(Task)).order_by(a.created_at.desc()),
        select(Owner).order_by(Owner.name),
    ):
        with pytest.raises(InvalidPage, match="another order"):
            await paginate_keyset(session, other, after=cursor)
    for number in (1, 2):
        by_case = select(Task).order_by(case((Task.priority == number, 0), else_=1))
        page = await paginate_keyset(session, by_case, size=5)
        with pytest.raises(InvalidPage, match="another order"):
            await paginate_keyset(
                session,
                select(Task).order_by(case((Task.priority == 3 - number, 0), else_=1)),
                after=page.next_cursor,
            )
    # Another filter, another page size, another way to write the same order: all fine.
    for same in (newest.where(Task.id != 3), select(Task).order_by(desc("created_at"), Task.id.desc())):
        assert (await paginate_keyset(session, same, after=cursor, size=7)).items

    version, fingerprint, inclusive, values = opened(cursor)
    for content in (
        [2, fingerprint, inclusive, values],
        [version, "x", inclusive, values],
        [version, fingerprint, 2, values],
        [version, fingerprint, inclusive, values[:1]],
        [version, fingerprint, inclusive, [*values, 1]],
        [version, fingerprint, inclusive, [None, values[1]]],
        [version, fingerprint, inclusive, [values[0], ["m", "2024-01-01"]]],
        [version, fingerprint, inclusive, [values[0], 2**63]],
        [version, fingerprint, inclusive],
        {},
        1,
    ):
        with pytest.raises(InvalidPage):
            await paginate_keyset(session, newest, after=closed(content))
    for nonsense in (
        "",
        "=",
        "%",
        cursor + "=",
        cursor[:-3],
        "é",
        "[" * 6000,
        "W" * 6000,
        "x" * (LARGEST + 1),
    ):
        with pytest.raises(InvalidPage):
            await paginate_keyset(session, newest, before=nonsense)


async def test_a_value_too_long_for_a_cursor_is_reported(session: AsyncSession):
    await session.execute(update(Task).values(title="x" * 10_000))
    with pytest.raises(InvalidPage, match="too long"):
        await paginate_keyset(session, select(Task).order_by(Task.title), size=5)
    short = select(Task).order_by(func.substr(Task.title, 1, 100, type_=String))
    assert len((await forward(session, short, size=20))[0]) == 25


async def test_null_in_a_column_that_says_not_null_is_reported(tmp_path: Any):
    url = f"sqlite+aiosqlite:///{tmp_path}/test.db"
    async with engine_with_tables(url) as engine, AsyncSession(engine) as session:
        await session.execute(text("DROP TABLE tag"))
        await session.execute(text("CREATE TABLE tag (id INTEGER PRIMARY KEY, name TEXT)"))
        await session.execute(text("INSERT INTO tag (name) VALUES (NULL), (NULL), ('a')"))
        with pytest.raises(InvalidPage, match=r"gave a NULL for tag\.name"):
            await paginate_keyset(session, select(Tag).order_by(Tag.name), size=1)


# --- The page as a model --------------------------------------------------------------------------


async def test_a_page_is_a_response_model(engine: AsyncEngine):
    app = FastAPI()

    @app.get("/")
    async def mapped(after: str | None = None) -> KeysetPage[TaskDTO]:
        async with AsyncSession(engine) as session:
            return (await paginate_keyset(session, newest, after=after)).map(TaskDTO.model_validate)

    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        first = (await client.get("/")).json()
        assert first["items"][0] == {"id": 25, "title": "task 25"}
        assert (first["has_next"], first["previous_cursor"], first["size"]) == (True, None, 20)
        second = (await client.get(f"/?after={first['next_cursor']}")).json()  # needs no quoting
        assert [item["id"] for item in second["items"]] == [5, 4, 3, 2, 1]
        described = (await client.get("/openapi.json")).json()["components"]["schemas"]["KeysetPage_TaskDTO_"]
    assert set(described["required"]) == set(first)
