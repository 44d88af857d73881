"""Literals never come through; summaries follow the examples of OpenTelemetry's conventions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalysis.integrations.statements import LONGEST, LONGEST_SUMMARY, describe, without_literals


@pytest.mark.parametrize(
    ("sql", "summary"),
    [
        ("SELECT * FROM wuser_table WHERE username = ?", "SELECT wuser_table"),
        (
            "INSERT INTO shipping_details (order_id, address) SELECT order_id, address FROM orders WHERE id = ?",
            "INSERT shipping_details SELECT orders",
        ),
        ("SELECT * FROM songs, artists WHERE songs.artist_id = artists.id", "SELECT songs artists"),
        (
            "SELECT d FROM (SELECT * FROM orders o JOIN customers c ON o.customer_id = c.id)",
            "SELECT SELECT orders customers",
        ),
        ('SELECT * FROM "song list", artists', 'SELECT "song list" artists'),
        (
            'SELECT a FROM public.task AS t LEFT OUTER JOIN "user" u ON t.x = u.id',
            'SELECT public.task "user"',
        ),
        ("SELECT a FROM (t JOIN u ON t.x = u.x), v", "SELECT t u v"),
        ("SELECT extract(year FROM made), a IS DISTINCT FROM b FROM task FOR UPDATE", "SELECT task"),
        ("SELECT * FROM generate_series(1, 10) g, task", "SELECT task"),
        (
            "WITH x AS (SELECT 1 FROM a), y(b) AS MATERIALIZED (SELECT 2 FROM c) "
            "UPDATE t SET q = 1 FROM x WHERE t.id = x.id",
            "SELECT a SELECT c UPDATE t",
        ),
        (
            "INSERT INTO t (a) VALUES ($1::UUID) ON CONFLICT (a) DO UPDATE SET b = excluded.b RETURNING id",
            "INSERT t",
        ),
        ("INSERT OR REPLACE INTO t VALUES (1)", "INSERT t"),
        ("DELETE FROM t USING u WHERE t.id = u.id", "DELETE t u"),
        ("MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN UPDATE SET a = 1", "MERGE t s"),
        ('COPY "label" ("id") FROM STDIN', 'COPY "label"'),
        ("CREATE TABLE IF NOT EXISTS foo (id int)", "CREATE TABLE foo"),
        ("CREATE UNIQUE INDEX CONCURRENTLY ix ON t (a)", "CREATE UNIQUE INDEX ix"),
        ("SAVEPOINT sa_savepoint_17", "SAVEPOINT"),
        ("SELECT 1", "SELECT"),
        ("hunter2 what is that", ""),
        ("", ""),
    ],
)
def test_summary(sql: str, summary: str):
    assert describe(sql).summary == summary


@pytest.mark.parametrize(
    ("sql", "operation", "table", "returns_rows"),
    [
        ("select * from task", "SELECT", "task", True),
        ("WITH x AS (SELECT 1 FROM a) UPDATE t SET q = 1", "UPDATE", None, False),
        ("INSERT INTO t (a) VALUES (?) RETURNING id", "INSERT", "t", True),
        ("DROP TABLE t", "DROP TABLE", "t", False),
        ("ALTER USER x PASSWORD 'canary'", "ALTER", None, False),
        ("canary", "OTHER", None, False),
    ],
)
def test_what_it_does(sql: str, operation: str, table: str | None, returns_rows: bool):
    said = describe(sql)
    assert (said.operation, said.table, said.returns_rows) == (operation, table, returns_rows)


@pytest.mark.parametrize(
    "literal",
    [
        "'canary'",
        "'it''s canary'",
        r"E'it\'s canary'",
        "$$can't be 'canary'$$",
        "$x$ $$ canary $x$",
        "N'canary'",
        "U&'canary'",
        "X'ca4a41'",
        "20770613",
        "-20.77e13",
        ".20770613",
        "0xCA4A41",
        "'canary",
        "$$canary",
        "'canary\n-- canary'",
    ],
)
def test_a_literal_is_masked(literal: str):
    shown = without_literals(f'SELECT a1 FROM t WHERE "it\'s" = $1::INT AND b = :b2 AND c = {literal}')
    assert shown.rstrip("?- ") == 'SELECT a1 FROM t WHERE "it\'s" = $1::INT AND b = :b2 AND c ='


def test_comments_go():
    assert (
        without_literals("SELECT a -- canary\nFROM t /* 'canary' */ WHERE b")
        == "SELECT a  \nFROM t   WHERE b"
    )


def test_what_is_too_long_is_cut_and_no_literal_is_cut_open():
    said = describe("SELECT a FROM t WHERE b = '" + "canary " * LONGEST + "'")
    assert said.text == "SELECT a FROM t WHERE b = ?"
    assert said.summary == "SELECT t"
    tables = ", ".join(f"table_number_{n}" for n in range(100))
    summary = describe(f"SELECT a FROM {tables}").summary
    assert LONGEST_SUMMARY - 20 < len(summary) <= LONGEST_SUMMARY
    assert summary.split()[-1] in tables.split(", ")


@given(st.text(st.sampled_from("ab'\"$()/*-\\\n,. ESELECT1"), max_size=40), st.text(max_size=12))
def test_anything_is_described(before: str, secret: str):
    """Nothing raises, and a string after a statement that ends outside of literals is never shown."""
    describe(before)
    inside = "<" + secret.replace("'", "''") + ">"
    assert without_literals(f"SELECT a, 'x''', \"q'\", $$'$$ -- it's\n, '{inside}'") == (
        'SELECT a, ?, "q\'", ?  \n, ?'
    )
