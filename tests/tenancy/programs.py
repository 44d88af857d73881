"""Random programs of session calls, which reach for rows of every tenant in every way there is."""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from sqlalchemy import delete, func, insert, inspect, literal_column, text, union_all, update
from sqlalchemy.orm import (
    aliased,
    contains_eager,
    joinedload,
    lazyload,
    load_only,
    make_transient_to_detached,
    selectinload,
    subqueryload,
)
from sqlalchemy.orm import join as orm_join
from sqlmodel import select

from catalysis import (
    Session,
    bulk_insert,
    bulk_update,
    count,
    delete_where,
    exists,
    include_deleted,
    load,
    managed,
    paginate,
    paginate_keyset,
    top,
    total,
    update_where,
    upsert,
)
from tests.tenancy.models import (
    TENANTS,
    Category,
    Organisation,
    Project,
    Scoped,
    Tag,
    Task,
    key,
    task_tag,
    tenant,
)

Step = tuple[Any, ...]
MODELS = {"task": Task, "tag": Tag, "project": Project}
table: Any = Task.__table__
Other, Within = aliased(Task), aliased(Task, select(Task).where(Task.hours >= 0).subquery())
some = select(Task.id, Task.title).where(Task.hours < 50).cte("some")

STATEMENTS: list[Any] = [
    select(Task),
    select(Task.title, Task.hours),
    select(func.count()).select_from(Task),
    select(func.count(Task.id), func.sum(Task.hours)),
    select(Category, func.count(Task.id)).outerjoin(Category.tasks).group_by(Category.id),
    select(Category, Task).join(Task),
    select(Category, Task).outerjoin(Task, Task.hours > 1),
    select(Category.name, Task.title).outerjoin(Task, full=True),
    select(Category).where(Category.tasks.any(Task.hours > 2)),
    select(Category).where(~Category.tasks.any(Task.title.like("%other%"))),
    select(Task).where(Task.project.has(Project.name.like("%0"))),
    select(Task).join(Task.tags).options(contains_eager(Task.tags)),
    select(Task, Other).join(Other, Other.category_id == Task.category_id),
    select(Within),
    select(func.count()).select_from(some),
    select(Task).where(Task.id.in_(select(some.c.id))),
    select(Task).where(Task.category_id.in_(select(Category.id).where(Category.tasks.any()))),
    select(
        Category.name, select(func.count(Task.id)).where(Task.category_id == Category.id).scalar_subquery()
    ),
    union_all(select(Task.title), select(Tag.name), select(Project.name)),
    select(func.count()).select_from(orm_join(Category, Task, Category.id == Task.category_id)),
    select(Tag.name, func.count()).join(Tag.tasks).group_by(Tag.name),
    select(Project).options(include_deleted()),
    select(Organisation),
    select(Organisation.name, func.count(Task.id)).outerjoin(Organisation.tasks).group_by(Organisation.name),
    select(Task).from_statement(select(Task).where(Task.hours > 0)),
    select(Task.hours, func.row_number().over(order_by=Task.id)),
    select(table.c.title),
    select(Task.title, select(func.count(table.c.id)).scalar_subquery()),
    select(func.count()).select_from(task_tag),
    text("SELECT title FROM task"),
    select(Task.title).where(text("1 = 1 OR 1 = 1")),
    select(literal_column("(SELECT count(*) FROM task)")),
    select(Task).from_statement(text("SELECT * FROM task")),
    select(Task).where(Task.hours == 0, literal_column("1 = 0 OR 1 = 1")),
]
OPTIONS: list[tuple[Any, ...]] = [
    (),
    (joinedload(Category.tasks),),
    (selectinload(Category.tasks).selectinload(Task.tags),),
    (subqueryload(Category.tasks).joinedload(Task.project),),
    (lazyload(Category.tasks),),
    (load_only(Task.title),),
    (joinedload(Task.project), selectinload(Task.tags), joinedload(Task.organisation)),
    (selectinload(Task.category).selectinload(Category.tasks),),
    (selectinload(Organisation.tasks),),
    (joinedload(Task.category).joinedload(Category.tasks),),
]
SETS: list[Callable[[str], Any]] = [
    lambda who: update(Task).values(hours=Task.hours + 1),
    lambda who: update(Task).where(Task.hours >= 0).values(title="mine 7"),
    lambda who: update(Task).where(Task.project_id == Project.id, Project.name.like("%1")).values(hours=7),
    lambda who: update(Task).where(Task.id == key("task", who, 0)).values(hours=8),
    lambda who: update(Task).values(organisation_id=tenant(who)),
    lambda who: update(table).values(hours=70),
    lambda who: update(Tag).where(Tag.name.like("%tag%")).values(name=Tag.name + "'"),
    lambda who: delete(Project).where(Project.name.like("%1")),
    lambda who: delete(Tag).where(Tag.id == key("tag", who, 0)),
    lambda who: delete(Tag),
    lambda who: delete(Task).where(Task.category_id.in_(select(Category.id))),
    lambda who: delete(table),
    lambda who: insert(Task).values(title="mine 1", organisation_id=tenant(who)),
    lambda who: insert(table).values(title="mine 2", id=key("task", "new", 1), organisation_id=tenant(who)),
    lambda who: insert(Task).from_select(["id", "title"], select(Task.id, Task.title)),
    lambda who: text("UPDATE task SET hours = 99"),
    lambda who: text("DELETE FROM task_tag"),
]

