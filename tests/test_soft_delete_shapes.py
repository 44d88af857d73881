"""Statements of every shape find the same rows where some are marked as where those were never there, or are refused.

Two databases hold the same rows; in one of them those marked are taken out by hand.  Seen to fail, each with one
protection taken away: the check of plans (`check_plan`), the check of what SQLAlchemy runs (`check` in
`leave_out_marked`), the ON clause that an outer join must have its condition in (`keeps_outer_rows`), the option
itself (`with_option`).
"""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from sqlalchemy import (
    case,
    delete,
    except_,
    exists,
    func,
    insert,
    intersect,
    literal,
    select,
    text,
    true,
    union,
    union_all,
    update,
)
from sqlalchemy.exc import InvalidRequestError, OperationalError
from sqlalchemy.orm import (
    aliased,
    contains_eager,
    joinedload,
    outerjoin,
    selectinload,
    subqueryload,
    with_polymorphic,
)
from sqlalchemy.orm import join as orm_join

from catalysis import Database, UnsupportedStatement, include_deleted
from tests.soft_delete_models import (
    REFUSED,
    Animal,
    Dog,
    Item,
    Note,
    Shelf,
    Tag,
    fill,
    found,
    same,
)


@pytest.fixture
async def worlds(backend_url: str, tmp_path: Path) -> AsyncIterator[tuple[Database, Database]]:
    """One with marked rows, and one in which they never were."""
    if backend_url.startswith("sqlite"):
        databases = Database(backend_url), Database(f"sqlite:///{tmp_path / 'without.db'}")
    else:
        elsewhere = {"server_settings": {"search_path": "without"}}
        databases = Database(backend_url), Database(backend_url, connect_args=elsewhere)
        async with databases[0].engine.begin() as connection:
            await connection.execute(text("CREATE SCHEMA without"))
    for database in databases:
        await fill(database, without_marked=database is databases[1])
    yield databases
    for database in databases:
        await database.close()


# --- Shapes ---------------------------------------------------------------------------------------

Other, Within = aliased(Item), aliased(Item, select(Item).subquery())
United = aliased(Item, union_all(select(Item), select(Item).where(Item.name == "gone")).subquery())
inside = select(Item.id, Item.name, Item.shelf_id).subquery()
some = select(Item.name, Item.shelf_id).cte("some")
counted = select(func.count(Item.id)).where(Item.shelf_id == Shelf.id).scalar_subquery()
beside = select(Item.name.label("beside")).where(Item.shelf_id == Shelf.id).lateral()
a_gone_item = exists().where(Item.name == "gone")
Below = aliased(Item)
tree = select(Item.id, Item.name).where(Item.parent_id.is_(None)).cte("tree", recursive=True)
tree = tree.union_all(select(Below.id, Below.name).join(tree, Below.parent_id == tree.c.id))
table: Any = Item.__table__

