"""The plan in the terminal, and `catalysis explain` as it is typed."""

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from rich.console import Console
from sqlalchemy.ext.asyncio import AsyncEngine
from typer.testing import CliRunner, Result

from catalysis import Database, QueryPlan, explain_sql
from catalysis.cli import app
from catalysis.tools.query_plans.reading import read_postgresql
from catalysis.tools.query_plans.terminal import rendered
from catalysis.tools.query_plans.text import document_of

T = TypeVar("T")

TABLE = {
    "postgresql": [
        "CREATE TABLE task (id int PRIMARY KEY, title text, points int)",
        "INSERT INTO task SELECT i, 'task ' || i, i % 100 FROM generate_series(1, 20000) AS i",
        "ANALYZE task",
    ],
    "sqlite": [
        "CREATE TABLE task (id INTEGER PRIMARY KEY, title TEXT, points INT)",
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 6000) "
        "INSERT INTO task SELECT i, 'task ' || i, i % 100 FROM n",
    ],
}
SLOW = "SELECT * FROM task WHERE title = 'task 7'"


@pytest.fixture
async def filled(backend_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a database with a table; `catalysis` finds it."""
    database = Database(backend_url)
    async with database.engine.begin() as connection:
        for sql in TABLE[connection.dialect.name]:
            await connection.exec_driver_sql(sql)
    await database.close()
    monkeypatch.setenv("DATABASE_URL", backend_url)
    return backend_url


def on_engine(url: str, work: Callable[[AsyncEngine], Awaitable[T]]) -> T:
    async def run() -> T:
        database = Database(url)
        try:
            return await work(database.engine)
        finally:
            await database.close()

    return asyncio.run(run())


def plan_of(url: str, sql: str) -> QueryPlan:
    return on_engine(url, lambda engine: explain_sql(engine, sql))


def printed(plan: QueryPlan, **options: object) -> str:
    console = Console(file=io.StringIO(), width=200, **options)
    console.print(rendered(plan))
    return console.file.getvalue()


def typed(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, ["explain", *arguments], input=stdin)


def step(label: str, cost: float, *children: dict[str, object], **said: object) -> dict[str, object]:
    known = {"Node Type": label, "Startup Cost": 0.0, "Total Cost": cost, "Plan Rows": 1234, "Plan Width": 4}
    return {**known, **said, "Plans": list(children)}


def test_expensive_steps_are_marked_in_words_too():
    plan = read_postgresql([[[{"Plan": step("Limit", 100, step("Sort", 99, step("Seq Scan", 60)))}]]])
    lines = printed(plan).splitlines()
    assert lines == [
        "Limit  1,234 rows estimated  cost 100  1%",
        "└── Sort  1,234 rows estimated  cost 99  <<< 39% of the cost",
        "    └── Seq Scan  1,234 rows estimated  cost 60  <<< 60% of the cost",
    ]
    assert "\x1b[1;31mSort\x1b[0m" in printed(plan, force_terminal=True, color_system="standard")


def test_steps_are_told_with_what_came():
    figures = {"Actual Startup Time": 0.0, "Actual Total Time": 2.0, "Actual Rows": 2.5, "Actual Loops": 30}
    inner = step("Index Scan", 10, **figures, **{"Parent Relationship": "Inner", "Index Cond": "(id = [1])"})
    never = step("Seq Scan", 10, **{**figures, "Actual Loops": 0}, **{"Parent Relationship": "Outer"})
    whole = {**figures, "Actual Total Time": 70.0, "Actual Loops": 1}
    triggers = [{"Trigger Name": "t", "Constraint Name": "fk", "Relation": "a", "Time": 1.5, "Calls": 2}]
    plan = read_postgresql(
        [
            [
                [
                    {
                        "Plan": step("Nested Loop", 100, never, inner, **whole),
                        "Planning Time": 0.25,
                        "Execution Time": 72.0,
                        "Triggers": triggers,
                    }
                ]
            ]
        ]
    )
    assert [line.strip("│└├─ ") for line in printed(plan).splitlines()] == [
        "Nested Loop  2.5 rows (1,234 estimated)  70.00 ms  14%",
        "Seq Scan  never executed",
        "Index Scan  2.5 rows (1,234 estimated)  in each of 30 executions  60.00 ms  <<< 86% of the time",
        "Index Cond: (id = [1])",
        "Trigger fk: 1.50 ms in 2 calls",
        "0.25 ms to plan, 72.00 ms to execute",
    ]


def test_findings_stand_under_the_tree(filled: str):
    lines = printed(plan_of(filled, SLOW)).splitlines()
    (step,) = [line for line in lines if "task [1]" in line]
    assert ("<<< 100% of the cost" in step) == filled.startswith("postgresql")
    at = lines.index("")
    assert lines[at + 1].startswith("[1] Warning: sequential-scan in S")
    assert lines[at + 2].startswith("    All of task is read")
    assert "kept" in lines[at + 3] or "different values" in lines[at + 3]


def test_typed(filled: str):
    shown = typed(SLOW, "--analyze", "--buffers")
    assert shown.exit_code == 0
    assert "[1] Warning: sequential-scan" in shown.stdout
    if filled.startswith("postgresql"):
        assert "ms to execute" in shown.stdout
        assert "Buffers: shared hit=" in shown.stdout
    assert typed(SLOW, "--url", filled).stdout.startswith(("Seq Scan on task [1]", "QUERY PLAN"))
    assert "sequential-scan" in typed("-", stdin=SLOW + ";\n").stdout


def test_in_a_pipe_no_line_is_cut(filled: str):
    wide = "SELECT * FROM task WHERE " + " OR ".join(
        f"title = 'a title of some length {i}'" for i in range(9)
    )
    lines = typed(wide).stdout.splitlines()
    assert max(len(line) for line in lines) == max(len(line.rstrip()) for line in lines), "nor filled up"
    if filled.startswith("postgresql"):
        assert any("of some length 0" in line and "of some length 8" in line for line in lines)


def test_as_json(filled: str):
    shown = typed(SLOW, "--json")
    document = json.loads(shown.stdout)
    assert document == document_of(plan_of(filled, SLOW))
    (finding,) = document["findings"]
    assert finding["code"] == "sequential-scan"
    scan = document["plan"]
    while scan["step"] != finding["step"]:
        (scan,) = scan["children"]
    assert scan["relation"] == "task"
    assert document["analyzed"] is False


def test_analyze_leaves_the_table_as_it_is(filled: str):
    async def rows(engine: AsyncEngine) -> list[Any]:
        async with engine.connect() as connection:
            return list(await connection.exec_driver_sql("SELECT * FROM task ORDER BY id"))

    before = on_engine(filled, rows)
    assert typed("DELETE FROM task", "--analyze").exit_code == 0
    assert on_engine(filled, rows) == before


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT * FROM nothing_here", "nothing_here"),
        ("SELECT * FROM task WHERE", "syntax error|incomplete input"),
        ("SELEC 1", "There is no plan for SELEC"),
        ("SELECT 1; SELECT 2", "multiple commands|only execute one|with these values"),
        ("", "There is no plan for an empty statement"),
    ],
)
def test_a_bad_statement_is_one_line(filled: str, sql: str, words: str):
    refused = typed(sql)
    assert refused.exit_code == 1
    assert refused.stdout == ""
    (line,) = refused.stderr.splitlines()
    assert line.startswith("error: ")
    assert any(word in line for word in words.split("|")), line


def test_so_is_a_database_that_is_not_there(postgres_url: str):
    for url in ("postgresql://nobody@127.0.0.1:1/x", postgres_url.rpartition("/")[0] + "/no_such_database"):
        refused = typed("SELECT 1", "--url", url)
        assert refused.exit_code == 1
        (line,) = refused.stderr.splitlines()
        assert line.startswith("error: ")
        assert line.endswith("Nothing was explained.")


def test_rich_is_imported_only_to_print():
    code = "import sys, catalysis.tools.explain as e; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
