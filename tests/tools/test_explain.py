"""`explain` on both databases: parameters bound, one EXPLAIN, nothing left behind."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import Integer, bindparam, delete, event, func, insert, literal, select, text, union, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, joinedload, mapped_column
from sqlalchemy.schema import CreateTable, Sequence

from catalysis import Database, Session, watch_queries
from catalysis.errors import ExplainError
from catalysis.tools.explain import EXPLAINING, explain
from catalysis.tools.query_plans.reading import read_postgresql, read_sqlite
from catalysis.tools.query_plans.terminal import rendered
from catalysis.tools.query_plans.text import document_of
from catalysis.tools.query_plans.tree import QueryPlan, QueryPlanNode
from tests.models import Job, Person


class Base(DeclarativeBase):
    pass


class Thing(Base):
    """Its key is made by the database, its size by Python."""

    __tablename__ = "thing"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    size: Mapped[int] = mapped_column(default=3, onupdate=4)


@pytest.fixture
async def filled(database: Database) -> Database:
    await database.create_all(Base.metadata)
    async with database.session() as session:
        person = Person(name="ada")
        session.add_all([Job(title=f"job {i}", done=i % 2 == 0, person=person) for i in range(10)])
        session.add_all([Thing(id=100 + i, name=f"thing {i}") for i in range(10)])
        await session.commit()
    return database


@pytest.fixture
async def session(filled: Database) -> AsyncIterator[Session]:
    async with filled.session() as session:
        yield session


def tables(plan: QueryPlan) -> set[str | None]:
    return {node.relation for node in plan.nodes()} - {None}


THINGS = Thing.__table__

STATEMENTS: dict[str, Any] = {
    "entity": select(Thing).where(Thing.name == "x", Thing.size.in_([1, 2])).order_by(Thing.name).limit(3),
    "one column": select(Thing.name).where(Thing.id == 1),
    "aggregate": select(Thing.size, func.count()).group_by(Thing.size),
    "core": select(THINGS.c.id).where(THINGS.c.name == bindparam("n", value="x")),
    "union": union(select(Thing.id), select(Thing.size)),
    "yielding": select(Thing).execution_options(yield_per=2),
    "text": text("SELECT * FROM thing WHERE size = :size").bindparams(bindparam("size", 3, Integer)),
    "from text": select(Thing).from_statement(text("SELECT * FROM thing")),
    "update": update(Thing).where(Thing.size > 1).values(name=Thing.name + "!"),
    "update returning": update(Thing).where(Thing.size > 1).values(name="z").returning(Thing),
    "update core": update(THINGS).values(name="z"),
    "delete": delete(Thing).where(Thing.size > 1),
    "delete returning": delete(Thing).returning(Thing.id),
    "delete by text": text("DELETE FROM thing WHERE size > :size").bindparams(size=1),
}
INSERTS: dict[str, Any] = {
    "insert": insert(Thing).values(name="new"),
    "insert with its key": insert(Thing).values(id=1, name="new"),
    "insert returning": insert(Thing).values(name="new").returning(Thing),
    "insert core": insert(THINGS).values(name="new"),
    "insert many": insert(Thing).values([{"name": "a"}, {"name": "b"}]),
    "insert from select": insert(Thing).from_select(["name"], select(Thing.name)),
    "insert by text": text("INSERT INTO thing (name, size) VALUES (:name, 1)").bindparams(name="new"),
}


@pytest.mark.parametrize("name", STATEMENTS)
@pytest.mark.parametrize("analyze", [False, True])
async def test_every_kind_of_statement(session: Session, name: str, analyze: bool):
    with watch_queries() as queries:
        plan = await explain(session, STATEMENTS[name], analyze=analyze)
    assert sum(query.sql.startswith("EXPLAIN") for query in queries) == 1
    assert tables(plan) == {"thing"}
    assert "thing" in plan.text
    assert str(plan) == plan.text
    assert not session.in_transaction()


@pytest.mark.parametrize("name", INSERTS)
@pytest.mark.parametrize("analyze", [False, True])
async def test_every_kind_of_insert(session: Session, name: str, analyze: bool):
    plan = await explain(session, INSERTS[name], analyze=analyze)
    assert plan.text.startswith(("Insert on thing", "QUERY PLAN"))
    assert await session.scalar(select(func.count()).select_from(Thing)) == 10


@pytest.mark.parametrize("name", STATEMENTS | INSERTS)
@pytest.mark.parametrize("has_written", [False, True])
async def test_analyze_leaves_nothing_behind(filled: Database, name: str, has_written: bool):
    """Leaving with uncommitted work would warn, and warnings are errors here."""
    everything = select(THINGS).order_by(THINGS.c.id)
    async with filled.session() as session:
        if has_written:
            await session.execute(update(Thing).where(Thing.id == 100).values(name="mine"))
        before = (await session.execute(everything)).all()
        unsaved = session.sync_session.unsaved.count
        await explain(session, (STATEMENTS | INSERTS)[name], analyze=True)
        assert (await session.execute(everything)).all() == before
        assert session.sync_session.unsaved.count == unsaved
        await session.rollback()
    async with filled.session() as session:
        assert (await session.execute(everything)).all() != before if has_written else before


def _upsert(database: Database) -> Any:
    dialect = {"postgresql": postgresql, "sqlite": sqlite}[database.engine.dialect.name]
    return dialect.insert(Thing).values(id=100, name="x", size=50)


UPSERTS: dict[str, Any] = {
    "on conflict do update": lambda insert: insert.on_conflict_do_update(
        index_elements=[Thing.id], set_={"name": "y", "size": insert.excluded.size}
    ),
    "on conflict do update returning": lambda insert: insert.on_conflict_do_update(
        index_elements=[Thing.id], set_={"name": "y"}
    ).returning(Thing),
    "on conflict do nothing": lambda insert: insert.on_conflict_do_nothing(),
    "no conflict": lambda insert: insert.values(id=1).on_conflict_do_nothing(),
}


@pytest.mark.parametrize("name", UPSERTS)
@pytest.mark.parametrize("written", ["nothing", "flushed", "executed"])
async def test_on_conflict_leaves_nothing_behind(filled: Database, name: str, written: str):
    """What the session had written is committed afterwards, and nothing else."""
    everything = select(THINGS).order_by(THINGS.c.id)
    statement = UPSERTS[name](_upsert(filled))
    async with filled.session() as session:
        if written == "flushed":
            session.add(Thing(id=50, name="mine"))
            (await session.get_one(Thing, 103)).name = "changed"
            await session.flush()
        elif written == "executed":
            await session.execute(delete(Thing).where(Thing.id == 105))
        before = (await session.execute(everything)).all()
        plan = await explain(session, statement, analyze=True)
        assert plan.analyzed == (filled.engine.dialect.name == "postgresql")
        assert (await session.execute(everything)).all() == before
        await session.commit()
    async with filled.session() as session:
        assert (await session.execute(everything)).all() == before
        assert len(before) == {"nothing": 10, "flushed": 11, "executed": 9}[written]


@pytest.mark.parametrize("level", ["AUTOCOMMIT", "SERIALIZABLE"])
async def test_cancelled_while_it_executes(postgres_url: str, level: str):
    """SQLAlchemy has closed the connection by then; the caller is told of the timeout, not of that."""
    database = Database(postgres_url, isolation_level=level)
    await database.create_all(Base.metadata)
    async with database.session() as session:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await explain(session, text("SELECT pg_sleep(30)"), analyze=True)
        assert (await session.execute(select(func.count()).select_from(Thing))).scalar_one() == 0
    await database.close()


@pytest.mark.parametrize("name", STATEMENTS | INSERTS | UPSERTS)
async def test_in_autocommit(filled: Database, name: str):
    """Where no transaction of SQLAlchemy's is one of the database's."""
    everything = select(THINGS).order_by(THINGS.c.id)
    async with filled.session() as session:
        before = (await session.execute(everything)).all()
    other = Database(filled.settings.url, isolation_level="AUTOCOMMIT")
    statement = UPSERTS[name](_upsert(filled)) if name in UPSERTS else (STATEMENTS | INSERTS)[name]
    for began in (False, True):
        async with other.session() as session:
            if began:
                await session.connection()
            await explain(session, statement, analyze=True)
            assert (await session.execute(everything)).all() == before
        async with filled.session() as session:
            assert (await session.execute(everything)).all() == before
    await other.close()


TRIGGERS = {
    "postgresql": [
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "INSERT INTO thing (name, size) VALUES ('noted', 1); RETURN NULL; END $$",
        "CREATE TRIGGER noted AFTER INSERT OR UPDATE OR DELETE ON thing "
        "FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION note()",
    ],
    "sqlite": [
        f"CREATE TRIGGER noted_{verb} AFTER {verb} ON thing BEGIN "
        "INSERT INTO thing (name, size) VALUES ('noted', 1); END"
        for verb in ("INSERT", "UPDATE", "DELETE")
    ],
}


@pytest.mark.parametrize("name", ["insert", "update", "delete"])
@pytest.mark.parametrize("has_written", [False, True])
async def test_what_triggers_did_is_undone(filled: Database, name: str, has_written: bool):
    everything = select(THINGS).order_by(THINGS.c.id)
    async with filled.session() as session:
        for sql in TRIGGERS[filled.engine.dialect.name]:
            await session.execute(text(sql))
        await session.commit()
        if has_written:
            await session.execute(update(Thing).where(Thing.id == 100).values(name="mine"))
        before = (await session.execute(everything)).all()
        plan = await explain(session, (STATEMENTS | INSERTS)[name], analyze=True)
        assert len(plan.triggers) == (filled.engine.dialect.name == "postgresql")
        assert (await session.execute(everything)).all() == before
        await session.commit()
    async with filled.session() as session:
        assert (await session.execute(everything)).all() == before


async def test_listeners_know_our_explain_from_theirs(session: Session):
    with watch_queries() as queries:
        await explain(session, select(Thing).where(Thing.size == 3))
        await session.execute(select(Thing).where(Thing.size == 3))
    assert [query.reason == EXPLAINING for query in queries] == [True, False]


async def test_the_sessions_objects_are_not_disturbed(session: Session):
    thing = (await session.scalars(select(Thing).limit(1))).one()
    thing.name = "changed"
    new = Thing(id=1, name="pending")
    session.add(new)
    await explain(session, update(Thing).values(name="z"), analyze=True)
    await explain(session, delete(Thing), analyze=True)
    assert new in session.new
    assert thing in session.dirty
    assert thing.name == "changed"
    await session.rollback()


async def test_a_failing_explain_keeps_the_transaction(session: Session):
    await session.execute(update(Thing).where(Thing.id == 100).values(name="mine"))
    with pytest.raises(DBAPIError):
        await explain(session, text("SELECT * FROM no_such_table"), analyze=True)
    assert await session.scalar(select(Thing.name).where(Thing.id == 100)) == "mine"
    await session.rollback()


async def test_the_sessions_hooks_have_their_say(session: Session):
    """Soft delete is in the plan; a delete of such a model is the update it becomes."""
    with watch_queries() as queries:
        await explain(session, select(Job).where(Job.title == "x"))
        await explain(session, delete(Job).where(Job.title == "x"), analyze=True)
        await explain(session, update(Job).where(Job.title == "x").values(done=True))
    sent = [query.sql for query in queries if query.sql.startswith("EXPLAIN")]
    assert all("deleted_at IS NULL" in sql for sql in sent), sent
    assert "UPDATE job SET" in sent[1]
    assert await session.scalar(select(func.count()).select_from(Job)) == 10


async def test_eager_loads_are_in_the_plan(session: Session):
    plan = await explain(session, select(Job).options(joinedload(Job.person)))
    assert len(tables(plan)) == 2


async def test_listeners_of_one_session_too(session: Session):
    def only_small(executing: Any) -> None:
        executing.statement = executing.statement.where(Thing.size < 3)

    event.listen(session.sync_session, "do_orm_execute", only_small)
    with watch_queries() as queries:
        await explain(session, select(Thing))
    assert "size <" in queries[0].sql


async def test_any_async_session_will_do(filled: Database):
    async with AsyncSession(filled.engine) as stock:
        plan = await explain(stock, select(Thing).where(Thing.id == 1), analyze=True)
        assert tables(plan) == {"thing"}
        assert not stock.in_transaction()


async def test_a_session_on_a_connection(filled: Database):
    async with filled.engine.connect() as connection, AsyncSession(connection) as stock:
        await explain(stock, delete(Thing), analyze=True)
        assert await stock.scalar(select(func.count()).select_from(Thing)) == 10
        await explain(stock, delete(Thing), analyze=True)
        assert await stock.scalar(select(func.count()).select_from(Thing)) == 10


async def test_defaults_fetched_before_an_insert_are_not_explained(postgres_url: str):
    class SequenceBase(DeclarativeBase):
        pass

    class Ticket(SequenceBase):
        __tablename__ = "ticket"
        id: Mapped[int] = mapped_column(primary_key=True)
        number: Mapped[int] = mapped_column(default=select(func.max(literal(41)) + 1).scalar_subquery())
        serial: Mapped[int] = mapped_column(Sequence("serials"))

    database = Database(postgres_url)
    await database.create_all(SequenceBase.metadata)
    async with database.session() as session:
        plan = await explain(session, insert(Ticket).values(id=1), analyze=True)
        assert plan.root.label == "Insert on ticket"
        assert await session.scalar(select(func.count()).select_from(Ticket)) == 0
    await database.close()


@pytest.mark.parametrize("wrong", ["SELECT 1", CreateTable(THINGS), Thing, None])
async def test_what_cannot_be_explained(session: Session, wrong: Any):
    with pytest.raises(ExplainError, match="takes a select, insert, update, delete or text"):
        await explain(session, wrong)


# --- PostgreSQL's figures -------------------------------------------------------------------------


@pytest.fixture
async def postgres(postgres_url: str) -> AsyncIterator[Session]:
    database = Database(postgres_url)
    await database.create_all(Base.metadata)
    async with database.session() as session:
        await session.execute(
            insert(Thing), [{"id": i, "name": f"thing {i}", "size": i % 7} for i in range(5000)]
        )
        await session.commit()
        await session.execute(text("ANALYZE thing"))
        await session.commit()
        yield session
    await database.close()


async def test_estimates(postgres: Session):
    plan = await explain(postgres, select(Thing).where(Thing.id == 42))
    root = plan.root
    assert (root.kind, root.relation, root.index) == ("Index Scan", "thing", "thing_pkey")
    assert root.label == "Index Scan using thing_pkey on thing"
    assert root.estimated_rows == 1
    assert root.index_condition == "(id = 42)", "the parameter's own value"
    assert root.total_cost > root.startup_cost > 0
    assert root.actual_rows is root.loops is root.actual_ms is plan.execution_time_ms is None
    assert not plan.analyzed
    assert root.buffers == {}
    assert plan.text.splitlines()[1] == "  Index Cond: (id = 42)"


async def test_actual_figures(postgres: Session):
    statement = select(Thing).where(Thing.size == 3).order_by(Thing.name.desc()).limit(5)
    plan = await explain(postgres, statement, analyze=True, buffers=True)
    limit, sort, scan = plan.nodes()
    assert [limit.kind, sort.kind, scan.kind] == ["Limit", "Sort", "Seq Scan"]
    assert (limit.actual_rows, scan.actual_rows, scan.loops) == (5, 714, 1)
    assert scan.filter == "(size = 3)"
    assert scan.details["Rows Removed by Filter"] == 4286
    assert sort.details["Sort Key"] == ["name DESC"]
    assert 0 < scan.actual_ms <= plan.execution_time_ms
    assert plan.planning_time_ms > 0
    assert plan.analyzed
    assert scan.buffers["shared hit"] > 0
    lines = plan.text.splitlines()
    assert lines[0].startswith("Limit  (cost=")
    assert "rows=5 loops=1)" in lines[0]
    assert any(line.startswith("  ->  Sort  (cost=") for line in lines)
    assert "        Sort Key: name DESC" in lines
    assert any(line.startswith("        ->  Seq Scan on thing  (cost=") for line in lines)
    assert "              Filter: (size = 3)" in lines
    assert "              Rows Removed by Filter: 4286" in lines
    assert any(line.startswith("              Buffers: shared hit=") for line in lines)
    assert lines[-2].startswith("Planning Time: ")
    assert lines[-1].startswith("Execution Time: ")


async def test_it_sees_what_the_transaction_has_written(postgres: Session):
    await postgres.execute(insert(Thing).values([{"id": -i, "name": f"more {i}"} for i in range(1, 6)]))
    plan = await explain(postgres, select(Thing), analyze=True)
    assert plan.root.actual_rows == 5005
    await postgres.rollback()


async def test_buffers_only_when_asked(postgres: Session):
    assert "Buffers" not in (await explain(postgres, select(Thing), analyze=True)).text
    await explain(postgres, select(Thing), buffers=True)


async def test_a_select_that_writes_is_undone(postgres: Session):
    added = insert(Thing).values(id=9999, name="x").returning(Thing.id).cte()
    plan = await explain(postgres, select(added), analyze=True)
    assert [node.label for node in plan.nodes()] == ["CTE Scan on anon_1", "Insert on thing", "Result"]
    assert "  CTE anon_1\n    ->  Insert on thing" in plan.text
    await postgres.execute(
        text("CREATE FUNCTION grow() RETURNS int LANGUAGE sql AS 'UPDATE thing SET size = 99; SELECT 1'")
    )
    await postgres.commit()
    await explain(postgres, select(func.grow()), analyze=True)
    assert await postgres.scalar(select(func.count()).where(Thing.size == 99)) == 0


async def test_on_conflict(postgres: Session):
    statement = postgresql.insert(Thing).values(id=1, name="x")
    statement = statement.on_conflict_do_update(index_elements=[Thing.id], set_={"name": "y"})
    plan = await explain(postgres, statement, analyze=True)
    assert plan.root.details["Conflict Resolution"] == "UPDATE"
    assert await postgres.scalar(select(Thing.name).where(Thing.id == 1)) == "thing 1"


async def test_schema_translation(postgres: Session):
    await postgres.execute(text("CREATE SCHEMA other"))
    await postgres.execute(text("CREATE TABLE other.thing (LIKE thing)"))
    statement = select(Thing).execution_options(schema_translate_map={None: "other"})
    plan = await explain(postgres, statement)
    assert plan.root.index is None, "the copy has no key"
    await postgres.rollback()


async def test_labels_of_joins_aggregates_and_subplans(postgres: Session):
    other = aliased(Thing, name="other")
    joined = select(Thing, other).outerjoin(other, other.size == Thing.size).where(Thing.id < 10)
    plan = await explain(postgres, joined)
    assert plan.root.label.endswith((" Left Join", " Right Join"))
    assert any(node.label == "Seq Scan on thing other" for node in plan.nodes())
    grouped = await explain(postgres, select(Thing.size, func.count()).group_by(Thing.size))
    assert grouped.root.label == "HashAggregate"
    highest = select(func.max(other.id)).scalar_subquery()
    plan = await explain(postgres, select(Thing).where(Thing.id == highest))
    assert "InitPlan" in plan.text
    never = await explain(postgres, select(Thing).where(text("false"), Thing.id == 1), analyze=True)
    assert "Result" in never.text


# --- Reading the answers, without a database ------------------------------------------------------


def test_an_answer_decoded_by_the_driver_reads_the_same():
    document = [
        {
            "Plan": {
                "Node Type": "Result",
                "Startup Cost": 0.0,
                "Total Cost": 0.01,
                "Plan Rows": 1,
                "Plan Width": 4,
            }
        }
    ]
    plan = read_postgresql([[json.dumps(document)]])
    assert plan == read_postgresql([[document]])
    assert plan.text == "Result  (cost=0.00..0.01 rows=1 width=4)"
    assert hash(plan) == hash(read_postgresql([[document]]))


@pytest.mark.parametrize(
    ("said", "label"),
    [
        ({"Node Type": "Seq Scan", "Relation Name": "a", "Alias": "x"}, "Seq Scan on a x"),
        (
            {"Node Type": "Seq Scan", "Relation Name": "a", "Alias": "a", "Parallel Aware": True},
            "Parallel Seq Scan on a",
        ),
        (
            {
                "Node Type": "Index Scan",
                "Index Name": "i",
                "Relation Name": "a",
                "Scan Direction": "Backward",
            },
            "Index Scan Backward using i on a",
        ),
        ({"Node Type": "Bitmap Index Scan", "Index Name": "i"}, "Bitmap Index Scan on i"),
        (
            {"Node Type": "Aggregate", "Strategy": "Sorted", "Partial Mode": "Finalize"},
            "Finalize GroupAggregate",
        ),
        ({"Node Type": "Aggregate", "Strategy": "Plain", "Partial Mode": "Simple"}, "Aggregate"),
        ({"Node Type": "Hash Join", "Join Type": "Inner"}, "Hash Join"),
        ({"Node Type": "Hash Join", "Join Type": "Left"}, "Hash Left Join"),
        ({"Node Type": "Nested Loop", "Join Type": "Anti"}, "Nested Loop Anti Join"),
        ({"Node Type": "Function Scan", "Function Name": "f", "Alias": "f"}, "Function Scan on f"),
        ({"Node Type": "Subquery Scan", "Alias": "s"}, "Subquery Scan on s"),
    ],
)
def test_labels_are_psqls(said: dict[str, Any], label: str):
    assert read_postgresql([[[{"Plan": said}]]]).text == label


def test_triggers_and_steps_never_executed_are_told():
    step = {"Node Type": "Seq Scan", "Startup Cost": 0.0, "Total Cost": 1.0, "Plan Rows": 1, "Plan Width": 4}
    never = {**step, "Relation Name": "b", "Alias": "b", "Actual Rows": 0.0, "Actual Loops": 0}
    root = {
        **{**step, "Node Type": "ModifyTable", "Operation": "Delete", "Relation Name": "a", "Alias": "a"},
        **{"Actual Rows": 0.0, "Actual Loops": 1, "Actual Startup Time": 0.5, "Actual Total Time": 0.5},
        "Plans": [never],
    }
    trigger = {"Trigger Name": "t", "Constraint Name": "fk_b_a", "Relation": "a", "Time": 12.5, "Calls": 3}
    document = [{"Plan": root, "Triggers": [trigger], "Planning Time": 0.1, "Execution Time": 13.0}]
    assert read_postgresql([[document]]).text.splitlines() == [
        "Delete on a  (cost=0.00..1.00 rows=1 width=4) (actual time=0.500..0.500 rows=0 loops=1)",
        "  ->  Seq Scan on b  (cost=0.00..1.00 rows=1 width=4) (never executed)",
        "Trigger fk_b_a: time=12.500 calls=3",
        "Planning Time: 0.100 ms",
        "Execution Time: 13.000 ms",
    ]


@pytest.mark.parametrize(
    ("detail", "kind", "relation", "index", "condition"),
    [
        ("SCAN task", "SCAN", "task", None, None),
        ("SCAN TABLE task AS t", "SCAN", "task", None, None),
        ("SCAN t USING COVERING INDEX ix_t", "SCAN", "t", "ix_t", None),
        ("SEARCH t USING INDEX ix_t (a=? AND b>?)", "SEARCH", "t", "ix_t", "a=? AND b>?"),
        ("SEARCH t USING INTEGER PRIMARY KEY (rowid=?)", "SEARCH", "t", None, "rowid=?"),
        ("SEARCH t USING AUTOMATIC COVERING INDEX (u_id=?) LEFT-JOIN", "SEARCH", "t", None, "u_id=?"),
        ("SCAN 2 CONSTANT ROWS", "SCAN", None, None, None),
        ("SCAN CONSTANT ROW", "SCAN", None, None, None),
        ("USE TEMP B-TREE FOR ORDER BY", "USE", None, None, None),
    ],
)
def test_steps_of_sqlite(detail: str, kind: str, relation: Any, index: Any, condition: Any):
    (node,) = read_sqlite([(2, 0, 0, detail)]).root.children
    assert (node.kind, node.label, node.relation) == (kind, detail, relation)
    assert (node.index, node.index_condition) == (index, condition)


def test_the_tree_of_sqlite():
    rows = [
        (1, 0, 0, "COMPOUND QUERY"),
        (2, 1, 0, "LEFT-MOST SUBQUERY"),
        (5, 2, 0, "SCAN t"),
        (11, 1, 0, "UNION ALL"),
    ]
    plan = read_sqlite(rows)
    assert plan.text.splitlines() == [
        "QUERY PLAN",
        "  ->  COMPOUND QUERY",
        "        ->  LEFT-MOST SUBQUERY",
        "              ->  SCAN t",
        "        ->  UNION ALL",
    ]
    assert [node.kind for node in plan.nodes()] == ["QUERY PLAN", "COMPOUND", "LEFT-MOST", "SCAN", "UNION"]
    assert all(isinstance(node, QueryPlanNode) for node in plan.nodes())


@pytest.mark.parametrize("levels", [100, 101, 300])
def test_a_deep_plan_is_read_down_to_a_level(levels: int):
    """Mutation seen to fail: `DEEPEST` of 10,000 (RecursionError at 300 levels)."""
    step: dict[str, Any] = {"Node Type": "Result"}
    for _ in range(levels - 1):
        step = {"Node Type": "Result", "Plans": [step]}
    rows = [(n, n - 1, 0, f"STEP {n}") for n in range(1, levels)]
    for plan in (read_postgresql([[[{"Plan": step}]]]), read_sqlite(rows)):
        *_, last = plan.nodes()
        assert (len(list(plan.nodes())), last.details.get("Steps Left Out")) == (100, levels - 100 or None)
        document_of(plan), rendered(plan)
        assert "Steps Left Out" in plan.text or levels == 100


def test_a_plan_too_deep_for_json_is_refused():
    with pytest.raises(ExplainError, match="too deep"):
        read_postgresql([['[{"Plan": ' + '{"Plans": [' * 100_000]])