SAME: dict[str, Any] = {
    "entity": select(Item),
    "column": select(Item.name),
    "aggregate alone": select(func.count(Item.id)),
    "filtered aggregate": select(func.count(Item.id).filter(Item.name != "")),
    "window": select(func.row_number().over(order_by=Item.name)),
    "case": select(case((Item.name == "gone", 1), else_=0)),
    "count of rows": select(func.count()).select_from(Item),
    "join": select(Shelf, Item).join(Item, Item.shelf_id == Shelf.id),
    "join of a relationship": select(Shelf.name, Item.name).join(Shelf.items),
    "join and and_": select(Shelf.name).join(Shelf.items.and_(Item.name != "")),
    "of_type": select(Shelf.name, Other.name).join(Shelf.items.of_type(Other)),
    "outer join": select(Shelf.name, Item.name).outerjoin(Shelf.items),
    "outer join from no class with a mark": select(Note.said, Item.name).outerjoin(Note.item),
    "outer join of an alias": select(Note.said, Other.name).outerjoin(Other, Other.id == Note.item_id),
    "two outer joins": select(Note.said, Item.name, Shelf.name).outerjoin(Note.item).outerjoin(Item.shelf),
    "self": select(Item.name, Other.name).outerjoin(Item.parent.of_type(Other)),
    "many to many": select(Item.name, Tag.name).outerjoin(Item.tags),
    "cross join": select(Note.said, Item.name).join(Item, true()),
    "alias of a subquery": select(Within),
    "alias of a union": select(United),
    "outer join of an alias of a subquery": select(Note.said, Within.name).outerjoin(
        Within, Within.id == Note.item_id
    ),
    "subquery": select(inside.c.name),
    "outer join of a subquery": select(Note.said, inside.c.name).outerjoin(
        inside, inside.c.id == Note.item_id
    ),
    "full join of subqueries": select(Note.said, inside.c.name).outerjoin(
        inside, inside.c.id == Note.item_id, full=True
    ),
    "full join of an alias of a subquery": select(Note.said, Within.name).outerjoin(
        Within, Within.id == Note.item_id, full=True
    ),
    "CTE": select(some.c.name),
    "alias of a CTE": select(Note.said, some.alias().c.name),
    "recursive CTE": select(tree.c.name),
    "union": union(select(Item.name), select(Shelf.name)),
    "union all": union_all(select(Item.name), select(Item.name).where(Item.name == "gone")),
    "except": except_(select(Item.name), select(Item.name).where(Item.name == "item 0")),
    "intersect": intersect(select(Item.name), select(Item.name)),
    "entities of a union": select(Item).from_statement(union_all(select(Item), select(Item))),
    "correlated column": select(Shelf.name, counted),
    "column of no class with a mark": select(Note.said, select(func.count(Item.id)).scalar_subquery()),
    "filtered aggregate in a subquery": select(
        select(func.count(Item.id).filter(Item.name != "")).select_from(Item).scalar_subquery()
    ),
    "order by": select(Shelf.name).order_by(counted),
    "having": select(Note.said).group_by(Note.said).having(a_gone_item),
    "having a count": select(Note.said)
    .group_by(Note.said)
    .having(select(func.count(Item.id)).scalar_subquery() > 3),
    "exists": select(Note.said).where(a_gone_item),
    "exists in a case": select(case((a_gone_item, "shown"), else_="not")),
    "exists of a select": select(Note.said).where(select(literal(1)).where(Item.name == "gone").exists()),
    "not exists": select(Note.said).where(~exists().where(Item.name == "gone")),
    "in": select(Note.id).where(Note.said.in_(select(Item.name))),
    "in a union": select(Note.id).where(Note.said.in_(union(select(Item.name), select(Tag.name)))),
    "in WHERE alone": select(Note.id).where(Note.said == Item.name),
    "any": select(Shelf.name).where(Shelf.items.any(Item.name == "gone")),
    "not any": select(Shelf.name).where(~Shelf.items.any()),
    "has": select(Item.name).where(Item.shelf.has(Shelf.name == "gone")),
    "any in any": select(Shelf.name).where(Shelf.items.any(Item.tags.any(Tag.name == "gone"))),
    "has in any": select(Shelf.name).where(
        Shelf.items.any(Item.parent.of_type(Other).has(Other.name == "gone"))
    ),
    "has in has": select(Note.said).where(Note.item.has(Item.shelf.has(Shelf.name == "gone"))),
    "property with a subquery": select(Note),
    "contains_eager": select(Shelf).join(Shelf.items).options(contains_eager(Shelf.items)),
    "contains_eager, outer": select(Shelf).outerjoin(Shelf.items).options(contains_eager(Shelf.items)),
    "joinedload": select(Shelf).options(joinedload(Shelf.items).joinedload(Item.tags)),
    "selectinload": select(Shelf).options(selectinload(Shelf.items).selectinload(Item.tags)),
    "subqueryload": select(Shelf).options(subqueryload(Shelf.items)),
    "joinedload with a limit": select(Shelf).options(joinedload(Shelf.items)).order_by(Shelf.id).limit(2),
    "joinedload to one": select(Note).options(joinedload(Note.item).joinedload(Item.shelf)),
    "joined inheritance": select(Animal),
    "joined subclass": select(Dog),
    "column of a joined subclass": select(Dog.barks),
    "outer join of a joined subclass": select(Shelf.name, Dog.barks).outerjoin(Dog, Dog.shelf_id == Shelf.id),
    "polymorphic": select(with_polymorphic(Animal, [Dog])),
    "polymorphic, flat": select(with_polymorphic(Animal, "*", flat=True)),
    "table beside the class, with its condition": select(Note.said, table.c.name).where(
        table.c.id == Note.item_id, table.c.deleted_at.is_(None)
    ),
    "text": select(Note.said, text("1")).join(Note.item),
    "a join by hand of classes that are selected": select(Item.name, Note.said).select_from(
        orm_join(Note, Item, Note.item)
    ),
}
ON_POSTGRESQL: dict[str, Any] = {
    "lateral": select(Shelf.name, beside.c.beside).join(beside, true()),
    "outer lateral": select(Shelf.name, beside.c.beside).outerjoin(beside, true()),
}
NOT_REACHED: dict[str, Any] = {
    "full join": select(Note.said, Item.name).outerjoin(Item, Item.id == Note.item_id, full=True),
    "full join to the left": select(Item.name, Note.said).outerjoin(Note, Item.id == Note.item_id, full=True),
    "a join by hand": select(Note.said).select_from(orm_join(Note, Item, Note.item)),
    "a count of a join by hand": select(func.count()).select_from(orm_join(Note, Item, Note.item)),
    "contains_eager over a join by hand": select(Note)
    .select_from(orm_join(Note, Item, Note.item))
    .options(contains_eager(Note.item)),
    "an outer join by hand, whose condition would stand in WHERE": select(Note.said, Item.name).select_from(
        outerjoin(Note, Item, Note.item)
    ),
    "a join by hand in a subquery": select(
        select(func.count()).select_from(orm_join(Note, Item, Note.item)).scalar_subquery()
    ),
    "has of itself, by no alias": select(Item.name).where(Item.parent.has(Item.name == "gone")),
    "a table beside a class": select(Note.said, table.c.name).where(table.c.id == Note.item_id),
    "a table joined to a class": select(Note.said).join(table, table.c.id == Note.item_id),
    "a filtered aggregate in a subquery": select(
        Note.said, select(func.count(Item.id).filter(Item.name != "")).scalar_subquery()
    ),
}


