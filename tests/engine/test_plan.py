"""What goes native and how, and what does not and why."""

import gc
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4
from weakref import ref

import pytest
from sqlalchemy import case, event, func, insert, literal, text, tuple_, union_all, update
from sqlalchemy import select as core_select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import (
    Bundle,
    DeclarativeBase,
    InstanceState,
    Mapped,
    aliased,
    configure_mappers,
    contains_eager,
    defer,
    immediateload,
    joinedload,
    load_only,
    mapped_column,
    raiseload,
    selectinload,
    subqueryload,
    undefer,
    with_loader_criteria,
)
from sqlmodel import col, select

from catalysis import Database, Session, watch_queries
from catalysis.engine.alchemy.states import NativeState
from catalysis.engine.coverage import reading_of
from catalysis.engine.plan import PLANS, VARIANTS, Reading, plans_of
from catalysis.engine.purity import needs_transaction
from tests.models import Job, Label, Model, Person, Team


@pytest.fixture
async def filled(database: Database) -> Database:
    async with database.session() as session:
        team = Team(name="red")
        session.add_all(
            [
                Person(name=f"p{n}", teams=[team], jobs=[Job(title=f"job {m}") for m in range(n)])
                for n in range(4)
            ]
        )
        session.add_all([Label(name=f"label {n}") for n in range(5)])
        await session.commit()
    return database


def reading(session: Session, statement: Any) -> Reading:
    found = reading_of(session.sync_session, statement, None, {}, None)
    assert isinstance(found, Reading), found
    return found


other, older = aliased(Person), aliased(Job)
busy = select(Job.person_id, func.count(Job.id).label("n")).group_by(Job.person_id).cte("busy")
some = select(Person).where(col(Person.name).like("p%")).subquery()

GENERATED: dict[str, Callable[[], Any]] = {
    "an entity": lambda: select(Person),
    "columns": lambda: select(Person.id, Person.name),
    "a mixed row": lambda: select(Person, Job.title).join(Job),
    "an alias": lambda: select(other).where(other.name == "p1"),
    "two of a kind": lambda: select(Job, older).where(Job.person_id == older.person_id),
    "a label": lambda: select(Person.name.label("who"), literal(1).label("one")),
    "an aggregate": lambda: select(func.count(Person.id)),
    "groups": lambda: select(Person.name, func.count(Job.id)).join(Job).group_by(Person.name),
    "a CTE": lambda: select(Person, busy.c.n).join(busy, busy.c.person_id == Person.id),
    "a subquery": lambda: select(aliased(Person, some)),
    "a case": lambda: select(case((Person.name == "p1", "one"), else_="other"), Person),
    "a to-one join": lambda: select(Job).options(joinedload(Job.person)),
    "a joined collection": lambda: select(Person).options(joinedload(Person.jobs)),
    "a joined many-to-many": lambda: select(Person).options(joinedload(Person.teams)),
    "nested joins": lambda: select(Team).options(joinedload(Team.people).joinedload(Person.jobs)),
    "a joined collection with LIMIT": lambda: select(Person).options(joinedload(Person.jobs)).limit(2),
    "selectinload": lambda: select(Person).options(selectinload(Person.jobs), selectinload(Person.teams)),
    "contains_eager": lambda: select(Person).join(Person.jobs).options(contains_eager(Person.jobs)),
    "load_only": lambda: select(Person).options(load_only(Person.name)),
    "defer": lambda: select(Person).options(defer(Person.name)),
    "undefer": lambda: select(Person).options(undefer(Person.name)),
    "an IN": lambda: select(Person).where(col(Person.name).in_(["p1", "p2"])),
    "an IN of several columns": lambda: select(Person).where(
        tuple_(col(Person.name), col(Person.id)).in_(
            select(Person.name, Person.id).where(Person.name != "p0")
        )
    ),
    "a page": lambda: select(Person).order_by(Person.name).limit(2).offset(1),
}
LOADED_BY_SQLALCHEMY: dict[str, Callable[[], Any]] = {
    "raiseload": lambda: select(Person).options(raiseload(Person.jobs)),
    "a bundle": lambda: select(Bundle("pair", Person.id, Person.name)),
    "a Core select": lambda: core_select(Label.__table__.c.name),
    "a union": lambda: union_all(select(Person.id), select(Label.id)),
}


@pytest.mark.parametrize("name", [*GENERATED, *LOADED_BY_SQLALCHEMY])
async def test_it_is_native(filled: Database, name: str):
    make = (GENERATED | LOADED_BY_SQLALCHEMY)[name]
    async with filled.session() as session:
        with watch_queries() as queries:
            for _ in range(2):
                result = await session.execute(make())
                assert result.all()
                session.expunge_all()
        assert [each.reason for each in queries if not each.native] == []
        assert filled.pool_figures().lent == 0
        plan = reading(session, make()).plan
        assert (plan.hydrator is not None) == (name in GENERATED), plan.not_generated


