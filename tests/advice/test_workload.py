"""Workloads: counting, bounds, files, and what must not be in them."""

from pathlib import Path

import pytest
from sqlalchemy import select

from catalysis import Database
from catalysis.advice import Statement, Workload, gather_workload, workload_from_statistics
from catalysis.advice.workload import shape_of
from catalysis.errors import AdviceError
from catalysis.events import QueryEvent
from tests.advice.shop import customer, order
from tests.servers import PostgresServer


def test_calls_of_one_statement_add_up():
    workload = Workload([Statement("SELECT 1", 2, 0.5, 2), Statement("SELECT  1", 1, 0.25, 1)])
    assert [(each.calls, each.seconds, each.rows) for each in workload.statements] == [(3, 0.75, 3)]


def test_the_length_of_a_list_makes_no_other_statement():
    short, long = (
        f"SELECT a FROM t WHERE b IN ({values}) AND c = {last}::UUID LIMIT 21"
        for values, last in (("$1::UUID", "$2"), ("$1::UUID, $2::UUID, $3::UUID", "$4"))
    )
    assert shape_of(short) == shape_of(long)
    assert shape_of(short) != shape_of(short.replace("LIMIT 21", "LIMIT 11"))
    assert shape_of("SELECT a WHERE b IN (?, ?)") == shape_of("SELECT a WHERE b IN (?)")
    assert shape_of("SELECT a WHERE b IN ($1,$2)") == shape_of("SELECT a WHERE b IN ($1)")


def test_what_has_no_plan_is_left_out():
    assert len(Workload(map(Statement, ("BEGIN", "COMMIT", "CREATE TABLE t (a int)", "SET x = 1")))) == 0


def test_of_too_many_the_least_expensive_are_forgotten():
    workload = Workload(limit=10)
    for n in range(200):
        workload.add(Statement(f"SELECT a{n} FROM t", 1, float(n)))
        assert len(workload._statements) <= 20
    assert [each.seconds for each in workload.statements] == [float(n) for n in range(199, 189, -1)]
    assert workload.dropped == 190


def test_a_failed_statement_is_not_counted():
    workload = Workload()
    workload.hear(QueryEvent("SELECT 1", 1.0, None, False, None, "DBAPIError", None))
    assert workload.statements == ()


def test_a_file_holds_statements_and_no_parameters(tmp_path: Path):
    workload = Workload([Statement("SELECT a FROM t WHERE b = ?", 3, 0.5, 7, ("secret",))])
    workload.write(file := tmp_path / "statements.jsonl")
    assert "secret" not in file.read_text() + repr(workload.statements)
    assert Workload.read(file).statements == (Statement("SELECT a FROM t WHERE b = ?", 3, 0.5, 7),)


@pytest.mark.parametrize(
    "line", ["no json", "[]", '{"calls": 3}', '{"sql": 3}', '{"sql": "SELECT 1", "calls": "x"}']
)
def test_a_bad_line_is_named(tmp_path: Path, line: str):
    (file := tmp_path / "statements.jsonl").write_text(f'{{"sql": "SELECT 1"}}\n{line}\n')
    with pytest.raises(AdviceError, match="Line 2 of"):
        Workload.read(file)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(AdviceError, match=r"nothing\.jsonl cannot be read"):
        Workload.read(tmp_path / "nothing.jsonl")


async def test_gathering_keeps_values_only_when_told(shop: Database):
    with gather_workload(shop) as without, gather_workload(shop, keep_parameters=True) as with_values:
        async with shop.engine.connect() as connection:
            for city in ("city 1", "city 2"):
                await connection.execute(select(customer.c.id).where(customer.c.city == city))
    assert [(each.calls, each.parameters) for each in without.statements] == [(2, None)]
    assert [(each.calls, each.parameters) for each in with_values.statements] == [(2, ("city 1",))]


async def test_only_the_given_database_is_heard(shop: Database, tmp_path: Path):
    other = Database(f"sqlite:///{tmp_path / 'other.db'}")
    with gather_workload(other) as workload:
        async with shop.engine.connect() as connection:
            await connection.execute(select(customer.c.id).limit(1))
    await other.close()
    assert workload.statements == ()


async def test_sqlite_counts_nothing(tmp_path: Path):
    database = Database(f"sqlite:///{tmp_path / 'a.db'}")
    with pytest.raises(AdviceError, match="gather_workload"):
        await workload_from_statistics(database)
    await database.close()


async def test_statistics_that_are_not_there(postgres_url: str):
    database = Database(postgres_url)
    with pytest.raises(AdviceError, match="shared_preload_libraries"):
        await workload_from_statistics(database)
    await database.close()


async def test_statistics_of_the_server():
    server = PostgresServer.start("shared_preload_libraries=pg_stat_statements")
    database = Database(server.url())
    try:
        async with database.engine.begin() as connection:
            await connection.exec_driver_sql("CREATE EXTENSION pg_stat_statements")
            await connection.run_sync(customer.metadata.create_all)
        async with database.engine.connect() as connection:
            for n in range(3):
                await connection.execute(select(order.c.id).where(order.c.customer_id == n).limit(5))
        found = [
            each for each in (await workload_from_statistics(database)).statements if "LIMIT" in each.sql
        ]
    finally:
        await database.close()
        server.stop()
    assert [each.calls for each in found] == [3]
    assert found[0].seconds > 0