@pytest.mark.filterwarnings("ignore:SELECT statement has a cartesian product")
async def test_every_shape(worlds: tuple[Database, Database]):
    on_postgresql = worlds[0].engine.dialect.name == "postgresql"
    shapes = {**SAME, **(ON_POSTGRESQL if on_postgresql else {})}
    failed: dict[str, str] = {}
    for name, statement in shapes.items():
        try:
            assert await same(*worlds, statement) != REFUSED, "refused"
        except Exception as failure:
            failed[name] = repr(failure)
    assert failed == {}


@pytest.mark.filterwarnings("ignore:SELECT statement has a cartesian product")
async def test_what_the_condition_does_not_reach_is_refused(worlds: tuple[Database, Database]):
    for name, statement in NOT_REACHED.items():
        for natively in (True, False):
            assert await found(worlds[0], statement, natively=natively) == REFUSED, name
        if worlds[0].engine.dialect.name == "sqlite" or "full join" not in name:
            assert await found(worlds[0], statement.options(include_deleted())) != REFUSED, name


async def test_the_error_says_how_to_write_it(worlds: tuple[Database, Database]):
    async with worlds[0].session() as session:
        with pytest.raises(UnsupportedStatement, match=r"'item' .*deleted rows.*select_from\(A\)\.join\(B\)"):
            await session.execute(NOT_REACHED["a join by hand"])


# --- Statements that write ------------------------------------------------------------------------

longest = select(func.max(Item.name)).scalar_subquery()
WRITING: dict[str, Any] = {
    "update": update(Item).values(name="new"),
    "update with a subquery as value": update(Note).values(said=longest),
    "update with a subquery in WHERE": update(Note)
    .where(Note.said.in_(select(Item.name)))
    .values(said="new"),
    "update where exists": update(Note).where(exists().where(Item.id == Note.item_id)).values(said="new"),
    "update from": update(Note).where(Item.id == Note.item_id).values(said="new"),
    "update of a class with a mark from": update(Item).where(Item.shelf_id == Shelf.id).values(name="new"),
    "update by a relationship": update(Note).where(Note.item.has(Item.name == "gone")).values(said="new"),
    "delete": delete(Note).where(Note.said.in_(select(Item.name))),
    "delete by a relationship": delete(Note).where(~Note.item.has()),
    "delete of a class with a mark": delete(Item).where(Item.shelf_id.in_(select(Shelf.id))),
    "insert from select": insert(Note).from_select(["id", "said"], select(Item.id + 100, Item.name)),
    "insert from a union": insert(Note).from_select(
        ["id", "said"], union_all(select(Item.id + 100, Item.name), select(Shelf.id + 200, Shelf.name))
    ),
    "insert from a CTE": insert(Note).from_select(["id", "said"], select(literal(100), some.c.name).limit(1)),
    "insert of a subquery": insert(Note).values(id=100, said=longest),
    "insert into a table": insert(Note.__table__).from_select(
        ["id", "said"], select(Item.id + 100, Item.name)
    ),
    "update of a table": update(Note.__table__).values(said=longest),
    "delete from a table": delete(Note.__table__).where(Note.__table__.c.said.in_(select(Item.name))),
}


async def written(database: Database, statement: Any) -> Any:
    """What is there afterwards, marked rows left out; nothing stays."""
    async with database.session() as session:
        try:
            await session.execute(statement, execution_options={"synchronize_session": False})
        except UnsupportedStatement:
            return REFUSED
        rows = [
            (await session.execute(select(kind.id, name).order_by(kind.id))).all()
            for kind, name in ((Item, Item.name), (Note, Note.said), (Shelf, Shelf.name))
        ]
        await session.rollback()
        return rows


