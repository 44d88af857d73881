"""What a statement asks of a table."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql.asyncpg import dialect as asyncpg

from catalysis.advice.definitions import Key, TableName
from catalysis.advice.predicates import Asked, TableUse, Unread, read_statement
from tests.differential.statements import STATEMENTS

TABLES = {
    TableName("task"): frozenset(
        ["id", "user_id", "title", "done", "due", "deleted_at", "made", "data", "tags"]
    ),
    TableName("user"): frozenset(["id", "name", "email", "deleted_at"]),
}


def uses(sql: str, dialect: str = "postgresql") -> tuple[TableUse, ...]:
    asked = read_statement(sql, dialect, TABLES)
    assert isinstance(asked, Asked), asked
    return asked.uses


def use(sql: str, dialect: str = "postgresql") -> TableUse:
    [found] = uses(sql, dialect)
    return found


def names(keys: Any) -> list[str]:
    return [key.sql for key in keys]


def of_where(condition: str) -> TableUse:
    return use(f"SELECT task.id FROM task WHERE {condition}")


@pytest.mark.parametrize(
    "condition",
    [
        "task.user_id = $1::UUID",
        "$1 = task.user_id",
        "user_id IN ($1::UUID, $2::UUID)",
        "user_id IN ($1,$2)",
        "user_id=$1 AND (id,title)<>($2,$3)",
        "task.user_id = ANY ($1::UUID[])",
        "(task.user_id = $1 AND task.title <> $2)",
    ],
)
def test_equality(condition: str):
    assert names(of_where(condition).equal) == ["user_id"]


@pytest.mark.parametrize(
    "condition",
    ["task.user_id <> $1", "NOT (task.user_id = $1)", "task.user_id NOT IN ($1)", "task.user_id = task.id"],
)
def test_no_equality(condition: str):
    found = of_where(condition)
    assert (found.equal, found.joined, found.ranges) == ((), (), ())


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("task.due < $1", [["due"]]),
        ("$1 >= task.due", [["due"]]),
        ("task.due BETWEEN $1 AND $2", [["due"]]),
        ("task.due >= $1 AND task.due < $2", [["due"]]),
        ("(task.due, task.id) < ($1, $2::UUID)", [["due", "id"]]),
    ],
)
def test_ranges(condition: str, expected: list[list[str]]):
    assert [names(keys) for keys in of_where(condition).ranges] == expected


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("task.deleted_at IS NULL", ["deleted_at IS NULL"]),
        ("NOT task.done AND task.deleted_at IS NULL", ["NOT done", "deleted_at IS NULL"]),
        ("task.done", ["done"]),
        ("task.done IS false", ["done IS FALSE"]),
        ("task.title = 'x'", ["title = 'x'"]),
        ("task.title = $1", []),
    ],
)
def test_conditions_without_values(condition: str, expected: list[str]):
    assert [each.sql for each in of_where(condition).constants] == expected


def test_sqlite_says_booleans_as_numbers():
    found = use("SELECT task.id FROM task WHERE task.done = 0 AND task.user_id = ?", "sqlite")
    assert [each.sql for each in found.constants] == ["done = 0"]
    assert names(found.equal) == ["done", "user_id"]


def test_expressions():
    assert of_where("lower(task.title) = $1").equal == (Key("LOWER(title)", is_expression=True),)
    assert of_where("coalesce(task.title, $2) = $1").equal == ()  # it has a value in it


def test_containment_and_patterns():
    found = of_where(
        "task.data @> $1::JSONB AND task.data ? $2 AND task.tags && $3 AND task.title ILIKE '%' || $4 || '%'"
    )
    assert [(key.sql, operator) for key, operator in found.contains] == [
        ("data", "@>"),
        ("data", "?"),
        ("tags", "&&"),
    ]
    assert names(found.matches) == ["title"]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("task.due, task.id", [Key("due"), Key("id")]),
        ("task.due DESC, task.id DESC", [Key("due"), Key("id")]),
        ("task.due DESC, task.id", [Key("due"), Key("id", descending=True)]),
        ("task.due ASC NULLS LAST", [Key("due")]),
        ("task.due DESC NULLS LAST", [Key("due", nulls="FIRST")]),
        ("task.due ASC NULLS FIRST", [Key("due", nulls="FIRST")]),
        ("lower(task.title)", [Key("LOWER(title)", is_expression=True)]),
        ("random()", []),
    ],
)
def test_order(order: str, expected: list[Key]):
    found = use(f"SELECT task.id FROM task ORDER BY {order} LIMIT 5")
    assert (list(found.order), found.walks) == (expected, True)


def test_an_order_by_the_name_of_what_is_selected():
    assert names(use("SELECT task.due AS d FROM task ORDER BY d LIMIT 1").order) == ["due"]


def test_an_order_after_grouping_is_no_walk():
    found = use("SELECT task.due FROM task GROUP BY task.due ORDER BY task.due LIMIT 5")
    assert (found.order, found.walks) == ((), False)


def test_an_extreme_value_is_one_end_of_an_index():
    found = use("SELECT max(task.due) AS m FROM task WHERE task.user_id = $1")
    assert (names(found.order), found.walks, names(found.equal)) == (["due"], True, ["user_id"])


def test_the_columns_of_a_count():
    assert use("SELECT count(*) FROM task WHERE task.user_id = $1 AND NOT task.done").columns == {
        "user_id",
        "done",
    }
    assert use("SELECT * FROM task").columns == TABLES[TableName("task")]


def test_joins():
    task, user = uses(
        'SELECT task.id FROM task JOIN "user" AS u ON u.id = task.user_id AND u.deleted_at IS NULL WHERE u.name = $1'
    )
    assert (names(task.joined), task.equal, task.constants) == (["user_id"], (), ())
    assert (names(user.joined), names(user.equal)) == (["id"], ["name"])
    assert [each.sql for each in user.constants] == ["deleted_at IS NULL"]


def test_an_outer_join_says_nothing_of_its_outer_side():
    task, user = uses(
        'SELECT task.id FROM task LEFT OUTER JOIN "user" ON "user".id = task.user_id AND NOT task.done'
    )
    assert (task.joined, task.constants, names(user.joined)) == ((), (), ["id"])


def test_a_subquery_sees_the_outer_table_as_another():
    user, task = uses(
        'SELECT "user".id FROM "user" WHERE EXISTS (SELECT 1 FROM task WHERE task.user_id = "user".id AND task.done)'
    )
    assert (user.joined, names(task.joined)) == ((), ["user_id"])


def test_each_side_of_an_or_is_a_use():
    found = uses("SELECT task.id FROM task WHERE task.user_id = $1 OR (task.due < $2 AND task.title = $3)")
    assert [(names(each.equal), len(each.ranges)) for each in found] == [
        (["user_id"], 0),
        (["title"], 1),
        ([], 0),
    ]


def test_changes():
    update = read_statement("UPDATE task SET done=$1 WHERE task.user_id = $2", "postgresql", TABLES)
    delete = read_statement("DELETE FROM task WHERE task.due < $1", "postgresql", TABLES)
    insert = read_statement("INSERT INTO task (id, title) VALUES ($1, $2)", "postgresql", TABLES)
    assert isinstance(update, Asked)
    assert isinstance(delete, Asked)
    assert isinstance(insert, Asked)
    assert (update.kind, update.writes, names(update.uses[0].equal)) == (
        "UPDATE",
        TableName("task"),
        ["user_id"],
    )
    assert (delete.kind, len(delete.uses[0].ranges)) == ("DELETE", 1)
    assert (insert.kind, insert.writes, insert.uses) == ("INSERT", TableName("task"), ())


def test_a_cte_is_no_table_even_under_the_name_of_one():
    found = uses(
        'WITH task AS (SELECT id FROM "user" WHERE name = $1) SELECT task.id FROM task WHERE task.id = $2'
    )
    assert [(each.table.name, names(each.equal)) for each in found] == [("user", ["name"])]


def test_tables_of_other_databases_are_left_out():
    assert uses("SELECT x.a FROM elsewhere AS x WHERE x.a = $1") == ()


@pytest.mark.parametrize(
    "sql", ["SELECT FROM WHERE (", "BEGIN", "VACUUM task", "", "'", "$1 $1 $1", "SELECT ((((1"]
)
def test_what_cannot_be_read_says_so(sql: str):
    assert isinstance(read_statement(sql, "postgresql", TABLES), Unread)


@settings(deadline=None)
@given(st.text(max_size=60), st.sampled_from(["postgresql", "sqlite"]))
def test_no_text_raises(text: str, dialect: str):
    read_statement(text, dialect, TABLES)
    read_statement(f"SELECT task.id FROM task WHERE {text}", dialect, TABLES)


@settings(deadline=None)
@given(st.sampled_from(STATEMENTS), st.integers(0, 5), st.integers(0, 5))
def test_every_statement_of_the_differential_tests_is_read(make: Any, a: int, b: int):
    from tests.differential.models import Author

    columns = {
        TableName(table.name): frozenset(table.columns.keys()) for table in Author.metadata.tables.values()
    }
    statement = make(a, b)
    for name, dialect in (
        ("postgresql", asyncpg()),
        ("postgresql", postgresql.dialect()),
        ("sqlite", sqlite.dialect()),
    ):
        sql = str(statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True}))
        if "%(" not in sql:  # the placeholders of a driver we do not have
            assert isinstance(read_statement(sql, name, columns), Asked), sql


def test_placeholders_without_blanks_and_strings_that_look_like_some():
    found = of_where("task.user_id = $1 AND task.title = '$1,$2' AND task.id IN ($2,$3)")
    assert sorted(names(found.equal)) == ["id", "title", "user_id"]
    assert "'$1,$2'" in found.constants[0].sql
