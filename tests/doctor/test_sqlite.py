"""A live SQLite file: each fault, made for real, and a file without any."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import event

from catalysis import Database
from catalysis.doctor import examine
from catalysis.errors import ExaminationError
from tests.doctor.conftest import alone, of, said, send

TABLES = (
    "CREATE TABLE parent (id INTEGER PRIMARY KEY)",
    "CREATE TABLE child (id INTEGER PRIMARY KEY, parent_id INTEGER REFERENCES parent (id))",
    "INSERT INTO parent VALUES (1)",
    "INSERT INTO child VALUES (1, 1), (2, NULL)",
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "shop.db"


@pytest.fixture
async def shop(file: Path) -> AsyncIterator[Database]:
    database = Database(f"sqlite:///{file}")
    with sqlite3.connect(file) as connection:
        for statement in TABLES:
            connection.execute(statement)
    connection.close()
    yield database
    await database.close()


async def test_nothing_to_complain_of(shop):
    found = await alone(shop)
    assert said(found) == []
    assert {each.code for each in found.skipped} == {"D200"}


async def test_a_database_in_memory():
    database = Database("sqlite://")
    assert said(await alone(database)) == []
    await database.close()


def switch(database: Database, pragma: str) -> None:
    @event.listens_for(database.engine.sync_engine, "connect")
    def _switch(connection, record):
        cursor = connection.cursor()
        cursor.execute(pragma)
        cursor.close()


async def test_foreign_keys_are_off(shop):
    switch(shop, "PRAGMA foreign_keys = OFF")
    assert said(await alone(shop)) == [("D401", "error", "PRAGMA foreign_keys")]


@pytest.mark.parametrize("mode", ["DELETE", "MEMORY", "OFF"])
async def test_the_journal_is_no_wal(shop, mode):
    switch(shop, f"PRAGMA journal_mode = {mode}")
    assert said(await alone(shop)) == [("D404", "warning", "PRAGMA journal_mode")]


async def test_rows_that_refer_to_nothing(shop, file):
    with sqlite3.connect(file) as connection:  # where nothing is enforced
        connection.execute("INSERT INTO child VALUES (3, 99), (4, 98)")
    connection.close()
    (complaint,) = of(await alone(shop), "D402")
    assert (complaint.subject, complaint.severity) == ("child", "error")
    assert complaint.message == "2 rows refer to rows of parent that are not there."
    assert "99" not in str(complaint)


@pytest.mark.parametrize(
    ("place", "order", "told"), [(8, (2, 3, 0, 1), "finds one fault."), (0, (3, 2, 1, 0), "cannot be read")]
)
async def test_a_damaged_file(shop, file, place, order, told):
    """Two rows of a page have changed places, or it does not begin as a page does."""
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE big (id INTEGER PRIMARY KEY, a TEXT)")
        connection.executemany("INSERT INTO big VALUES (?, ?)", [(n, "x" * 400) for n in range(500)])
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'big'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    pages = bytearray(file.read_bytes())
    leaf = int.from_bytes(pages[(root - 1) * size + 8 :][:4], "big")
    start = (leaf - 1) * size + place
    pages[start : start + 4] = [pages[start + each] for each in order]
    file.write_bytes(pages)
    found = await alone(shop)
    assert said(found, "D403") == [("D403", "error", "file")]
    assert told in of(found, "D403")[0].message


async def test_a_table_without_a_primary_key(shop):
    await send(shop, "CREATE TABLE log (a TEXT)", "CREATE VIRTUAL TABLE words USING fts5(a)")
    assert said(await alone(shop)) == [("D330", "warning", "log")]


async def test_keys_that_refer_to_what_is_not_unique(shop):
    await send(shop, "CREATE TABLE odd (id INTEGER PRIMARY KEY, a TEXT REFERENCES parent (nowhere))")
    (complaint,) = of(await alone(shop), "D402")
    assert (complaint.subject, complaint.severity) == ("schema", "error")
    assert "foreign key mismatch" in complaint.message


async def test_a_file_that_is_not_there_is_not_made(file):
    database = Database(f"sqlite:///{file}")
    with pytest.raises(ExaminationError, match=r"no file .*shop\.db"):
        await examine(database, ())
    assert not file.exists()
    await database.close()


async def test_a_file_that_is_no_database(file):
    file.write_bytes(b"Dear diary, " * 1000)
    database = Database(f"sqlite:///{file}")
    with pytest.raises(ExaminationError, match="not a database"):
        await examine(database, ())
    await database.close()


async def test_nothing_is_changed(shop, file):
    await alone(shop)
    await shop.close()
    before = file.read_bytes()
    await alone(shop)
    await shop.close()
    assert file.read_bytes() == before