async def test_what_writes_reads_no_marked_row(worlds: tuple[Database, Database]):
    """A table's own statement is refused, where it reads a class: SQLAlchemy adds no condition there."""
    refused: list[str] = []
    for name, statement in WRITING.items():
        one, two = [await written(each, statement) for each in worlds]
        assert one == two, name
        if one == REFUSED:
            refused.append(name)
    assert refused == ["insert into a table", "update of a table"]


# --- Put together by chance -----------------------------------------------------------------------

FOLDER = TemporaryDirectory(prefix="catalysis-deleted-")


@st.composite
def statements(draw: st.DrawFn) -> Any:
    """A SELECT over classes, aliases and subqueries of them, joined and filtered, perhaps inside another."""
    source = {
        "class": lambda kind: kind,
        "alias": aliased,
        "subquery": lambda kind: aliased(kind, select(kind).subquery()),
        "union": lambda kind: aliased(kind, union_all(select(kind), select(kind)).subquery()),
        "cte": lambda kind: aliased(kind, select(kind).cte()),
    }
    which = st.sampled_from(sorted(source))
    shelf, item, note = (source[draw(which)](kind) for kind in (Shelf, Item, Note))
    below = draw(st.sampled_from([item, aliased(Item)]))
    conditions = [
        shelf.items.any(Item.name == "gone"),
        ~shelf.items.any(),
        item.shelf.has(Shelf.name == "gone"),
        item.parent.has(Item.name == "gone"),
        exists().where(below.name == "gone"),
        select(literal(1)).where(below.shelf_id == shelf.id).exists(),
        note.said.in_(select(below.name)),
        note.said.in_(union(select(below.name), select(Tag.name))),
        select(func.count(below.id)).where(below.shelf_id == shelf.id).scalar_subquery() > 1,
        select(func.count(below.id).filter(below.name != "")).scalar_subquery() > 3,
    ]
    columns = [shelf.name, item.name, note.said, conditions[8], case((conditions[4], 1), else_=0)]
    to_item, to_note = item.shelf_id == shelf.id, note.item_id == item.id
    kind = draw(st.sampled_from(["join", "outerjoin", "full", "by hand", "outer by hand", "mixed", "cross"]))
    selected = select(*draw(st.lists(st.sampled_from(columns), min_size=1, max_size=3)))
    if kind == "by hand":
        made = selected.select_from(orm_join(orm_join(shelf, item, to_item), note, to_note))
    elif kind == "outer by hand":
        made = selected.select_from(outerjoin(orm_join(shelf, item, to_item), note, to_note))
    elif kind == "mixed":
        made = selected.select_from(note).outerjoin(orm_join(item, shelf, to_item), to_note)
    elif kind == "cross":
        made = selected.select_from(shelf, item, note).where(to_item)
    else:
        said = {"isouter": kind == "outerjoin", "full": kind == "full"}
        made = selected.select_from(shelf).join(item, to_item, **said).join(note, to_note, **said)
    made = made.where(*draw(st.lists(st.sampled_from(conditions), max_size=2)))
    made = made.order_by(*draw(st.lists(st.sampled_from([conditions[8], shelf.name]), max_size=1)))
    match draw(st.sampled_from(["itself", "subquery", "cte", "union", "exists", "scalar"])):
        case "subquery":
            return select(made.subquery())
        case "cte":
            return select(Note.said, func.count()).join_from(Note, made.cte(), true()).group_by(Note.said)
        case "union":
            return union_all(made.order_by(None), made.order_by(None))
        case "exists":
            return select(Note.said).where(made.exists())
        case "scalar":
            return select(Note.said, select(func.count()).select_from(made.subquery()).scalar_subquery())
        case _:
            return made


def on_sqlite(name: str) -> str:
    return f"sqlite:///{Path(FOLDER.name) / name}"


async def compared(statement: Any) -> None:
    databases = Database(on_sqlite("with.db")), Database(on_sqlite("without.db"))
    if not os.listdir(FOLDER.name):
        for database in databases:
            await fill(database, without_marked=database is databases[1])
    try:
        await same(*databases, statement)
    except (InvalidRequestError, OperationalError):  # correlated to what it is in, so that no FROM is left
        reject()
    finally:
        for database in databases:
            await database.close()


by_chance = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
@by_chance
@given(statements())
def test_shapes_put_together_by_chance(statement: Any):
    asyncio.run(compared(statement))


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
@settings(by_chance, max_examples=3_000)
@given(statements())
def test_many_shapes_put_together_by_chance(statement: Any):
    asyncio.run(compared(statement))
