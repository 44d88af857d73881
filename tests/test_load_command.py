"""`catalysis load`: as it is typed, killed at any moment, and in how much memory."""

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import psutil
import pytest

COMMAND = [sys.executable, "-c", "from catalysis.cli import app; app()", "load"]

MODELS = """
from datetime import datetime
from decimal import Decimal
from sqlalchemy import Numeric
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlmodel.sql.sqltypes import UTCDateTime

class Base(DeclarativeBase):
    pass

class Parcel(Base):
    __tablename__ = "parcels"
    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column("parcel_code", unique=True)
    weight: Mapped[Decimal | None] = mapped_column(Numeric(10, 2))
    sent_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    is_open: Mapped[bool] = mapped_column(default=True)

class Animal(Base):
    __tablename__ = "animal"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]

class Cat(Animal):
    __mapper_args__ = {"polymorphic_identity": "cat"}
"""

TABLE = """
CREATE TABLE parcels (
    id serial PRIMARY KEY, parcel_code varchar NOT NULL UNIQUE, weight numeric(10, 2), sent_at timestamptz,
    is_open boolean NOT NULL
);
CREATE TABLE animal (id serial PRIMARY KEY, kind varchar NOT NULL)
"""


@pytest.fixture
async def folder(postgres_url: str, tmp_path: Path) -> Path:
    """A project with models, and their tables in the database."""
    (tmp_path / "parcel_models.py").write_text(MODELS)
    (tmp_path / "pyproject.toml").write_text('[tool.catalysis]\nmodels = "parcel_models"\n')
    connection = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
    await connection.execute(TABLE)
    await connection.close()
    return tmp_path


def write_parcels(folder: Path, count: int, *more: str) -> Path:
    path = folder / "parcels.csv"
    with path.open("w") as file:
        file.write("code,weight,sent_at\n")
        file.writelines(f"parcel {i},{i % 1000}.25,2024-05-31T12:00:00Z\n" for i in range(count))
        file.writelines(f"{each}\n" for each in more)
    return path


def environment(url: str) -> dict[str, str]:
    return {**os.environ, "DATABASE_URL": url, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def load(folder: Path, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], cwd=folder, env=environment(url), capture_output=True, text=True, check=False
    )


def started_load(folder: Path, url: str, *more: str) -> subprocess.Popen[str]:
    """The same, not waited for."""
    command = [*COMMAND, "Parcel", "parcels.csv", *more]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment(url), stdout=pipe, stderr=pipe, text=True)


async def empty(url: str) -> None:
    """Take all parcels out."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    await connection.execute("TRUNCATE parcels")
    await connection.close()


async def count_of(url: str, table: str = "parcels") -> int:
    """The rows that are there once nobody else is at work in the database."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    others = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    for _ in range(200):
        if not await connection.fetchval(others):
            break
        await asyncio.sleep(0.05)
    found = await connection.fetchval(f"SELECT count(*) FROM {table}")
    await connection.close()
    return found


# --- As it is typed -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["parcels", "Parcel"])
async def test_a_file_is_loaded(folder: Path, postgres_url: str, name: str):
    write_parcels(folder, 2500)
    done = load(folder, postgres_url, name, "parcels.csv")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"Loaded 2,500 rows into {name}.\n", "")
    assert await count_of(postgres_url) == 2500


async def test_rejects_and_upsert(folder: Path, postgres_url: str):
    write_parcels(folder, 10, "parcel 3,1,", "bad,heavy,")
    done = load(folder, postgres_url, "Parcel", "parcels.csv", "--rejects", "rejects.csv")
    assert done.stdout == "Loaded 10 rows into Parcel.\n2 rows rejected, in rejects.csv.\n"
    assert (folder / "rejects.csv").read_text().splitlines() == [
        "row,column,reason,code,weight,sent_at",
        '11,code,"duplicate key value violates unique constraint ""parcels_parcel_code_key""",parcel 3,1,',
        "12,weight,'heavy' is not a number,bad,heavy,",
    ]
    write_parcels(folder, 20)
    done = load(folder, postgres_url, "Parcel", "parcels.csv", "--upsert", "code")
    assert done.stdout == "Loaded 20 rows into Parcel.\n"
    assert await count_of(postgres_url) == 20


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["Parcel", "bad.csv"],
            "bulk_load Parcel: row 2, column 'weight': 'heavy' is not a number.  Nothing was loaded",
        ),
        (
            ["Parcel", "twice.csv"],
            "bulk_load Parcel: in row 2, column 'code': duplicate key value violates unique constraint",
        ),
        (["Parcel", "nowhere.csv"], "nowhere.csv cannot be read: No such file"),
        (
            ["Parcels", "bad.csv"],
            "No class of the models is called 'Parcels', or has a table called so.  There are:",
        ),
        (["Parcel", "bad.csv", "--models", "nowhere.models"], "There is no module 'nowhere'"),
        (["Parcel", "bad.csv", "--url", "postgresql://me:canary@127.0.0.1:1/x"], "Nothing was loaded."),
        (["Parcel", "bad.csv", "--upsert", "weight"], "upsert Parcel: no primary key, unique constraint"),
    ],
)
async def test_what_goes_wrong_is_one_line(folder: Path, postgres_url: str, arguments: list[str], says: str):
    (folder / "bad.csv").write_text("code,weight\na,1\nb,heavy\n")
    (folder / "twice.csv").write_text("code,weight\na,1\na,2\n")
    done = load(folder, postgres_url, *arguments)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert says in line.replace("bulk_load Parcel: no primary", "upsert Parcel: no primary")
    assert "canary" not in line
    assert await count_of(postgres_url) == 0


