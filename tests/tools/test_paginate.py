"""Pages by number: what they hold, what is sent for them, and in which order the rows come."""

from collections.abc import AsyncIterator
from itertools import product
from typing import Any

import pytest
import sqlmodel
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from pydantic import ValidationError
from sqlalchemy import Row, func, join, literal_column, select, text
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import (
    aliased,
    contains_eager,
    defer,
    joinedload,
    registry,
    with_loader_criteria,
)

from catalysis import DTO, InvalidPage, ModelWithIdAndTimestamps, Session, SoftDelete, include_deleted
from catalysis.tools.paginate import LARGEST_OFFSET, Page, paginate
from tests.tools.paged_models import (
    Animal,
    Cat,
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
    """45 tasks; owner 1 has the even ones, owners 2 and 3 none; tag 1 is on every task, tag 2 on every fifth."""
    async with engine_with_tables(backend_url) as engine:
        async with AsyncSession(engine) as session:
            session.add_all([Owner(id=1, name="Ann"), Owner(id=2, name="Bob"), Owner(id=3, name="Eve")])
            tags = [Tag(id=1, name="all"), Tag(id=2, name="fifth")]
            for task in tasks(45):
                task.owner_id = None if task.id % 2 else 1
                task.tags = tags[: 1 if task.id % 5 else 2]
                task.notes = [Note(number=number) for number in range(task.id % 3)]
                session.add(task)
            session.add_all([Dog(id=1, name="Rex", barks=3), Cat(id=2, name="Tom"), Animal(id=3, name="It")])
            await session.commit()
        yield engine


@pytest.fixture
async def session(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    async with AsyncSession(engine) as session:
        yield session


async def all_pages(session: AsyncSession, statement: Any, size: int = 7) -> list[Any]:
    items, number = [], 1
    while True:
        page = await paginate(session, statement, page=number, size=size)
        assert page.total_kind == "exact"
        assert (page.page, page.size, page.has_previous) == (number, size, number > 1)
        items += page.items
        if not page.has_next:
            assert page.total == len(items)
            return items
        number += 1


# --- What a page holds ----------------------------------------------------------------------------


async def test_pages_add_up_to_the_whole(session: AsyncSession):
    first = await paginate(session, newest, page=1, size=20)
    assert (first.total, first.pages, first.total_kind) == (45, 3, "exact")
    assert [task.id for task in first.items] == list(range(45, 25, -1))
    assert (first.has_next, first.has_previous) == (True, False)

    last = await paginate(session, newest, page=3, size=20)
    assert [task.id for task in last.items] == [5, 4, 3, 2, 1]
    assert (last.total, last.pages, last.has_next, last.has_previous) == (45, 3, False, True)

    beyond = await paginate(session, newest, page=9, size=20)
    assert (beyond.items, beyond.total, beyond.has_next, beyond.has_previous) == ([], 45, False, True)


async def test_no_rows_make_no_pages(session: AsyncSession):
    page = await paginate(session, newest.where(Task.id < 0))
    assert (page.items, page.total, page.pages, page.has_next, page.has_previous) == ([], 0, 0, False, False)


async def test_one_column_gives_values_and_several_give_rows(session: AsyncSession):
    titles = await paginate(session, select(Task.title).order_by(Task.id), size=2)
    assert titles.items == ["task 1", "task 2"]

    pairs = await paginate(session, select(Task, Tag.name).join(Task.tags).order_by(Task.id), size=2)
    task, name = pairs.items[0]
    assert (task.id, name) == (1, "all")
    assert isinstance(pairs.items[0], Row)
    assert pairs.items[0]._fields == ("Task", "name")
    assert pairs.items[0]._mapping[Tag.name] == "all"


SHAPES: dict[str, Any] = {
    "entity": select(Task),
    "filtered": select(Task).where(Task.priority > 0),
    "join to one": select(Task).join(Task.owner),
    "outer join": select(Task, Owner).outerjoin(Task.owner),
    "outer join of a collection": select(Owner, Task.title).outerjoin(Owner.tasks),
    "join that repeats": select(Task).join(Task.tags),
    "join that repeats, by condition": select(Task).join(Note, Note.task_id == Task.id),
    "join of joins": select(Owner).join(Owner.tasks).join(Task.tags),
    "joined through a table": select(Task).join(task_tag).join(Tag),
    "joined alias": select(Task).join(Task.tags.of_type(aliased(Tag, name="t"))),
    "FROM a, b": select(Owner).where(Task.owner_id == Owner.id),
    "cross join": select(Owner.name, Tag.name).join(Tag, literal_column("1") == 1),
    "alias": select(aliased(Task)),
    "subquery": select(aliased(Task, select(Task).where(Task.id < 30).limit(25).subquery())),
    "columns": select(Task.title, Task.priority),
    "column": select(Task.priority),
    "expression": select(Task, func.lower(Task.title).label("lower")),
    "distinct column": select(Task.priority).distinct(),
    "distinct columns": select(Task.priority, Task.owner_id.label("owner")).distinct(),
    "distinct entity": select(Task).join(Task.tags).distinct(),
    "self join": select(one := aliased(Task), two := aliased(Task)).join(two, one.owner_id == two.owner_id),
    "outer join for its far side": select(Task).select_from(Owner).outerjoin(Owner.tasks),
    "self join that repeats": select(one).join(two, one.priority == two.priority),
    "grouped": select(Task.priority, func.count()).group_by(Task.priority),
    "grouped entity": select(Owner, func.count(Task.id)).outerjoin(Owner.tasks).group_by(Owner.id),
    "having": select(Task.priority).group_by(Task.priority).having(func.count() > 8),
    "aggregate": select(func.count(Task.id)),
    "select_from": select(Task).select_from(Owner).join(Owner.tasks),
    "select_from a join": select(Owner).select_from(join(Task, Owner)),
    "select_from a join, criteria": (
        select(Task).select_from(join(Owner, Task)).options(with_loader_criteria(Task, Task.id > 20))
    ),
    "union": select(Task.id).where(Task.id < 20).union(select(Task.id).where(Task.id > 10)).order_by("id"),
    "table": select(Task.__table__),
    "inheritance": select(Animal),
    "joined inheritance": select(Dog),
    "single inheritance": select(Cat),
    "composite key": select(Note),
    "criteria": select(Task).options(with_loader_criteria(Task, Task.id > 20)),
    "criteria, distinct": select(Task).options(with_loader_criteria(Task, Task.id > 20)).distinct(),
    "cte": select(Task).join(cte := select(Tag.id).cte(), literal_column("1") == 1).where(cte.c.id == 1),
    "for update": select(Task).with_for_update(),
    "deferred": select(Task).options(defer(Task.title)),
    "replaced columns": select(Task).join(Task.tags).with_only_columns(Task.id),
}


async def test_the_pages_of_any_statement_are_its_rows(session: AsyncSession):
    for shape, statement in SHAPES.items():
        rows = (await session.execute(statement)).all()
        expected = [row[0] for row in rows] if rows and len(rows[0]) == 1 else rows
        pages = await all_pages(session, statement)
        assert sorted(map(str, pages)) == sorted(map(str, expected)), shape
        session.expunge_all()


EAGER: dict[str, Any] = {
    "collection": (select(Task), joinedload(Task.tags)),
    "collections": (select(Task).where(Task.id > 3), joinedload(Task.tags), joinedload(Task.notes)),
    "nested": (select(Owner), joinedload(Owner.tasks).joinedload(Task.tags)),
    "to one": (select(Task), joinedload(Task.owner)),
    "of a join that repeats": (select(Task).join(Task.tags), joinedload(Task.notes)),
    "of a join of joins": (select(Owner).join(Owner.tasks).join(Task.tags), joinedload(Owner.tasks)),
    "of FROM a, b": (select(Owner).where(Task.owner_id == Owner.id), joinedload(Owner.tasks)),
    "of distinct": (select(Task).join(Task.tags).distinct(), joinedload(Task.notes)),
    "contains_eager to one": (select(Task).join(Task.owner), contains_eager(Task.owner)),
}


@pytest.mark.parametrize("session_class", [AsyncSession, Session])
async def test_eager_loading_changes_no_row(engine: AsyncEngine, session_class: Any):
    for case, (statement, *loads) in EAGER.items():
        async with session_class(engine) as session:
            rows = (await session.scalars(statement)).all()
            session.expunge_all()
            items = await all_pages(session, statement.options(*loads))
            assert sorted(item.id for item in items) == sorted(row.id for row in rows), case
            if "collection" in case:
                assert all(
                    [tag.id for tag in item.tags] == [1, 2][: 1 if item.id % 5 else 2] for item in items
                )


# --- What is sent ---------------------------------------------------------------------------------


COUNTED: list[tuple[int, int, Any, int]] = [
    (1, 20, "exact", 2),
    (2, 20, "exact", 2),
    (3, 20, "exact", 1),  # not full: the page tells the total
    (1, 50, "exact", 1),
    (3, 15, "exact", 1),  # full, but no row follows
    (4, 20, "exact", 2),  # beyond the end
    (1, 20, "none", 1),
    (4, 20, "none", 1),
    (1, 20, "capped", 2),
    (3, 20, "capped", 1),
    (1, 20, "estimated", 2),
    (3, 20, "estimated", 1),
]


async def test_nothing_is_counted_that_the_page_tells(engine: AsyncEngine, session: AsyncSession):
    for number, size, total, expected in COUNTED:
        with statements_of(engine) as sent:
            page = await paginate(session, newest, page=number, size=size, total=total)
        assert len(sent) == expected, (number, size, total)
        if total == "none":
            assert (page.total, page.total_kind) == (None, "none")
        elif total != "estimated" or expected == 1:
            assert (page.total, page.total_kind) == (45, "exact")
        assert page.has_next == (number * size < 45)


async def sent_for_the_count(
    engine: AsyncEngine, session: AsyncSession, statement: Any, **options: Any
) -> str:
    with statements_of(engine) as sent:
        await paginate(session, statement, page=99, **options)
    assert len(sent) == 2
    return sent[1]


async def test_the_count_joins_nothing_it_does_not_need(engine: AsyncEngine, session: AsyncSession):
    eager = newest.options(joinedload(Task.tags), joinedload(Task.owner))
    assert await sent_for_the_count(engine, session, eager) == "SELECT count(*) AS count_1 FROM task"

    locking = newest.with_for_update()
    assert await sent_for_the_count(engine, session, locking) == "SELECT count(*) AS count_1 FROM task"

    filtered = select(Task.title).join(Task.owner).where(Owner.name == "Ann")
    assert (await sent_for_the_count(engine, session, filtered)).startswith(
        "SELECT count(*) AS count_1 FROM task JOIN owner ON owner.id = task.owner_id WHERE owner.name ="
    )

    unique = select(Task.priority).distinct().order_by(Task.priority)
    assert (
        await sent_for_the_count(engine, session, unique)
        == "SELECT count(*) AS count_1 FROM (SELECT DISTINCT task.priority AS priority FROM task) AS anon_1"
    )


async def test_a_capped_count_stops_at_its_limit(engine: AsyncEngine, session: AsyncSession):
    sql = await sent_for_the_count(engine, session, newest, total="capped", count_limit=30)
    assert sql.startswith("SELECT count(*) AS count_1 FROM (SELECT 1 FROM task LIMIT ")

    page = await paginate(session, newest, size=5, total="capped", count_limit=30)
    assert (page.total, page.total_kind, page.pages) == (30, "capped", 6)
    page = await paginate(session, newest, size=5, total="capped", count_limit=45)
    assert (page.total, page.total_kind) == (45, "exact")
    page = await paginate(session, newest, size=5, total="capped", count_limit=44)
    assert (page.total, page.total_kind) == (44, "capped")
    with statements_of(engine) as sent:  # more than the limit was read already
        page = await paginate(session, newest, page=8, size=5, total="capped", count_limit=30)
    assert (page.total, page.total_kind, page.has_next, len(sent)) == (41, "capped", True, 1)


async def test_an_estimate_is_the_planners_where_there_is_one(engine: AsyncEngine, session: AsyncSession):
    has_planner = engine.dialect.name == "postgresql"
    if has_planner:
        await session.execute(text("ANALYZE"))
    few = newest.where(Task.owner_id == 1).options(joinedload(Task.tags))
    with statements_of(engine) as sent:
        page = await paginate(session, few, size=5, total="estimated")
    assert (page.total, page.total_kind) == (22, "estimated" if has_planner else "exact")
    assert sent[1].startswith("EXPLAIN (FORMAT JSON) SELECT" if has_planner else "SELECT count(*)")

    # Whatever the planner expects, rows that were read are there, and none is beyond an empty page.
    at_most_one = newest.where(Task.id > 5, Task.id >= 6, Task.id != 0, func.length(Task.title) > 0)
    page = await paginate(session, at_most_one, page=3, size=10, total="estimated")
    assert page.total is not None
    assert page.total >= 31
    page = await paginate(session, newest, page=9, size=10, total="estimated")
    assert page.total is not None
    assert page.total <= 80


# --- In which order -------------------------------------------------------------------------------


async def order_sent(engine: AsyncEngine, session: AsyncSession, statement: Any) -> str:
    with statements_of(engine) as sent:
        await paginate(session, statement, total="none")
    _, _, rest = sent[0].partition(" ORDER BY ")
    return rest.partition(" LIMIT ")[0]


ORDERS: list[tuple[Any, str]] = [
    (select(Task), "task.id ASC"),
    (newest, "task.created_at DESC, task.id DESC"),
    (
        select(Task).order_by(Task.priority.desc().nulls_last(), Task.title),
        "task.priority DESC NULLS LAST, task.title, task.id ASC",
    ),
    (newest.order_by(Task.id), "task.created_at DESC, task.id"),
    (newest.order_by(Task.id.desc()), "task.created_at DESC, task.id DESC"),
    (select(Task).order_by("title"), "task.title, task.id ASC"),
    (select(Task).order_by("id"), "task.id"),
    (select(Task).order_by(text("title")), "title, task.id ASC"),
    (select(Task.title).order_by(Task.title), "task.title, task.id ASC"),
    (select(Task, Owner).join(Task.owner), "task.id ASC, owner.id ASC"),
    (select(Task).join(Task.owner).order_by(Owner.name), "owner.name, task.id ASC"),
    (select(Task).join(Task.tags), "task.id ASC, tag.id ASC"),
    (select(Task, Tag).join(Task.tags), "task.id ASC, tag.id ASC"),
    (select(Task).select_from(Owner).join(Owner.tasks), "task.id ASC"),
    (select(Task).join(task_tag), "task.id ASC, task_tag.tag_id ASC"),
    (select(Note).order_by(Note.number.desc()), "note.number DESC, note.task_id DESC"),
    (select(Dog), "dog.id ASC"),
    (select(Task.priority).distinct(), "task.priority ASC"),
    (select(Task).distinct().order_by(Task.title), "task.title, task.id ASC"),
    (select(Task.priority, func.count()).group_by(Task.priority), "task.priority ASC"),
    (
        select(Task.priority, func.count().label("n")).group_by(Task.priority).order_by(text("n DESC")),
        "n DESC, task.priority ASC",
    ),
    (select(func.count(Task.id)), ""),
    (select(func.lower(Task.title)).order_by(func.lower(Task.title)), "lower(task.title)"),
]


async def test_the_order_is_made_definite(engine: AsyncEngine, session: AsyncSession):
    for statement, order in ORDERS:
        assert await order_sent(engine, session, statement) == order


async def test_the_order_of_grouping_sets_and_distinct_on_stays_legal(postgres_url: str):
    async with engine_with_tables(postgres_url) as engine, AsyncSession(engine) as session:
        session.add_all(tasks(9))
        await session.flush()
        totals = select(Task.priority, func.count()).group_by(func.rollup(Task.priority))
        assert await order_sent(engine, session, totals) == ""
        one_each = select(Task).ext(distinct_on(Task.priority))
        assert await order_sent(engine, session, one_each) == "task.priority ASC, task.id ASC"
        assert len(await all_pages(session, one_each, size=2)) == 5
        latest_each = one_each.order_by(Task.priority.desc(), Task.created_at.desc())
        assert (
            await order_sent(engine, session, latest_each)
            == "task.priority DESC, task.created_at DESC, task.id DESC"
        )
        assert len(await all_pages(session, latest_each, size=2)) == 5


# --- What is refused ------------------------------------------------------------------------------


BOUNDS: list[tuple[dict[str, Any], str]] = [
    ({"page": 0}, "numbered from 1"),
    ({"page": -1}, "numbered from 1"),
    ({"size": 0}, "between 1 and 100"),
    ({"size": -1}, "between 1 and 100"),
    ({"size": 101}, "between 1 and 100"),
    ({"size": 11, "max_size": 10}, "between 1 and 10"),
    ({"page": 2**63}, "too large"),
    ({"page": 10**30}, "too large"),
    ({"total": "guessed"}, "exact, none, estimated, capped"),
]


async def test_bounds(session: AsyncSession):
    for options, said in BOUNDS:
        with pytest.raises(InvalidPage, match=said):
            await paginate(session, newest, **options)


async def test_the_largest_page_is_merely_empty(session: AsyncSession):
    page = await paginate(session, newest, page=(LARGEST_OFFSET - 100) // 20 + 1, size=20)
    assert (page.items, page.total) == ([], 45)


UNCUTTABLE: list[tuple[Any, str]] = [
    (newest.limit(5), "LIMIT"),
    (newest.offset(5), "OFFSET"),
    (newest.fetch(5), "FETCH"),
    (text("SELECT 1"), "TextClause has no pages"),
    (
        select(Owner).join(Owner.tasks).options(contains_eager(Owner.tasks).joinedload(Task.tags)),
        "selectinload\\(Owner.tasks\\)",
    ),
    (
        select(Task).join(Task.owner).options(contains_eager(Task.owner).contains_eager(Owner.tasks)),
        "selectinload\\(Owner.tasks\\)",
    ),
]


async def test_statements_that_cannot_be_cut(session: AsyncSession):
    for statement, said in UNCUTTABLE:
        with pytest.raises(InvalidPage, match=said):
            await paginate(session, statement)


# --- Soft delete ----------------------------------------------------------------------------------


LETTERS: list[Any] = [
    sqlmodel.select(Letter).order_by(sqlmodel.col(Letter.subject)),
    select(Letter).distinct(),
    select(Letter.subject).distinct(),
    select(Letter.subject, func.count()).group_by(Letter.subject),
    select(aliased(Letter)),
]


async def test_deleted_rows_count_only_when_included(backend_url: str):
    async with engine_with_tables(backend_url, Model) as engine, Session(engine) as session:
        letters = [Letter(subject=f"letter {number}") for number in range(10)]
        session.add_all(letters)
        await session.commit()
        for letter in letters[:4]:
            await session.delete(letter)
        await session.commit()

        for statement, number, total in product(LETTERS, (1, 2, 3, 9), ("exact", "capped")):
            page = await paginate(session, statement, page=number, size=2, total=total)
            assert page.total == 6
            page = await paginate(
                session, statement.options(include_deleted()), page=number, size=2, total=total
            )
            assert page.total == 10


# --- The page as a model --------------------------------------------------------------------------


async def test_a_page_is_frozen_and_maps_to_another(session: AsyncSession):
    page = await paginate(session, newest, size=2)
    mapped = page.map(TaskDTO.model_validate)
    assert mapped.items == [TaskDTO(id=45, title="task 45"), TaskDTO(id=44, title="task 44")]
    assert mapped.model_dump(exclude={"items"}) == page.model_dump(exclude={"items"})
    assert [task.id for task in page.items] == [45, 44]
    with pytest.raises(ValidationError, match="frozen"):
        page.page = 2


async def test_a_page_is_a_response_model(engine: AsyncEngine):
    app = FastAPI()

    @app.get("/mapped")
    async def mapped(page: int = 1) -> Page[TaskDTO]:
        async with AsyncSession(engine) as session:
            return (await paginate(session, newest, page=page, size=20)).map(TaskDTO.model_validate)

    @app.get("/declared", response_model=Page[TaskDTO])
    async def declared() -> Any:
        async with AsyncSession(engine, expire_on_commit=False) as session:
            return (await paginate(session, newest, size=1)).map(TaskDTO.model_validate)

    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        answer = (await client.get("/mapped?page=3")).json()
        assert answer["items"][0] == {"id": 5, "title": "task 5"}
        del answer["items"]
        assert answer == {
            "page": 3,
            "size": 20,
            "total": 45,
            "total_kind": "exact",
            "has_next": False,
            "pages": 3,
            "has_previous": True,
        }
        assert (await client.get("/declared")).json()["items"] == [{"id": 45, "title": "task 45"}]
        described = (await client.get("/openapi.json")).json()["components"]["schemas"]["Page_TaskDTO_"]
    assert described["properties"]["items"]["items"] == {"$ref": "#/components/schemas/TaskDTO"}
    assert set(described["required"]) == {"items", *answer}
