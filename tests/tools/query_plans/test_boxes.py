"""The picture of a plan: every box within its parent, whatever the figures; and own figures that add up."""

import math
from itertools import pairwise

import pytest
from hypothesis import given

from catalysis import Database, explain_sql
from catalysis.tools.query_plans.boxes import EXPENSIVE, boxes
from catalysis.tools.query_plans.reading import read_sqlite
from catalysis.tools.query_plans.tree import QueryPlan, QueryPlanNode
from tests.tools.query_plans.generated import plans


def close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)


@given(plans())
def test_boxes_lie_in_their_parents(plan: QueryPlan):
    drawn = boxes(plan)
    assert [box.node for box in drawn] == list(plan.nodes())
    assert (drawn[0].left, drawn[0].depth) == (0, 0)
    assert close(drawn[0].width, 1)
    above = []
    for box in drawn:
        assert 0 <= box.left <= 1
        assert 0 <= box.width <= 1
        assert 0 <= box.share <= 1 + 1e-9
        assert box.left + box.width <= 1 + 1e-9
        del above[box.depth :]
        if above:
            parent = above[-1]
            assert box.left >= parent.left
            assert box.left + box.width <= parent.left + parent.width + 1e-9
        above.append(box)


@given(plans())
def test_children_stand_side_by_side_and_leave_their_parent_its_own(plan: QueryPlan):
    drawn = boxes(plan)
    for number, parent in enumerate(drawn):
        children = []
        for box in drawn[number + 1 :]:
            if box.depth <= parent.depth:
                break
            if box.depth == parent.depth + 1:
                children.append(box)
        for one, next_one in pairwise(children):
            assert close(one.left + one.width, next_one.left)
        assert sum(child.width for child in children) <= parent.width + 1e-9
        if children and parent.share:
            assert close(sum(child.width for child in children) + parent.share, parent.width)


@given(plans())
def test_own_figures_add_up_to_the_root(plan: QueryPlan):
    nodes = list(plan.nodes())
    for own, whole in (
        ([node.self_ms for node in nodes], plan.root.total_ms),
        ([node.self_cost for node in nodes], plan.root.total_cost),
    ):
        if whole is None:
            assert set(own) == {None}
        else:
            assert min(own) >= 0
            assert close(sum(own), whole)


@given(plans())
def test_marks(plan: QueryPlan):
    drawn = boxes(plan)
    assert sum(box.is_expensive for box in drawn) <= 1 / EXPENSIVE
    assert all(box.share >= EXPENSIVE for box in drawn if box.is_expensive)


def test_without_figures_last_steps_are_equally_wide():
    drawn = boxes(read_sqlite([(1, 0, 0, "SCAN a"), (2, 0, 0, "LIST SUBQUERY 1"), (3, 2, 0, "SCAN b")]))
    assert [(box.left, box.width, box.depth) for box in drawn] == [
        *[(0, 1, 0), (0, 0.5, 1), (0.5, 0.5, 1), (0.5, 0.5, 2)]
    ]
    assert not any(box.is_expensive or box.share for box in drawn)
    (alone,) = boxes(QueryPlan("", QueryPlanNode("Result", "Result", self_cost=0.0, total_cost=0.0), False))
    assert (alone.left, alone.width) == (0, 1)


# --- Real plans -----------------------------------------------------------------------------------


@pytest.fixture
async def numbers(postgres_url: str):
    database = Database(postgres_url)
    async with database.engine.begin() as connection:
        for sql in (
            "CREATE TABLE n AS SELECT i AS id, i % 100 AS k FROM generate_series(1, 20000) i",
            "ALTER TABLE n ADD PRIMARY KEY (id)",
            "ANALYZE n",
        ):
            await connection.exec_driver_sql(sql)
    yield database
    await database.close()


def own_of(plan: QueryPlan, kind: str) -> float:
    return sum(box.share for box in boxes(plan) if box.node.kind == kind)


async def test_the_time_of_a_with_query_is_its_own(numbers: Database):
    """Its steps stand at the top of the plan, while the scan that waits for them counts their time as its own."""
    sql = "WITH slow AS MATERIALIZED (SELECT pg_sleep(0.05), 1 AS id) SELECT * FROM slow ORDER BY id LIMIT 1"
    plan = await explain_sql(numbers.engine, sql, analyze=True)
    assert own_of(plan, "Result") > 0.8, plan.text
    assert own_of(plan, "CTE Scan") < 0.1


async def test_the_time_of_a_subquery_asked_for_below_is_its_own(numbers: Database):
    sql = "SELECT * FROM n WHERE id = (SELECT 5 + count(*) FROM (SELECT pg_sleep(0.05)) AS s) ORDER BY k"
    plan = await explain_sql(numbers.engine, sql, analyze=True)
    assert own_of(plan, "Index Scan") < 0.2, plan.text
    assert own_of(plan, "Sort") < 0.2


async def test_the_inner_side_of_a_loop_costs_what_all_its_executions_cost(numbers: Database):
    sql = "SELECT count(*) FROM n a JOIN n b ON b.id = a.k + a.id"
    async with numbers.engine.connect() as connection:
        for name in ("hashjoin", "mergejoin", "memoize"):
            await connection.exec_driver_sql(f"SET enable_{name} = off")
        for analyze in (False, True):
            plan = await explain_sql(connection, sql, analyze=analyze)
            assert own_of(plan, "Index Only Scan") > 0.4, plan.text


async def test_side_by_side_processes_do_not_count_twice(numbers: Database):
    async with numbers.engine.connect() as connection:
        for setting in (
            "parallel_setup_cost = 0",
            "min_parallel_table_scan_size = 0",
            "parallel_tuple_cost = 0",
        ):
            await connection.exec_driver_sql(f"SET {setting}")
        sql = "SELECT count(*) FROM n WHERE k < 50"
        for analyze in (False, True):
            plan = await explain_sql(connection, sql, analyze=analyze)
            scan = next(node for node in plan.nodes() if node.kind == "Seq Scan")
            assert scan.processes > 1, plan.text
            if analyze:
                assert 0 < scan.total_ms <= plan.execution_time_ms
                assert scan.total_rows == pytest.approx(10_000, rel=0.01)
