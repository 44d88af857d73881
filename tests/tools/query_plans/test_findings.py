"""Each finding appears on a real plan that has the fault, and is gone after the mend."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncConnection

from catalysis import Database, Finding, QueryPlan, explain_sql
from catalysis.tools.query_plans import sqlite as sqlite_findings
from catalysis.tools.query_plans.facts import Facts, ForeignKey, TableFacts, wanted_postgresql
from catalysis.tools.query_plans.findings import POSTGRESQL, Statement, findings_of
from catalysis.tools.query_plans.reading import read_sqlite
from tests.tools.query_plans.generated import plans

TABLES = """
CREATE TABLE owner (id int PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE task (
    id int PRIMARY KEY, owner_id int, title text NOT NULL, points int NOT NULL,
    done boolean NOT NULL, noted text
);
INSERT INTO owner SELECT i, 'owner ' || i FROM generate_series(1, 2000) AS i;
INSERT INTO task SELECT i, 1 + i % 2000, 'task ' || i, i % 1000, i % 2 = 0, repeat('x', 50)
FROM generate_series(1, 20000) AS i;
ALTER TABLE task ADD FOREIGN KEY (owner_id) REFERENCES owner;
ANALYZE owner; ANALYZE task
"""


@pytest.fixture
async def postgres(postgres_url: str) -> AsyncIterator[AsyncConnection]:
    database = Database(postgres_url)
    async with database.engine.connect() as connection:
        await run(connection, TABLES)
        yield connection
    await database.close()


async def run(connection: AsyncConnection, script: str) -> None:
    for sql in script.split(";"):
        await connection.exec_driver_sql(sql)


def codes(plan: QueryPlan) -> set[str]:
    return {finding.code for finding in plan.findings}


def only(plan: QueryPlan, code: str) -> Finding:
    found = [finding for finding in plan.findings if finding.code == code]
    assert len(found) == 1, f"{plan.findings}\n{plan.text}"
    return found[0]


Explain = Callable[[AsyncConnection, str], Awaitable[QueryPlan]]


async def estimated(connection: AsyncConnection, sql: str) -> QueryPlan:
    return await explain_sql(connection, sql)


async def analyzed(connection: AsyncConnection, sql: str) -> QueryPlan:
    return await explain_sql(connection, sql, analyze=True, buffers=True)


both = pytest.mark.parametrize("explain", [estimated, analyzed])


# --- A table read from end to end -----------------------------------------------------------------


@both
async def test_a_sequential_scan_under_a_selective_filter(postgres: AsyncConnection, explain: Explain):
    sql = "SELECT * FROM task WHERE title = 'task 7'"
    finding = only(await explain(postgres, sql), "sequential-scan")
    assert finding.evidence.startswith("20,000 rows ")
    assert "1 kept; Filter: (title = 'task 7'::text)" in finding.evidence
    assert finding.node.relation == "task"
    assert finding.severity == "warning"
    await run(postgres, "CREATE INDEX ON task (title)")
    assert codes(await explain(postgres, sql)) == set()


@both
async def test_a_scan_that_keeps_much_is_right(postgres: AsyncConnection, explain: Explain):
    assert codes(await explain(postgres, "SELECT * FROM task WHERE done")) == set()
    assert codes(await explain(postgres, "SELECT * FROM task")) == set()


@both
async def test_so_is_one_of_a_small_table(postgres: AsyncConnection, explain: Explain):
    await run(postgres, "ALTER TABLE owner DROP CONSTRAINT owner_name_key")
    assert codes(await explain(postgres, "SELECT * FROM owner WHERE name = 'owner 7'")) == set()


@both
async def test_and_one_that_a_limit_stops_early(postgres: AsyncConnection, explain: Explain):
    assert "sequential-scan" not in codes(
        await explain(postgres, "SELECT * FROM task WHERE points < 50 LIMIT 5")
    )


@both
async def test_a_condition_that_no_index_serves(postgres: AsyncConnection, explain: Explain):
    sql = "SELECT * FROM task WHERE points NOT IN (SELECT points FROM task WHERE points < 990 OFFSET 0)"
    assert "sequential-scan" not in codes(await explain(postgres, sql))


@both
async def test_workers_are_counted_together(postgres: AsyncConnection, explain: Explain):
    await run(postgres, "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0")
    await run(postgres, "SET min_parallel_table_scan_size = 0")
    plan = await explain(postgres, "SELECT * FROM task WHERE title = 'task 7'")
    assert "Workers Planned" in plan.text
    assert only(plan, "sequential-scan").evidence.startswith(("20,000 rows ", "19,99", "20,00"))
    keeps_much = await explain(postgres, "SELECT * FROM task WHERE points < 150")
    assert "Workers Planned" in keeps_much.text
    assert codes(keeps_much) == set(), "15 % in all, though each process keeps less"


async def test_for_any_values_too(postgres: AsyncConnection):
    plan = await explain_sql(postgres, "SELECT * FROM task WHERE title = $1::TEXT")
    assert "Filter: (title = $1)" in only(plan, "sequential-scan").evidence


# --- Foreign keys ---------------------------------------------------------------------------------

INDEX = "CREATE INDEX ON task (owner_id)"


@both
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM task WHERE owner_id = 7",
        "SELECT t.* FROM task AS t WHERE t.owner_id = 7 AND t.points > -1",
        "SELECT * FROM task AS t JOIN owner AS o ON o.id = t.owner_id WHERE o.name = 'owner 7'",
        "SELECT * FROM owner AS o LEFT JOIN task AS t ON t.owner_id = o.id WHERE o.name = 'owner 7'",
        "SELECT * FROM owner WHERE name = 'owner 7' AND NOT EXISTS "
        "(SELECT 1 FROM task WHERE owner_id = owner.id AND title > 'x')",
        "DELETE FROM owner WHERE id = -1",
        "UPDATE task SET points = 0 WHERE owner_id = 7",
    ],
)
async def test_a_foreign_key_without_an_index(postgres: AsyncConnection, explain: Explain, sql: str):
    plan = await explain(postgres, sql)
    finding = only(plan, "foreign-key-without-index")
    assert finding.message.endswith("Add one on task (owner_id).")
    assert "0,000 rows" in finding.evidence
    assert "sequential-scan" not in codes(plan)
    await run(postgres, INDEX)
    await run(postgres, "ANALYZE task")
    assert codes(await explain(postgres, sql)) == set()


@both
async def test_a_join_of_everything_needs_no_index(postgres: AsyncConnection, explain: Explain):
    plan = await explain(postgres, "SELECT * FROM task JOIN owner ON owner.id = task.owner_id")
    assert codes(plan) == set()


async def test_what_the_trigger_of_a_delete_took(postgres: AsyncConnection):
    await run(postgres, "DELETE FROM task WHERE owner_id <= 20")
    sql = "DELETE FROM owner WHERE id <= 20"
    plan = await analyzed(postgres, sql)
    (trigger,) = plan.triggers
    assert (trigger.constraint, trigger.calls) == ("task_owner_id_fkey", 20)
    assert trigger.ms > 1
    finding = only(plan, "foreign-key-without-index")
    assert finding.evidence.endswith("ms in 20 calls")
    assert f"Trigger task_owner_id_fkey: {trigger.ms:,.1f} ms" in finding.evidence
    await run(postgres, INDEX)
    assert codes(await analyzed(postgres, sql)) == set()


# --- Memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "evidence"),
    [
        ("SELECT * FROM task ORDER BY noted, title", "Sort Method: external merge, "),
        ("SELECT count(*) FROM task a JOIN task b ON a.title = b.title", " batches, "),
        ("SELECT title, count(*) FROM task GROUP BY title", " kB on disk in "),
        ("WITH t AS MATERIALIZED (SELECT * FROM task) SELECT count(*) FROM t", "Disk|temporary blocks"),
    ],
)
async def test_what_did_not_fit_into_memory(postgres: AsyncConnection, sql: str, evidence: str):
    await run(postgres, "SET work_mem = '64kB'; SET hash_mem_multiplier = 1; SET enable_mergejoin = off")
    await run(postgres, "SET max_parallel_workers_per_gather = 0")
    if "GROUP" in sql:
        await run(postgres, "SET enable_sort = off")
    plan = await analyzed(postgres, sql)
    found = [finding for finding in plan.findings if finding.code == "spilled-to-disk"]
    assert found, plan.text
    assert any(part in found[0].evidence for part in evidence.split("|")), found
    assert "spilled-to-disk" not in codes(await estimated(postgres, sql)), "nothing was executed"
    await run(postgres, "SET work_mem = '64MB'")
    assert codes(await analyzed(postgres, sql)) == set()


async def test_sorts_of_workers_and_in_groups(postgres: AsyncConnection):
    await run(postgres, "SET work_mem = '64kB'; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0")
    await run(postgres, "SET min_parallel_table_scan_size = 0; SET parallel_leader_participation = off")
    plan = await analyzed(postgres, "SELECT * FROM task ORDER BY noted, title")
    assert any(node.details.get("Workers") for node in plan.nodes()), plan.text
    assert "on disk" in only(plan, "spilled-to-disk").evidence
    await run(postgres, "SET max_parallel_workers_per_gather = 0; CREATE INDEX ON task (done)")
    await run(postgres, "SET enable_seqscan = off; SET enable_sort = off")
    plan = await analyzed(postgres, "SELECT * FROM task ORDER BY done, title")
    assert any(node.kind == "Incremental Sort" for node in plan.nodes()), plan.text
    assert "Groups: " in only(plan, "spilled-to-disk").evidence


# --- Estimates ------------------------------------------------------------------------------------


async def test_an_estimate_that_is_off(postgres: AsyncConnection):
    """Columns that go together: the planner multiplies their shares."""
    await run(
        postgres,
        "CREATE TABLE place AS SELECT i % 50 AS city, i % 50 AS land FROM generate_series(1, 20000) i",
    )
    await run(postgres, "ANALYZE place")
    sql = "SELECT * FROM place WHERE city = 3 AND land = 3"
    finding = only(await analyzed(postgres, sql), "estimate-off")
    assert finding.evidence == "8 rows estimated, 400 came"
    assert "ANALYZE place" in finding.message
    assert "estimate-off" not in codes(await estimated(postgres, sql))
    await run(postgres, "CREATE STATISTICS of_places ON city, land FROM place; ANALYZE place")
    assert "estimate-off" not in codes(await analyzed(postgres, sql))


async def test_it_is_told_of_where_it_begins(postgres: AsyncConnection):
    await run(
        postgres,
        "CREATE TABLE place AS SELECT i % 50 AS city, i % 50 AS land FROM generate_series(1, 20000) i",
    )
    await run(postgres, "ANALYZE place")
    sql = (
        "SELECT * FROM place JOIN owner ON owner.id = place.city WHERE city = 3 AND land = 3 "
        "AND owner.name <> 'x' ORDER BY owner.name"
    )
    finding = only(await analyzed(postgres, sql), "estimate-off")
    assert finding.node.relation == "place"


async def test_one_for_each_execution(postgres: AsyncConnection):
    await run(postgres, "SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_memoize = off")
    await run(
        postgres,
        "CREATE TABLE place AS SELECT i % 50 AS city, i % 50 AS land FROM generate_series(1, 20000) i;"
        "CREATE INDEX ON place (city); ANALYZE place",
    )
    sql = (
        "SELECT count(*) FROM owner JOIN LATERAL (SELECT * FROM place WHERE city = owner.id AND land = owner.id "
        "OFFSET 0) AS p ON true WHERE owner.id < 20"
    )
    finding = only(await analyzed(postgres, sql), "estimate-off")
    assert " estimated, 400 came in each of 19 executions" in finding.evidence


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM task WHERE points >= 0 LIMIT 3",
        "SELECT id, count(*) FROM task WHERE points >= 0 GROUP BY id ORDER BY id LIMIT 3",
        "SELECT * FROM owner WHERE id < 40 AND EXISTS (SELECT 1 FROM task WHERE points >= owner.id)",
        "SELECT * FROM task WHERE points = 1999 AND title > 'x'",  # 1 estimated, none came
        "SELECT count(*) FROM (VALUES (1)) AS v JOIN task ON task.id = v.column1",
        "SELECT * FROM owner o JOIN task t ON t.id = o.id WHERE o.id < 100",
    ],
)
@pytest.mark.parametrize("join", ["nestloop", "mergejoin", "hashjoin"])
async def test_no_fault_of_the_planner(postgres: AsyncConnection, sql: str, join: str):
    for other in {"nestloop", "mergejoin", "hashjoin"} - {join}:
        await run(postgres, f"SET enable_{other} = off")
    plan = await analyzed(postgres, sql)
    assert "estimate-off" not in codes(plan), f"{plan.findings} {plan.text}"


# --- Loops, filters, offsets ----------------------------------------------------------------------

LOOP = "SELECT count(*) FROM task a JOIN task b ON b.id = a.id + 1 AND b.noted = a.noted"


async def test_a_loop_over_many_rows(postgres: AsyncConnection):
    await run(postgres, "SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_memoize = off")
    finding = only(await analyzed(postgres, LOOP), "nested-loop")
    assert finding.evidence.startswith("20,000 executions, ")
    assert finding.evidence.endswith("% of all")
    assert finding.severity == "warning"
    finding = only(await estimated(postgres, LOOP), "nested-loop")
    assert finding.evidence.startswith("20,000 executions expected, ")
    assert finding.severity == "info"
    for explain in (analyzed, estimated):
        assert "nested-loop" not in codes(await explain(postgres, LOOP + " WHERE a.id < 50"))
    await run(postgres, "SET enable_hashjoin = on")
    for explain in (analyzed, estimated):
        assert "nested-loop" not in codes(await explain(postgres, LOOP))


async def test_a_filter_after_the_index(postgres: AsyncConnection):
    await run(postgres, "CREATE INDEX by_done ON task (done); SET enable_seqscan = off")
    sql = "SELECT * FROM task WHERE done AND title = 'task 8'"
    finding = only(await analyzed(postgres, sql), "filter-after-index")
    assert finding.message.startswith("by_done leads to rows")
    assert finding.evidence.startswith("10,000 rows by the index, 1 kept; Filter: ")
    await run(postgres, "SET enable_indexscan = off")
    for explain in (analyzed, estimated):
        plan = await explain(postgres, sql)
        assert any(node.kind == "Bitmap Heap Scan" for node in plan.nodes())
        assert only(plan, "filter-after-index").message.startswith("by_done leads to rows")
    await run(postgres, "CREATE INDEX by_both ON task (done, title); ANALYZE task; SET enable_indexscan = on")
    for explain in (analyzed, estimated):
        assert codes(await explain(postgres, sql)) == set()


@both
async def test_an_offset_that_walks_far(postgres: AsyncConnection, explain: Explain):
    finding = only(
        await explain(postgres, "SELECT * FROM task ORDER BY id LIMIT 20 OFFSET 5000"), "deep-offset"
    )
    assert finding.evidence == "5,000 rows passed over for 20"
    assert codes(await explain(postgres, "SELECT * FROM task ORDER BY id LIMIT 20 OFFSET 40")) == set()
    assert codes(await explain(postgres, "SELECT * FROM task WHERE id > 5000 ORDER BY id LIMIT 20")) == set()


async def test_an_offset_that_nobody_knows_is_no_finding(postgres: AsyncConnection):
    sql = "SELECT * FROM task ORDER BY id LIMIT $1 OFFSET $2"
    assert codes(await explain_sql(postgres, sql)) == set()
    assert codes(await explain_sql(postgres, sql, (20, 5000))) == {"deep-offset"}


async def test_what_takes_most_comes_first(postgres: AsyncConnection):
    sql = (
        "SELECT * FROM (SELECT * FROM task a WHERE a.title = 'task 1') x, "
        "(SELECT * FROM task b WHERE b.noted || b.title || b.noted = 'y') y"
    )
    await run(postgres, "SET max_parallel_workers_per_gather = 0")
    plan = await estimated(postgres, sql)
    scans = [finding for finding in plan.findings if finding.code == "sequential-scan"]
    assert [finding.node.alias for finding in scans] == ["b", "a"]


async def test_most_plans_ask_no_catalog(postgres: AsyncConnection):
    """What has no scan of a large table is explained with nothing but EXPLAIN."""
    for sql in (
        "SELECT * FROM task WHERE id = 1",
        "SELECT * FROM owner",
        "INSERT INTO owner VALUES (-1, 'x')",
    ):
        assert wanted_postgresql(await estimated(postgres, sql)) == [], sql
    assert wanted_postgresql(await estimated(postgres, "SELECT * FROM task")) == ["task"]
    assert wanted_postgresql(await analyzed(postgres, "SELECT * FROM owner")) == []


# --- SQLite ---------------------------------------------------------------------------------------

SQLITE = """
CREATE TABLE owner (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE task (
    id INTEGER PRIMARY KEY, owner_id INT REFERENCES owner, "the Title" TEXT NOT NULL, points INT, done BOOL
);
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
INSERT INTO owner SELECT i, 'owner ' || i FROM n;
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 6000)
INSERT INTO task SELECT i, 1 + i % 2000, 'task ' || i, i % 1000, i % 2 FROM n
"""


@pytest.fixture
async def sqlite(tmp_path: Any) -> AsyncIterator[AsyncConnection]:
    database = Database(f"sqlite:///{tmp_path / 'test.db'}")
    async with database.engine.connect() as connection:
        await run(connection, SQLITE)
        yield connection
    await database.close()


async def on_sqlite(
    connection: AsyncConnection, sql: str, parameters: Sequence[Any] | None = None
) -> QueryPlan:
    plan = await explain_sql(connection, sql, parameters)
    return plan


@pytest.mark.parametrize(
    "sql",
    [
        'SELECT * FROM task WHERE "the Title" = ?',
        'SELECT * FROM task AS t WHERE t.done AND t."the Title" IN (?, ?)',
        "SELECT * FROM main.task WHERE task.\"the Title\" = 'it''s -- x'",
        'UPDATE task SET points = 1 WHERE "the Title" = ?',
        'DELETE FROM task WHERE "the Title" = ?',
    ],
)
async def test_scans_of_sqlite(sqlite: AsyncConnection, sql: str):
    finding = only(await on_sqlite(sqlite, sql), "sequential-scan")
    assert finding.evidence.endswith("5,000 rows or more; the title: 1000 different values in a sample")
    assert finding.node.kind == "SCAN"
    await run(sqlite, 'CREATE INDEX by_title ON task ("the Title")')
    assert codes(await on_sqlite(sqlite, sql)) == set()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM task",
        "SELECT * FROM task WHERE done = 1",
        "SELECT * FROM task WHERE done IS NOT NULL",
        "SELECT * FROM owner WHERE name || '' = 'x'",
        "SELECT 'WHERE points = 5' FROM task -- WHERE points = 5",
        "SELECT * FROM task WHERE points != 5",
        "SELECT * FROM task JOIN owner ON owner.id = task.owner_id",
        "SELECT * FROM task JOIN owner ON owner.id = task.owner_id WHERE owner.name = ?",
    ],
)
async def test_scans_of_sqlite_that_are_right(sqlite: AsyncConnection, sql: str):
    assert "sequential-scan" not in codes(await on_sqlite(sqlite, sql))


async def test_a_range_is_only_said(sqlite: AsyncConnection):
    assert (
        only(await on_sqlite(sqlite, "SELECT * FROM task WHERE points > ?"), "sequential-scan").severity
        == "info"
    )


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM task WHERE owner_id = ?",
        "SELECT * FROM owner AS o JOIN task AS t ON t.owner_id = o.id WHERE o.name = ?",
        "SELECT * FROM owner AS o LEFT JOIN task AS t ON o.id = t.owner_id WHERE o.id < 500",
        "DELETE FROM owner WHERE id = ?",
    ],
)
async def test_foreign_keys_of_sqlite(sqlite: AsyncConnection, sql: str):
    finding = only(await on_sqlite(sqlite, sql), "foreign-key-without-index")
    assert finding.message.endswith("Add one on task (owner_id).")
    await run(sqlite, "CREATE INDEX by_owner ON task (owner_id)")
    assert codes(await on_sqlite(sqlite, sql)) == set()


async def test_loops_of_sqlite(sqlite: AsyncConnection):
    sql = "SELECT * FROM task AS a JOIN task AS b ON a.points < b.points"
    finding = only(await on_sqlite(sqlite, sql), "nested-loop")
    assert finding.evidence.startswith("SCAN b below SCAN a")
    assert "nested-loop" not in codes(
        await on_sqlite(sqlite, "SELECT * FROM task AS a JOIN task AS b ON a.id = b.id")
    )


async def test_offsets_of_sqlite(sqlite: AsyncConnection):
    sql = "SELECT * FROM task WHERE id > ? ORDER BY id LIMIT ? OFFSET ?"
    finding = only(await on_sqlite(sqlite, sql, (1, 20, 5000)), "deep-offset")
    assert finding.evidence == "OFFSET of 1,000 or more", "not the parameter's value"
    assert codes(await on_sqlite(sqlite, sql, (1, 20, 40))) == set()
    assert codes(await on_sqlite(sqlite, sql)) == set()
    assert codes(await on_sqlite(sqlite, "SELECT * FROM task LIMIT 20 OFFSET 3000")) == {"deep-offset"}


async def test_what_is_no_table_is_left_alone(sqlite: AsyncConnection):
    for sql in (
        "WITH x AS MATERIALIZED (SELECT * FROM task) SELECT * FROM x WHERE x.points = 4",
        "SELECT * FROM json_each('[1]') WHERE value = 1",
        "SELECT * FROM sqlite_master WHERE name = 'x'",
        "VALUES (1), (2)",
    ):
        assert "foreign-key-without-index" not in codes(await on_sqlite(sqlite, sql))


# --- Whatever the plan ----------------------------------------------------------------------------

FACTS = {
    name: TableFacts(name, 10_000, frozenset({"id", "b_id"}), (("id",),), (ForeignKey("fk", ("b_id",), "b"),))
    for name in ("a", "b")
}


@given(plans(), st.sampled_from([{}, FACTS]), st.sampled_from([None, (), (5,)]))
def test_any_plan_has_its_findings(plan: QueryPlan, facts: Facts, parameters: Any):
    """No plan makes them fail, and what they point at is a step of it, with words and figures."""
    steps = {id(node) for node in plan.nodes()}
    for finding in findings_of(plan, Statement("SELECT 1 OFFSET $1", parameters), facts, POSTGRESQL):
        assert id(finding.node) in steps
        assert finding.message.endswith(".")
        assert re.search(r"\d", finding.evidence)
        assert "None" not in finding.message + finding.evidence


WORDS = st.sampled_from(
    ["SELECT", "WHERE", "FROM", "a", ".", "b_id", "=", "?", "IN", "(", ")", "'", '"', "--", "/*", "OFFSET"]
)


@given(st.lists(WORDS, max_size=40).map(" ".join), st.sampled_from([None, (), (5000, "x")]))
def test_any_sql_is_looked_through(sql: str, parameters: Any):
    plan = read_sqlite(
        [(1, 0, 0, "SCAN a"), (2, 0, 0, "SEARCH b USING AUTOMATIC INDEX (b_id=?)"), (3, 0, 0, "SCAN b")]
    )
    for finding in findings_of(plan, Statement(sql, parameters), FACTS, sqlite_findings.SQLITE):
        assert "None" not in finding.message + finding.evidence