async def test_a_fallback_says_why(filled: Database):
    engine = filled.engine

    async def reasons(session: AsyncSession, statement: Any, **options: Any) -> set[str | None]:
        with watch_queries() as queries:
            await session.execute(statement, **options)
        await session.rollback()
        assert not any(each.native for each in queries)
        return {each.reason for each in queries}

    async with Session(engine) as session:
        assert await reasons(session, text("SELECT 1")) == {"not a SELECT"}
        assert await reasons(session, update(Label).values(name=Label.name)) == {"not a SELECT"}
        logged = {"logging_token": "x"}
        found = await reasons(session, select(Label), execution_options=logged)
        assert found == {"the execution option 'logging_token'"}
    with watch_queries() as queries:
        async with Session(engine) as session:
            session.add(Label(name="new"))
            await session.flush()
            await session.rollback()
    assert {each.native for each in queries if each.sql.startswith("INSERT")} == {True}

    async with Session(engine) as session:
        event.listen(session.sync_session, "do_orm_execute", lambda executing: None)
        assert await reasons(session, select(Label)) == {"a do_orm_execute listener"}
    heard = create_async_engine(filled.settings.url)
    event.listen(heard.sync_engine, "before_cursor_execute", lambda *arguments: None)
    async with Session(heard) as session:
        assert await reasons(session, select(Label)) == {"a listener of the engine's statements"}
    await heard.dispose()


@pytest.mark.parametrize("loader", [selectinload, subqueryload, immediateload, joinedload])
async def test_an_eager_load_is_of_its_statements_schema(postgres: Database, loader: Callable[..., Any]):
    """Mutation seen to fail: `plan_reading` does not look at the options of the outer statement."""
    await postgres.create_all(Model.metadata)
    translated = {"schema_translate_map": {None: "elsewhere"}}
    async with postgres.session() as session:
        await session.execute(text("CREATE SCHEMA elsewhere"))
        for table in (Person, Job):
            name = table.__table__.name
            await session.execute(text(f"CREATE TABLE elsewhere.{name} (LIKE {name} INCLUDING ALL)"))
        await session.commit()
        await session.connection(execution_options=translated)
        session.add_all([Person(name=f"p{n}", jobs=[Job(title="there")]) for n in range(2)])
        await session.commit()

    statement = select(Person).options(loader(Person.jobs)).execution_options(**translated)
    async with postgres.session() as session:
        executed = (await session.scalars(statement)).unique().all()
        assert [[job.title for job in person.jobs] for person in executed] == [["there"]] * 2
    async with postgres.session() as session:
        inside = await session.run_sync(lambda sync: sync.scalars(statement).unique().all())
        assert [[job.title for job in person.jobs] for person in inside] == [["there"]] * 2


async def test_an_engine_that_logs_is_left_its_log(filled: Database, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "sqlalchemy.engine"):
        engine = create_async_engine(filled.settings.url)
        async with Session(engine) as session:
            await session.exec(select(Label))
        await engine.dispose()
    assert any("FROM label" in record.getMessage() for record in caplog.records)


async def test_statements_of_one_shape_share_a_plan_and_keep_their_values(filled: Database):
    def query(name: str, most: int, names: list[str]) -> Any:
        criteria = with_loader_criteria(Job, Job.title == name)
        found = select(Person).where(col(Person.name).in_(names)).order_by(Person.name).limit(most)
        return found.options(criteria, selectinload(Person.jobs))

    async with filled.session() as session:
        plan = reading(session, query("job 0", 1, ["p1"])).plan
        for name, most, names, expected in (
            ("job 0", 5, ["p1", "p2"], [("p1", ["job 0"]), ("p2", ["job 0"])]),
            ("job 1", 5, ["p1", "p2"], [("p1", []), ("p2", ["job 1"])]),
            ("job 1", 1, ["p3", "p2", "p1"], [("p1", [])]),
            ("job 2", 9, ["p3"], [("p3", ["job 2"])]),
            ("job 2", 9, [], []),
        ):
            found = (await session.exec(query(name, most, names))).all()
            assert [(each.name, [job.title for job in each.jobs]) for each in found] == expected
            session.expunge_all()
        assert reading(session, query("x", 3, [])).plan is plan
        assert len(plan.variants) >= 4