number = st.integers(0, 40)
step = st.one_of(
    st.tuples(st.just("query"), number, number),
    st.tuples(st.just("query"), number, number),
    st.tuples(st.just("stream"), number),
    st.tuples(st.just("touch")),
    st.tuples(st.just("load")),
    st.tuples(st.just("page"), number),
    st.tuples(st.sampled_from(["get", "forge", "merge", "bulk_update", "upsert"]), number, number),
    st.tuples(st.sampled_from(["add", "bulk_insert", "change", "relate", "sets", "where"]), number, number),
    st.tuples(st.sampled_from(["refresh", "delete", "expire", "savepoint"]), number),
    st.tuples(st.sampled_from(["commit", "rollback", "flush", "expire_all", "expunge_all"])),
)
programs = st.lists(step, min_size=1, max_size=12)


class Player:
    """Plays a program in a session of one tenant; the trace holds everything that the program was told."""

    def __init__(self, session: Session, own: str, *, rehearses: bool = False, fills: bool = True) -> None:
        """`rehearses`: nothing is committed; `fills`: the session fills in the tenant of new rows."""
        self.session, self.own, self.rehearses = session, own, rehearses
        self.of = {} if fills else {"organisation_id": tenant(own)}
        self.kept: list[Any] = []

    async def play(self, program: list[Step]) -> list[Any]:
        trace: list[Any] = []
        for name, *arguments in program:
            try:
                said = await getattr(self, name)(*arguments)
            except Exception as error:
                said = type(error).__name__
                await self.session.rollback()
            trace.append((name, *arguments, said))
        await self.session.rollback()
        return trace

    # --- Reading

    async def query(self, which: int, how: int) -> Any:
        statement = STATEMENTS[which % len(STATEMENTS)]
        wanted = OPTIONS[how % len(OPTIONS)] if statement.is_select else ()
        if wanted:
            statement = statement.options(*wanted)
        return self.told((await self.session.exec(statement)).unique().all())

    async def stream(self, which: int) -> Any:
        rows = await self.session.stream(STATEMENTS[which % 8])
        return self.told([row async for row in rows])

    async def touch(self) -> Any:
        return await managed(self._touch())

    async def _touch(self) -> Any:
        seen: list[Any] = []
        for each in self.kept:
            if each in self.session:
                for r in inspect(type(each)).relationships:
                    related = getattr(each, r.key)  # a collection without an order comes in any
                    seen.append((r.key, self.told(related if r.uselist else [related])))
        return sorted(map(repr, seen))

    async def load(self) -> Any:
        categories = (await self.session.exec(select(Category).order_by(Category.name))).all()
        await load(categories, Category.tasks, Task.tags, Task.project)
        computed = [
            await load(categories, count(Category.tasks)),
            await load(categories, exists(Category.tasks, Task.hours > 2)),
            await load(categories, total(Category.tasks, Task.hours)),
            await load(categories, top(Category.tasks, 2, order_by=Task.title)),
        ]
        found = [
            (sorted(t.name for t in task.tags), self.told([task]))
            for category in categories
            for task in sorted(category.tasks, key=_called)
        ]
        return (
            [self.told(each) for each in computed[:3]],
            [self.told(e) for e in computed[3]],
            sorted(map(repr, found)),
        )

    async def page(self, which: int) -> Any:
        statement = [
            select(Task).order_by(Task.title, Task.id),
            select(Category, Task).join(Task).order_by(Task.title, Task.id),
            select(Tag).order_by(Tag.name),
            select(Category).options(selectinload(Category.tasks)).order_by(Category.name),
        ][which % 4]
        page = await paginate(self.session, statement, page=1 + which % 2, size=2)
        part = await paginate_keyset(self.session, statement, size=3)
        return page.total, self.told(page.items), self.told(part.items), part.next_cursor is None

    async def get(self, which: int, whose: int) -> Any:
        name = sorted(MODELS)[which % 3]
        return self.told([await self.session.get(MODELS[name], key(name, TENANTS[whose % 3], 0))])

    async def refresh(self, which: int) -> Any:
        instance = self.pick(which)
        await self.session.refresh(instance)
        return self.told([instance])

    async def expire(self, which: int) -> Any:
        self.session.expire(self.pick(which))

    # --- Writing

    async def add(self, which: int, whose: int) -> Any:
        who = TENANTS[whose % 3]
        given = [
            {},
            {"organisation_id": tenant(who)},
            {"organisation": await self.session.get(Organisation, tenant(who))},
            {"project_id": key("project", who, 0)},
            {"id": key("task", who, 0)},
            {"project": next((e for e in self.kept if isinstance(e, Project)), None)},
        ][which % 6]
        task = Task(title=f"mine {which}", **{**self.of, **given})
        if which % 5 == 4 and (organisation := given.get("organisation")) is not None:
            await self.session.refresh(organisation, ["tasks"])
            organisation.tasks.append(task)
        self.session.add(task)
        await self.session.flush()
        return self.told([task])

    async def change(self, which: int, how: int) -> Any:
        instance, who = self.pick(which), TENANTS[how % 3]
        if which % 3 == 0 and isinstance(instance, Scoped):
            instance.organisation_id = tenant(who)
        elif isinstance(instance, Task):
            instance.title, instance.hours = f"mine {how}", how
        elif isinstance(instance, Project):
            instance.name = f"mine {how}"

    async def relate(self, which: int, whose: int) -> Any:
        task = next((each for each in self.kept[which % 5 :] if isinstance(each, Task)), None)
        other = self.pick(whose)
        if task is None or task not in self.session:
            return
        if isinstance(other, Tag):
            await self.session.refresh(task, ["tags"])
            task.tags.append(other)
        elif isinstance(other, Project | Category | Organisation):
            setattr(task, type(other).__name__.lower(), other)
        await self.session.flush()

    async def delete(self, which: int) -> Any:
        instance = self.pick(which)
        if isinstance(instance, Scoped):
            await self.session.delete(instance, hard=which % 2 == 0)

    async def merge(self, which: int, whose: int) -> Any:
        who = TENANTS[whose % 3]
        given = [{}, {"organisation_id": tenant(who)}, {"organisation_id": tenant(self.own)}][which % 3]
        merged = await self.session.merge(
            Task(id=key("task", who, 0), title="mine 5", **{**self.of, **given})
        )
        await self.session.flush()
        return self.told([merged])

    async def forge(self, which: int, whose: int) -> Any:
        """An instance that claims to be a row that was loaded."""
        who = TENANTS[whose % 3]
        of = [{}, {"organisation_id": tenant(self.own)}, {"organisation_id": tenant(who)}][which % 3]
        task = Task(id=key("task", who, 0), **of)
        if not of:
            del task.__dict__["organisation_id"]
        make_transient_to_detached(task)
        self.session.expunge_all()
        self.session.add(task)
        if which % 4 == 0:
            await self.session.refresh(task)
        elif which % 4 == 1:
            task.title = "mine 6"
        elif which % 4 == 2:
            await self.session.delete(task)
        else:
            return await managed(_read(lambda: self.told([task.category, task.title])))
        await self.session.flush()
        return self.told([task])

    async def bulk_insert(self, which: int, whose: int) -> Any:
        rows = [{"title": f"mine {n}", **self.of} for n in range(1 + which % 3)]
        if which % 4 == 3:
            rows[-1]["organisation_id"] = tenant(TENANTS[whose % 3])
        return await bulk_insert(self.session, Task, rows)

    async def upsert(self, which: int, whose: int) -> Any:
        who = TENANTS[whose % 3]
        if which % 2:
            return await upsert(
                self.session, Task, [{"id": key("task", who, 0), "title": "mine 8", **self.of}]
            )
        rows = [{"name": f"{who} tag 0", "deleted_at": None, **self.of}]
        return await upsert(self.session, Tag, rows, key=["name"])

    async def bulk_update(self, which: int, whose: int) -> Any:
        rows = [{"id": key("task", who, 0), "hours": which} for who in TENANTS[: 1 + whose % 3]]
        if which % 5 == 4:
            rows[0]["organisation_id"] = tenant(TENANTS[whose % 3])
        if which % 2:
            return await bulk_update(self.session, Task, rows)
        return (await self.session.execute(update(Task), rows)) is None

    async def sets(self, which: int, whose: int) -> Any:
        result = await self.session.execute(SETS[which % len(SETS)](TENANTS[whose % 3]))
        return result.rowcount

    async def where(self, which: int, whose: int) -> Any:
        if which % 2:
            return await update_where(self.session, Task, values={"hours": which}, everything=True)
        return await delete_where(self.session, Task, Task.id == key("task", TENANTS[whose % 3], 0))

    # --- Transactions

    async def savepoint(self, which: int) -> Any:
        async with self.session.begin_nested():
            return await self.query(which, which)

    async def commit(self) -> None:
        await (self.session.flush() if self.rehearses else self.session.commit())

    async def rollback(self) -> None:
        await self.session.rollback()

    async def flush(self) -> None:
        await self.session.flush()

    async def expire_all(self) -> None:
        self.session.expire_all()

    async def expunge_all(self) -> None:
        self.session.expunge_all()

    # --- What was told

    def pick(self, which: int) -> Any:
        here = [each for each in self.kept if each in self.session]
        return here[which % len(here)]

    def told(self, results: Any) -> list[str]:
        """What there is to see of results, in an order of its own."""
        before = len(self.kept)
        said = sorted(map(self._one, results))
        # Rows without an order come in any, and what is picked later must not depend on it.
        self.kept[before:] = sorted(self.kept[before:], key=_called)
        del self.kept[:-30]
        return said

    def _one(self, value: Any) -> str:
        state = inspect(value, raiseerr=False)
        if state is None and isinstance(value, list | tuple):
            return str([self._one(each) for each in value])
        if not getattr(state, "is_instance", False):
            return str(sorted(map(self._one, value))) if _is_row(value) else repr(value)
        if not any(each is value for each in self.kept):  # models are equal by what they say
            self.kept.append(value)
        seen = {k: v for k, v in value.__dict__.items() if k in ("title", "name", "hours")}
        for relation in state.mapper.relationships:
            if isinstance(related := value.__dict__.get(relation.key), list):
                seen[relation.key] = sorted(
                    str(getattr(each, "title", None) or each.name) for each in related
                )
        if isinstance(value, Scoped):
            seen["of"] = value.__dict__.get("organisation_id") in (None, tenant(self.own))
        return f"{type(value).__name__}{seen}"


def _called(instance: Any) -> tuple[str, str]:
    """The kind and key of an instance; new ones have keys of their own, and titles that tell them apart."""
    said = instance.__dict__
    return type(instance).__name__, str(said.get("title") or said.get("name") or said.get("id"))


def _is_row(value: Any) -> bool:
    return hasattr(value, "_mapping")


async def _read(read: Callable[[], Any]) -> Any:
    return read()
