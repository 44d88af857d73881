"""`catalysis advise`, as it is typed."""

import json
from pathlib import Path

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from catalysis import Database
from catalysis.advice import Workload
from catalysis.cli import app
from tests.advice.shop import order
from tests.advice.test_advise import OF_CUSTOMER, names, sent

runner = CliRunner()
BROKEN = '{"sql": "SELECT (("}\n'


@pytest.fixture
async def file(shop: Database, tmp_path: Path) -> Path:
    """Statements that were really sent, and one that nobody can read."""
    workload: Workload = await sent(shop, [OF_CUSTOMER, select(order).where(order.c.id == 3)])
    workload.write(path := tmp_path / "statements.jsonl")
    path.write_text(path.read_text() + BROKEN)
    return path


def run(shop: Database, *arguments: str) -> tuple[int, str, str]:
    done = runner.invoke(app, ["advise", "--url", shop.settings.url, *arguments])
    return done.exit_code, done.stdout, done.stderr


# The command has an event loop of its own, so these tests have none but for their fixtures.


def test_tables(shop: Database, file: Path):
    code, said, _ = run(shop, "--from", str(file), "--prove-here")
    assert code == 0
    assert 'ix_order_customer_id ON "order" (customer_id);' in said
    assert 'Index("ix_order_customer_id", "customer_id")' in said
    assert "not analysed SELECT ((: it cannot be parsed" in said
    assert "2 statements analysed; 1 of them need no index." in said
    assert ("cost before" in said) == shop.settings.url.startswith("postgresql")


def test_json(shop: Database, file: Path):
    code, said, _ = run(shop, "--from", str(file), "--prove-here", "--json")
    answer = json.loads(said)
    assert code == 0
    assert [each["name"] for each in answer["indexes"]] == ["ix_order_customer_id"]
    assert answer["indexes"][0]["proved_by"] == "transaction"
    assert answer["skipped"][0]["sql"] == "SELECT (("
    assert [len(each["indexes"]) for each in answer["statements"]].count(1) == 1


def test_nothing_is_proved_unless_asked(shop: Database, file: Path):
    code, said, _ = run(shop, "--from", str(file))
    assert code == 0
    assert "No index is proposed" in said
    assert "Not proved, since" in said


def test_where_nothing_is_counted(shop: Database):
    code, _, said = run(shop)
    assert code == 1
    assert "pg_stat_statements" in said or "gather_workload" in said


@pytest.mark.parametrize("host", ["127.0.0.1:1", "no-such-host.invalid:5432"])
@pytest.mark.parametrize("counted", [False, True])
def test_a_database_that_does_not_answer(tmp_path: Path, host: str, counted: bool):
    (path := tmp_path / "statements.jsonl").write_text(BROKEN)
    source = () if counted else ("--from", str(path))
    done = runner.invoke(app, ["advise", "--url", f"postgresql+asyncpg://u:hidden@{host}/shop", *source])
    assert done.exit_code == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert line.endswith("Nothing is advised.")
    assert "hidden" not in line


def test_a_file_that_is_not_there(shop: Database, tmp_path: Path):
    code, _, said = run(shop, "--from", str(tmp_path / "none"))
    assert code == 1
    assert "cannot be read" in said


async def test_a_revision_is_written_and_not_applied(
    shop: Database, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import asyncio

    monkeypatch.chdir(tmp_path)
    assert runner.invoke(app, ["migrate", "init", "--models", "tests.advice.shop:metadata"]).exit_code == 0
    before = await names(shop)
    arguments = ("--from", str(file), "--prove-here", "--revision", "an index")
    code, _, said = await asyncio.to_thread(run, shop, *arguments)
    assert code == 0, said
    [path] = (tmp_path / "migrations" / "versions").glob("*.py")
    assert "ix_order_customer_id" in path.read_text()
    assert "autocommit_block()" in path.read_text()
    assert await names(shop) == before