async def test_tuples_in_a_list_are_bound_one_by_one(filled: Database):
    async with filled.session() as session:
        key = tuple_(col(Person.name), col(Person.name))
        for _ in range(2):
            for given, expected in (
                ([("p1", "p1"), ("p2", "p2")], ["p1", "p2"]),
                ([("p3", "p3")], ["p3"]),
                ([("p1", "p2")], []),
                ([], []),
            ):
                with watch_queries() as queries:
                    found = await session.exec(
                        select(Person.name).where(key.in_(given)).order_by(Person.name)
                    )
                assert found.all() == expected
                assert [each.native for each in queries] == [True]


async def test_plans_and_their_variants_are_bounded(database: Database):
    async with database.session() as session:
        for number in range(VARIANTS * 2):
            await session.exec(select(Label).where(col(Label.name).in_(["x"] * number)))
        assert len(reading(session, select(Label).where(col(Label.name).in_([]))).plan.variants) == VARIANTS
        for number in range(PLANS + 50):
            reading(session, select(Label.name.label(f"name_{number}")))
        assert 0 < plans_of(database.engine.sync_engine) <= PLANS


async def test_plans_do_not_outlive_a_new_configuration_of_mappers(database: Database):
    async with database.session() as session:
        await session.exec(select(Label))
        assert plans_of(database.engine.sync_engine) > 0

        class Base(DeclarativeBase):
            pass

        class Late(Base):
            __tablename__ = "late"
            id: Mapped[int] = mapped_column(primary_key=True)

        configure_mappers()
        assert Late.__mapper__.configured
        assert plans_of(database.engine.sync_engine) == 0
        assert (await session.exec(select(Label))).all() == []


async def test_what_nobody_can_run_is_sqlalchemys_to_refuse(filled: Database):
    async with filled.session() as session:
        with pytest.raises(Exception, match="A value is required for bind parameter 'who'"):
            await session.execute(select(Person).where(text("name = :who")))
        assert len((await session.exec(select(Person))).all()) == 4
        with pytest.raises(Exception, match="nothing"):
            await session.execute(insert(Label).values(nothing=1))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT a FROM t WHERE b = $1::INTEGER AND lower(c) IN ($2) ORDER BY d LIMIT 20",
        "SELECT 'now() for update' AS x, count(*) OVER (PARTITION BY y) FROM t",
        "WITH r(x) AS (SELECT 1) SELECT * FROM (SELECT x FROM r) AS anon LEFT OUTER JOIN t ON (t.x = anon.x)",
    ],
)
def test_harmless_sql_needs_no_transaction(sql: str):
    assert not needs_transaction(sql) or "r(x)" in sql, "a CTE with named columns looks like a call"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT a FROM t FOR UPDATE",
        "SELECT a FROM t FOR NO KEY UPDATE",
        "SELECT a FROM t FOR KEY SHARE OF t",
        "SELECT now()",
        "SELECT nextval('s')",
        "SELECT pg_advisory_lock(1)",
        'SELECT "schema"."f"(1)',
        "SELECT schema.f (1)",
        "SELECT CURRENT_TIMESTAMP",
        "WITH gone AS (DELETE FROM t RETURNING a) SELECT a FROM gone",
    ],
)
def test_telling_sql_needs_one(sql: str):
    assert needs_transaction(sql)


async def test_a_native_state_holds_what_sqlalchemys_does(filled: Database):
    """A tripwire: what SQLAlchemy sets on the state of a loaded instance has a slot, or a default, in ours."""
    async with AsyncSession(filled.engine) as session:
        label = (await session.scalars(select(Label))).first()
        stock = label._sa_instance_state
        set_on_it = stock.__dict__.keys()
    async with filled.session() as session:
        label = (await session.scalars(select(Label))).first()
        ours = label._sa_instance_state
        assert type(stock) is InstanceState
        assert isinstance(ours, NativeState)
        assert (ours.class_, ours.manager) == (stock.class_, stock.manager)
        assert set(set_on_it) - set(NativeState.__slots__) <= {"identity_token", "_strong_obj"}, (
            "None on both"
        )
        del ours.key
        assert ours.key is None
        del ours._instance_dict
        assert ours._instance_dict() is None
        with pytest.raises(AttributeError):
            _ = ours.no_such_thing


async def test_engines_go_when_nobody_has_them(tmp_path: Path):
    async def use() -> ref[Any]:
        database = Database(f"sqlite:///{tmp_path / 'one.db'}")
        await database.create_all(Model.metadata)
        async with database.session() as session:
            labels = [Label(name=str(uuid4())) for _ in range(2)]
            session.add_all(labels)
            await session.commit()
            await session.exec(select(Label))
        engine = ref(database.engine.sync_engine)
        await database.close()
        return engine

    engines = [await use() for _ in range(3)]
    gc.collect()
    assert [each() for each in engines] == [None] * 3
