"""Indexes that could go."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from catalysis import Database
from catalysis.advice.catalog import Catalog, ExistingIndex, read_catalog
from catalysis.advice.definitions import IndexDefinition, Key, TableName
from catalysis.advice.redundancy import find_redundant

TASK = TableName("task")
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def there(
    name: str, *columns: str, table: TableName = TASK, predicate: tuple[str, ...] = (), **rest: Any
) -> ExistingIndex:
    keys = tuple(map(Key, columns))
    return ExistingIndex(name, IndexDefinition(table, keys, predicate=predicate), **{"scans": 5, **rest})


def reasons(
    *indexes: ExistingIndex, proposed: tuple[IndexDefinition, ...] = (), days: float = 90
) -> dict[str, str]:
    catalog = Catalog({TASK: frozenset("abc")}, indexes=indexes, counted_since=NOW - timedelta(days=days))
    return {each.name: each.reason for each in find_redundant(catalog, proposed, now=NOW)}


def test_a_duplicate_goes_and_the_used_one_stays():
    found = reasons(there("one", "a", "b", scans=3), there("two", "a", "b", scans=90))
    assert found == {"one": "a duplicate of two"}


def test_of_three_duplicates_one_stays():
    assert len(reasons(*(there(name, "a") for name in "xyz"))) == 2


def test_a_prefix_goes():
    assert list(reasons(there("short", "a"), there("long", "a", "b"))) == ["short"]
    assert list(reasons(there("short", "a"), there("key", "a", "b", unique=True, needed=True))) == ["short"]
    assert reasons(there("other", "b"), there("long", "a", "b")) == {}


def test_what_guards_something_stays():
    assert reasons(there("unique", "a", unique=True, scans=0), there("long", "a", "b")) == {}
    assert reasons(there("constraint", "a", needed=True, scans=0), there("long", "a", "b")) == {}


def test_another_predicate_table_or_class_is_another_index():
    assert reasons(there("part", "a", predicate=("b IS NULL",)), there("whole", "a")) == {}
    assert reasons(there("here", "a"), there("there", "a", table=TableName("user"))) == {}
    pattern = ExistingIndex(
        "pattern", IndexDefinition(TASK, (Key("a", operator_class="text_pattern_ops"),)), scans=1
    )
    assert reasons(pattern, there("plain", "a")) == {}


def test_an_invalid_index_stands_for_nothing():
    assert reasons(there("short", "a"), there("long", "a", "b", valid=False)) == {}


def test_unused_only_after_long_enough():
    assert "not used once in the 90 days" in reasons(there("idle", "a", scans=0))["idle"]
    assert reasons(there("idle", "a", scans=0), days=29) == {}
    assert reasons(there("unknown", "a", scans=None)) == {}


def test_what_a_proposed_index_does_as_well():
    found = reasons(there("short", "a"), proposed=(IndexDefinition(TASK, (Key("a"), Key("b"))),))
    assert found == {"short": "its columns are the first of ix_task_a_b, once that is made"}


@pytest.fixture
async def catalog(backend_url: str) -> Catalog:
    database = Database(backend_url)
    async with database.engine.begin() as connection:
        for statement in (
            "CREATE TABLE parent (id integer PRIMARY KEY, code varchar(10) UNIQUE)",
            "CREATE TABLE t (id integer PRIMARY KEY, a varchar(10), b integer, p integer REFERENCES parent (id))",
            "CREATE INDEX one ON t (a, b DESC)",
            "CREATE INDEX same ON t (a DESC, b)",
            "CREATE INDEX short ON t (a)",
            "CREATE INDEX lowered ON t (lower(a))",
            "CREATE INDEX uppered ON t (upper(a))",
            "CREATE INDEX part ON t (b) WHERE a IS NULL AND b > 3",
            "CREATE UNIQUE INDEX only_b ON t (b)",
        ):
            await connection.exec_driver_sql(statement)
    async with database.engine.connect() as connection:
        found = await read_catalog(connection)
    await database.close()
    return found


async def test_the_catalog_of_each_backend(catalog: Catalog):
    indexes = {each.name: each for each in catalog.indexes}
    assert indexes["one"].definition.keys == (Key("a"), Key("b", descending=True))
    assert [each.replace("(", "").replace(")", "") for each in indexes["part"].definition.predicate] == [
        "a IS NULL",
        "b > 3",
    ]
    assert indexes["only_b"].unique
    assert not indexes["only_b"].needed
    assert sum(each.needed for each in catalog.indexes) == 3
    assert [(each.table.name, each.columns, each.refers_to.name) for each in catalog.foreign_keys] == [
        ("t", ("p",), "parent")
    ]
    assert catalog.columns[TableName("t")] == {"id", "a", "b", "p"}
    found = {each.name: each.reason for each in find_redundant(catalog, unused_days=10**6)}
    assert found.keys() == {"same", "short"} or found.keys() == {"one", "short"}


async def test_names_that_need_quotes(postgres_url: str):
    database = Database(postgres_url)
    async with database.engine.begin() as connection:
        await connection.exec_driver_sql('CREATE SCHEMA "Other"; ')
        await connection.exec_driver_sql(
            'CREATE TABLE "Other"."Odd table" ("An id" integer, "select" integer)'
        )
        await connection.exec_driver_sql(
            'CREATE INDEX "Odd index" ON "Other"."Odd table" ("select", "An id")'
        )
        found = await read_catalog(connection)
        await connection.rollback()  # no other test has such a schema
    await database.close()
    [index] = [each for each in found.indexes if each.name == "Odd index"]
    assert index.definition == IndexDefinition(TableName("Odd table", "Other"), (Key("select"), Key("An id")))
    assert index.definition.ddl(database_dialect()) == (
        'CREATE INDEX "ix_Odd table_select_an_id" ON "Other"."Odd table" ("select", "An id")'
    )


def database_dialect() -> Any:
    from sqlalchemy.dialects.postgresql.asyncpg import dialect

    return dialect()