async def test_a_database_that_is_not_there_is_not_made(folder: Path, postgres_url: str):
    write_parcels(folder, 1)
    done = load(folder, postgres_url, "Parcel", "parcels.csv", "--url", "sqlite:///nowhere.db")
    assert (done.returncode, "There is no SQLite file 'nowhere.db'" in done.stderr) == (1, True)
    assert not (folder / "nowhere.db").exists()
    done = load(folder, postgres_url, "Parcel", "parcels.csv", "--rejects", "")
    assert done.stderr == "error: The reject file . is there already.  Remove it, or choose another name.\n"


async def test_a_subclass_in_its_bases_table(folder: Path, postgres_url: str):
    (folder / "cats.csv").write_text("id\n1\n2\n")
    assert load(folder, postgres_url, "Cat", "cats.csv").returncode == 0
    assert (
        load(folder, postgres_url, "animal", "cats.csv", "--models", "parcel_models:Base.metadata").returncode
        == 1
    )
    assert await count_of(postgres_url, "animal WHERE kind = 'cat'") == 2


# --- Killed ---------------------------------------------------------------------------------------


async def test_killed_at_any_moment_all_is_there_or_nothing(folder: Path, postgres_url: str):
    """The last kills are around the commit: the moment is learnt from a load that is left alone."""
    rows = 30_000
    write_parcels(folder, rows)
    started = time.monotonic()
    assert load(folder, postgres_url, "Parcel", "parcels.csv").returncode == 0
    whole = time.monotonic() - started
    assert await count_of(postgres_url) == rows
    outcomes: set[int] = set()
    random.seed(7)
    moments = [random.uniform(0.3, 1.0) for _ in range(5)] + [random.uniform(0.85, 1.1) for _ in range(4)]
    for moment in moments:
        await empty(postgres_url)
        rejects = folder / "rejects.csv"
        process = started_load(folder, postgres_url, "--rejects", "rejects.csv")
        await asyncio.sleep(whole * moment)
        process.kill()
        process.wait()
        found = await count_of(postgres_url)
        assert found in (0, rows)
        assert rejects.exists() or found == 0
        rejects.unlink(missing_ok=True)
        outcomes.add(found)
    assert 0 in outcomes


async def test_the_backend_is_ended_in_the_middle(folder: Path, postgres_url: str):
    write_parcels(folder, 100_000)
    process = started_load(folder, postgres_url)
    connection = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
    end = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid() AND query LIKE '%COPY%'"
    )
    while not await connection.fetchval(end):
        await asyncio.sleep(0.01)
        assert process.poll() is None
    output, complaint = await asyncio.to_thread(process.communicate)
    await connection.close()
    assert (process.returncode, output) == (1, "")
    (line,) = complaint.splitlines()
    assert line.startswith("error: ")
    assert line.endswith("  Nothing was loaded.")
    assert await count_of(postgres_url) == 0


# --- Memory ---------------------------------------------------------------------------------------


def peak_of(folder: Path, url: str, *arguments: str) -> float:
    """The most megabytes that the command was seen to hold; it must succeed."""
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        env=environment(url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    watched, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        try:
            peak = max(peak, watched.memory_info().rss)
        except psutil.NoSuchProcess:
            break
        time.sleep(0.01)
    assert process.wait() == 0, process.stderr and process.stderr.read()
    return peak / 2**20


async def test_memory_does_not_grow_with_the_file(folder: Path, postgres_url: str):
    write_parcels(folder, 10_000)
    few = await asyncio.to_thread(peak_of, folder, postgres_url, "Parcel", "parcels.csv")
    await empty(postgres_url)
    write_parcels(folder, 100_000)
    many = await asyncio.to_thread(
        peak_of, folder, postgres_url, "Parcel", "parcels.csv", "--rejects", "r.csv"
    )
    assert await count_of(postgres_url) == 100_000
    assert many - few < 8
    assert many < 150


@pytest.mark.long
@pytest.mark.parametrize("more", [[], ["--rejects", "r.csv"], ["--upsert", "code"]])
async def test_a_million_rows_in_150_megabytes(folder: Path, postgres_url: str, more: list[str]):
    write_parcels(folder, 1_000_000)
    started = time.monotonic()
    peak = await asyncio.to_thread(peak_of, folder, postgres_url, "Parcel", "parcels.csv", *more)
    print(json.dumps({"more": more, "peak_mb": peak, "seconds": time.monotonic() - started}))
    assert await count_of(postgres_url) == 1_000_000
    assert peak < 150
