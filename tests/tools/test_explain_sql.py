"""`explain_sql` on both databases: any values or these, undone, unheard, and nothing left on the server."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from catalysis import Database, watch_queries
from catalysis.errors import ExplainError
from catalysis.events import open_transactions
from catalysis.tools import explain_sql as module
from catalysis.tools.explain import explain_sql
from catalysis.tools.query_plans.reading import read_postgresql

TABLE = {
    "sqlite": "CREATE TABLE thing (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, size INTEGER)",
    "postgresql": "CREATE TABLE thing (id serial PRIMARY KEY, name varchar NOT NULL UNIQUE, size int)",
}
FILL = "INSERT INTO thing (name, size) VALUES ('a', 1), ('b', 2), ('c', 3)"


@pytest.fixture
async def filled(backend_url: str) -> AsyncIterator[Database]:
    database = Database(backend_url)
    async with database.engine.begin() as connection:
        await connection.execute(text(TABLE[connection.dialect.name]))
        await connection.execute(text(FILL))
    yield database
    await database.close()


@pytest.fixture
async def postgres(postgres_url: str) -> AsyncIterator[Database]:
    filling = Database(postgres_url)  # whose prepared statements are on a connection of its own
    async with filling.engine.begin() as connection:
        await connection.execute(text(TABLE["postgresql"]))
        await connection.execute(text(FILL))
    await filling.close()
    database = Database(postgres_url, pool_size=1, max_overflow=0)
    yield database
    await database.close()


def mark(database: Database, number: int = 1) -> str:
    return f"${number}" if database.engine.dialect.name == "postgresql" else "?"


async def everything(where: Any) -> list[Any]:
    if isinstance(where, AsyncConnection):
        return [tuple(row) for row in await where.execute(text("SELECT * FROM thing ORDER BY id"))]
    async with where.engine.connect() as connection:
        return await everything(connection)


async def driver_of(connection: AsyncConnection) -> Any:
    return (await connection.get_raw_connection()).driver_connection


async def left_on_the_server(connection: AsyncConnection) -> list[str]:
    """Prepared statements, but for those that the pool and this question make."""
    driver = await driver_of(connection)
    assert not driver.is_in_transaction()
    rows = await driver.fetch("SELECT statement FROM pg_prepared_statements")
    return [row[0] for row in rows if "thing" in row[0]]


@pytest.mark.parametrize("given", [None, (1,)])
async def test_a_plan_for_any_values_and_for_these(filled: Database, given: Any):
    plan = await explain_sql(filled.engine, f"SELECT * FROM thing WHERE id = {mark(filled)}", given)
    assert {node.relation for node in plan.nodes()} - {None} == {"thing"}
    assert not plan.analyzed


@pytest.mark.parametrize("way", [module.generic_plan, module.generic_plan_by_prepare])
async def test_the_generic_plan_is_not_the_one_for_nulls(postgres: Database, way: Any):
    async with postgres.engine.connect() as connection:
        driver = await driver_of(connection)
        async with module.undone(driver):
            answer = await way(driver, "SELECT * FROM thing WHERE id = $1::INTEGER AND name = $2::VARCHAR", 2)
        root = read_postgresql([[answer]]).root
        assert "$1" in f"{root.index_condition} {root.filter}"
        assert "$2" in f"{root.index_condition} {root.filter}"
        assert await left_on_the_server(connection) == []


async def test_partitions_stay_in_the_generic_plan(postgres: Database):
    async with postgres.engine.begin() as connection:
        await connection.execute(text("CREATE TABLE parted (k int) PARTITION BY LIST (k)"))
        for k in (1, 2):
            await connection.execute(text(f"CREATE TABLE parted_{k} PARTITION OF parted FOR VALUES IN ({k})"))
    plan = await explain_sql(postgres.engine, "SELECT * FROM parted WHERE k = $1")
    assert {"parted_1", "parted_2"} <= {node.relation for node in plan.nodes()}


async def test_values_that_only_the_driver_knows(postgres: Database):
    sql = "SELECT * FROM thing WHERE $1::UUID IS NOT NULL AND name = ANY ($2::VARCHAR[])"
    plan = await explain_sql(postgres.engine, sql, [UUID(int=1), ["a"]], analyze=True, buffers=True)
    assert plan.analyzed
    assert plan.root.actual_rows == 1
    assert plan.root.buffers


WRITES = {
    "insert": "INSERT INTO thing (name, size) VALUES ({0}, 1)",
    "update": "UPDATE thing SET size = 99 WHERE name <> {0}",
    "delete": "DELETE FROM thing WHERE name <> {0}",
    "upsert": "INSERT INTO thing (name) VALUES ({0}) ON CONFLICT (name) DO UPDATE SET size = 99",
    "ignored": "INSERT INTO thing (name) VALUES ({0}) ON CONFLICT DO NOTHING",
    "returning": "DELETE FROM thing WHERE name <> {0} RETURNING id",
}


@pytest.mark.parametrize("kind", WRITES)
@pytest.mark.parametrize("given", [None, ("new",)])
@pytest.mark.parametrize("inside", [False, True])
async def test_analyze_leaves_the_table_as_it_is(filled: Database, kind: str, given: Any, inside: bool):
    sql = WRITES[kind].format(mark(filled) if given else "'x'")
    before = await everything(filled)
    if not inside:
        plan = await explain_sql(filled.engine, sql, given, analyze=True)
        assert plan.analyzed == (filled.engine.dialect.name == "postgresql")
        assert await everything(filled) == before
        return
    async with filled.engine.connect() as connection:
        await connection.execute(text("UPDATE thing SET size = 7 WHERE name = 'b'"))
        own = await everything(connection)
        assert own != before
        await explain_sql(connection, sql, given, analyze=True)
        assert await everything(connection) == own
        await connection.commit()
    assert await everything(filled) == own, "what the transaction had written is committed"


@pytest.mark.parametrize("level", ["AUTOCOMMIT", "SERIALIZABLE"])
async def test_whatever_the_isolation_level(filled: Database, level: str):
    before = await everything(filled)
    async with filled.engine.connect() as connection:
        await connection.execution_options(isolation_level=level)
        for _ in range(2):
            await explain_sql(connection, "DELETE FROM thing", analyze=True)
            assert await everything(filled) == await everything(connection) == before


async def test_a_connection_without_a_transaction(filled: Database):
    async with filled.engine.connect() as connection:
        before = await everything(filled)
        await explain_sql(connection, "DELETE FROM thing", analyze=True)
        assert not connection.in_transaction()
        assert await everything(connection) == before
        await connection.execute(text("UPDATE thing SET size = 7"))
        await connection.commit()
        assert {row[2] for row in await everything(connection)} == {7}


async def test_nobody_hears_of_it(filled: Database):
    with watch_queries() as heard:
        await explain_sql(filled.engine, f"SELECT * FROM thing WHERE id = {mark(filled)}")
        await explain_sql(filled.engine, "SELECT * FROM thing", analyze=True)
        assert open_transactions() == []
    assert list(heard) == []


@pytest.mark.parametrize(
    "sql",
    [
        "BEGIN",
        "COMMIT",
        "CREATE TABLE other (id int)",
        "COPY thing TO STDOUT",
        "  -- DROP\n DROP TABLE thing",
        "ANALYZE thing",
        "",
        "EXPLAIN SELECT 1",
        "EXECUTE x",
    ],
)
async def test_what_has_no_plan(filled: Database, sql: str):
    with pytest.raises(ExplainError, match=r"There is no plan for (an empty statement|[A-Z]+):"):
        await explain_sql(filled.engine, sql)


@pytest.mark.parametrize("before", ["/**/" * 5_000, "-- x\n" * 5_000, "( \n" * 5_000, "/* " * 5_000])
def test_comments_before_a_statement_take_no_time(before: str):
    with pytest.raises(ExplainError):
        module.refuse_unplanned(before + "BEGIN")


@pytest.mark.parametrize("given", [None, ()])
@pytest.mark.parametrize("analyze", [False, True])
@pytest.mark.parametrize("sql", ["SELECT 1; DELETE FROM thing", "SELECT 1; COMMIT; DELETE FROM thing; BEGIN"])
async def test_one_statement_only(filled: Database, given: Any, analyze: bool, sql: str):
    before = await everything(filled)
    with pytest.raises(ExplainError):
        await explain_sql(filled.engine, sql, given, analyze=analyze)
    assert await everything(filled) == before


async def test_one_statement_only_when_it_has_placeholders(postgres: Database):
    before = await everything(postgres)
    for second in ("DELETE FROM thing", "COMMIT; DELETE FROM thing", "SELECT nextval('thing_id_seq')"):
        sql = f"SELECT $1::int; {second}"
        with pytest.raises(ExplainError, match="multiple commands"):
            await explain_sql(postgres.engine, sql)
        async with postgres.engine.connect() as connection:
            driver = await driver_of(connection)
            with pytest.raises(Exception, match="multiple commands"):
                async with module.undone(driver):
                    await module.generic_plan_by_prepare(driver, sql, 1)
    assert await everything(postgres) == before


async def test_a_semicolon_at_the_end_is_no_second_statement(filled: Database):
    await explain_sql(filled.engine, "SELECT * FROM thing ; ")


@pytest.mark.parametrize("given", [None, (1, 2)])
@pytest.mark.parametrize("inside", [False, True])
async def test_a_refusal_leaves_the_connection_well(filled: Database, given: Any, inside: bool):
    sql = "SELECT * FROM no_such_table WHERE id = " + mark(filled)
    async with filled.engine.connect() as connection:
        if inside:
            await connection.execute(text("UPDATE thing SET size = 7"))
        with pytest.raises(ExplainError, match=r"no_such_table|no such table"):
            await explain_sql(connection, sql, given, analyze=given is not None)
        assert connection.in_transaction() == inside
        assert len(await everything(connection)) == 3
        await connection.commit()
    assert {row[2] for row in await everything(filled)} == ({7} if inside else {1, 2, 3})


async def test_without_values_nothing_is_executed(postgres: Database):
    with pytest.raises(ExplainError, match=r"1 placeholder.* give `parameters`"):
        await explain_sql(postgres.engine, "DELETE FROM thing WHERE id = $1", analyze=True)
    async with postgres.engine.connect() as connection:
        assert await left_on_the_server(connection) == []


@pytest.mark.parametrize("analyze", [False, True])
async def test_errors_do_not_show_values(postgres: Database, analyze: bool):
    for sql, secret in [
        ("SELECT * FROM thing WHERE id = $1::INTEGER", "hunter2"),
        ("SELECT * FROM thing WHERE name = $1 AND $1::VARCHAR::UUID IS NOT NULL", "hunter2"),
        ("INSERT INTO thing (name) VALUES ($1::VARCHAR::UUID)", "hunter2"),
    ]:
        with pytest.raises(ExplainError) as refused:
            await explain_sql(postgres.engine, sql, [secret], analyze=analyze)
        told = refused.value
        assert "hunter2" not in str(told)
        assert told.__cause__ is None
        assert told.__suppress_context__


async def test_nothing_stays_on_the_server(postgres: Database):
    for sql, given in [
        ("SELECT * FROM thing WHERE id = $1", None),
        ("SELECT * FROM thing WHERE id = $1", (1,)),
        ("SELECT * FROM thing WHERE nothing = $1", (1,)),
        ("SELECT * FROM thing", None),
    ]:
        try:
            await explain_sql(postgres.engine, sql, given, analyze=given is not None)
        except ExplainError:
            assert "nothing" in sql
        async with postgres.engine.connect() as connection:
            assert await left_on_the_server(connection) == []
            setting = await (await driver_of(connection)).fetchval(
                "SELECT current_setting('catalysis.explained', true)"
            )
            assert not setting


async def test_the_older_way_cleans_up_after_an_error(postgres: Database):
    async with postgres.engine.connect() as connection:
        driver = await driver_of(connection)
        async with module.undone(driver):
            with pytest.raises(Exception, match="wrong number of parameters"):
                await module.generic_plan_by_prepare(driver, "SELECT * FROM thing WHERE id = $1::int", 2)
        assert await left_on_the_server(connection) == []


async def test_in_a_failed_transaction(postgres: Database):
    async with postgres.engine.connect() as connection:
        with pytest.raises(DBAPIError):
            await connection.execute(text("SELECT 1 / 0"))
        with pytest.raises(DBAPIError, match="current transaction is aborted"):
            await explain_sql(connection, "SELECT 1")
        await connection.rollback()
        assert (await explain_sql(connection, "SELECT 1")).root.kind == "Result"


async def test_cancelled_while_it_executes(postgres: Database):
    async with postgres.engine.connect() as connection:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await explain_sql(connection, "SELECT pg_sleep(30)", analyze=True)
        assert not (await driver_of(connection)).is_in_transaction()
        assert len(await everything(connection)) == 3


async def test_cancelled_before_it_begins(postgres: Database):
    """Nobody knows then whether the server has begun, so the connection goes."""
    async with postgres.engine.connect() as connection:
        driver = await driver_of(connection)
        cancelled = asyncio.create_task(module.begin_undone(driver))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert driver.is_closed()
        await connection.invalidate()
    assert len(await everything(postgres)) == 3


async def test_behind_a_pooler_in_transaction_mode(postgres_url: str):
    database = Database(postgres_url, connect_args={"statement_cache_size": 0})
    await explain_sql(database.engine, "SELECT $1::int + 1")
    await database.close()


async def test_a_side_effect_of_a_select_is_undone(postgres: Database):
    async with postgres.engine.begin() as connection:
        await connection.execute(
            text("CREATE FUNCTION grow() RETURNS int LANGUAGE sql AS 'UPDATE thing SET size = 99; SELECT 1'")
        )
        await connection.execute(
            text(
                "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS "
                "'BEGIN INSERT INTO thing (name) VALUES (''by trigger ''||new.name); RETURN new; END'"
            )
        )
        await connection.execute(
            text(
                "CREATE TRIGGER noted AFTER UPDATE ON thing FOR EACH ROW "
                "WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION note()"
            )
        )
    before = await everything(postgres)
    for sql in (
        "SELECT grow()",
        "WITH gone AS (DELETE FROM thing RETURNING *) SELECT count(*) FROM gone",
        "WITH new AS (INSERT INTO thing (name) VALUES ('x') RETURNING *) SELECT * FROM new",
        "UPDATE thing SET size = 5",
        "MERGE INTO thing USING (VALUES ('a')) AS v (n) ON name = n WHEN MATCHED THEN DELETE",
    ):
        assert (await explain_sql(postgres.engine, sql, analyze=True)).analyzed
        assert await everything(postgres) == before, sql
