"""Models against the live database: each difference is told as what it does, on both backends."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Enum,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Numeric,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlmodel.sql.sqltypes import AutoString

from catalysis import NAMING_CONVENTION, Database
from catalysis.doctor import examine
from catalysis.doctor.schema import loss
from catalysis.migrations import init_project, load_config, revise, upgrade
from tests.doctor.conftest import of, said, send


def shop(*items: Any) -> MetaData:
    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    Table("user", metadata, Column("id", Integer, primary_key=True))
    Table("item", metadata, Column("id", Integer, primary_key=True), *items)
    return metadata


async def differences(database: Database, there: MetaData, here: MetaData) -> list[tuple[str, str, str]]:
    await database.create_all(there)
    return said(await examine(database, here))


async def test_no_difference(empty):
    models = shop(
        *(Column("name", String(50), unique=True), Column("user_id", ForeignKey("user.id"), index=True)),
        *(
            Column("done", Boolean, nullable=False, server_default=text("false")),
            CheckConstraint("id > 0", "id"),
        ),
        *(Column("due", DateTime(timezone=True)), Column("kind", Enum("a", "b", name="kind"))),
        Index("ix_part", "name", postgresql_where=text("done"), sqlite_where=text("done")),
    )
    assert await differences(empty, models, models) == []


@pytest.mark.parametrize(
    ("there", "here", "found"),
    [
        (lambda: (), lambda: (Column("a", Integer),), [("D212", "error", "item.a")]),
        (lambda: (Column("a", Integer),), lambda: (), [("D221", "info", "item.a")]),
        (
            lambda: (Column("a", Integer, nullable=False, server_default="1"),),
            lambda: (),
            [("D221", "info", "item.a")],
        ),
        (lambda: (Column("a", Integer, nullable=False),), lambda: (), [("D222", "error", "item.a")]),
        (
            lambda: (Column("a", Integer, nullable=False),),
            lambda: (Column("a", Integer),),
            [("D213", "error", "item.a")],
        ),
        (
            lambda: (Column("a", Integer),),
            lambda: (Column("a", Integer, nullable=False),),
            [("D214", "warning", "item.a")],
        ),
        (
            lambda: (Column("a", Integer), Column("b", Integer)),
            lambda: (Column("a", Integer, unique=True), Column("b", Integer, index=True)),
            [("D217", "error", "constraint uq_item_a"), ("D218", "warning", "index ix_item_b")],
        ),
        (
            lambda: (Column("a", Integer, unique=True), Column("b", Integer, index=True)),
            lambda: (Column("a", Integer), Column("b", Integer)),
            [("D221", "info", "constraint uq_item_a"), ("D221", "info", "index ix_item_b")],
        ),
        (
            lambda: (Column("a", Integer),),
            lambda: (Column("a", Integer), Index("ux", "a", unique=True)),
            [("D217", "error", "index ux")],
        ),
        (
            lambda: (Column("user_id", Integer, index=True),),
            lambda: (Column("user_id", ForeignKey("user.id"), index=True),),
            [("D217", "error", "constraint fk_item_user_id_user")],
        ),
        (
            lambda: (Column("a", Integer),),
            lambda: (Column("a", Integer, server_default="7"),),
            [("D219", "warning", "item.a")],
        ),
        (lambda: (Column("a", Text),), lambda: (Column("a", Integer),), [("D216", "warning", "item.a")]),
    ],
)
async def test_differences(empty, there, here, found):
    assert await differences(empty, shop(*there()), shop(*here())) == found


async def test_a_table_that_is_missing_and_one_that_is_left(empty):
    models = shop()
    await send(
        empty,
        "CREATE TABLE item (id INTEGER NOT NULL PRIMARY KEY)",
        "CREATE TABLE old (id INTEGER PRIMARY KEY)",
    )
    assert said(await examine(empty, models)) == [("D211", "error", "user"), ("D221", "info", "old")]


async def test_a_missing_default_says_what_follows(empty):
    await empty.create_all(shop(Column("a", Integer)))
    (complaint,) = of(await examine(empty, shop(Column("a", Integer, server_default="7"))), "D219")
    assert complaint.message.endswith("an INSERT that leaves it out gets NULL.")


async def test_types_that_lose_on_postgresql(postgres):
    there = shop(
        *(Column("short", String(10)), Column("small", Integer), Column("naive", DateTime)),
        *(Column("money", Float), Column("scale", Numeric(10, 2)), Column("wide", String(50))),
    )
    here = shop(
        *(
            Column("short", AutoString(20)),
            Column("small", BigInteger),
            Column("naive", DateTime(timezone=True)),
        ),
        *(Column("money", Numeric(10, 2)), Column("scale", Numeric(10, 4)), Column("wide", String(20))),
    )
    found = await differences(postgres, there, here)
    assert found == [
        *[("D215", "error", f"item.{each}") for each in ("money", "naive", "scale", "short", "small")],
        ("D216", "warning", "item.wide"),
    ]


async def test_enums_differ(postgres):
    there, here = (
        shop(Column("kind", Enum("a", name="kind"))),
        shop(Column("kind", Enum("a", "b", name="kind"))),
    )
    assert await differences(postgres, there, here) == [("D220", "error", "enum kind")]


@pytest.mark.parametrize(
    ("there", "here", "lost"),
    [
        (String(10), String(11), "longer than 10"),
        (String(10), Text(), "longer than 10"),
        (String(11), String(10), None),
        (Text(), String(10), None),
        (SmallInteger(), Integer(), "larger"),
        (BigInteger(), Integer(), None),
        (Numeric(5, 2), Numeric(6, 2), "larger"),
        (Numeric(6, 2), Numeric(6, 3), "rounded"),
        (Numeric(6, 3), Numeric(6, 3), None),
        (Float(), Numeric(6, 3), "rounded"),
        (Numeric(6, 3), Float(), None),
        (Date(), DateTime(), "cut off"),
        (DateTime(), DateTime(timezone=True), "zone"),
        (DateTime(timezone=True), DateTime(), None),
        (Integer(), Text(), None),
    ],
)
def test_what_a_type_loses(there, here, lost):
    said = loss(there, here, "postgresql")
    assert (said is None) if lost is None else (said is not None and lost in said)
    assert loss(there, here, "sqlite") is None


async def test_tables_in_a_schema_of_their_own(postgres):
    await send(postgres, "CREATE SCHEMA stock", "CREATE SCHEMA others", "CREATE TABLE others.x (a timestamp)")
    metadata = MetaData(schema="stock", naming_convention=NAMING_CONVENTION)
    Table("item", metadata, Column("id", Integer, primary_key=True), Column("a", Integer))
    assert said(await examine(postgres, metadata)) == [("D211", "error", "stock.item")]
    await send(
        postgres, "CREATE TABLE stock.item (id integer PRIMARY KEY)", "CREATE TABLE stock.old (a timestamp)"
    )
    assert said(await examine(postgres, metadata)) == [
        ("D212", "error", "stock.item.a"),
        ("D329", "warning", "stock.old.a"),
        ("D330", "warning", "stock.old"),
        ("D221", "info", "stock.old"),
    ]


# --- Revisions ------------------------------------------------------------------------------------


@pytest.fixture
async def project(empty, tmp_path, monkeypatch):
    """Migrations of one table, not applied."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    models = shop(Column("name", String(20)), UniqueConstraint("name"))
    init_project(Path("migrations"), "unused")
    monkeypatch.setattr("tests.doctor.test_schema.MODELS", models)
    (folder / "migrations" / "env.py").write_text(
        "from catalysis.migrations import run_environment\nfrom tests.doctor import test_schema\n"
        "run_environment(test_schema.MODELS)\n"
    )
    config = load_config()
    assert await revise(empty, "first", config=config) is not None
    return config


MODELS = MetaData()
"""What env.py of the fixture names."""


async def test_migrations_pending_and_done(empty, project):
    from tests.doctor import test_schema

    pending = await examine(empty, test_schema.MODELS, config=project)
    assert said(pending) == [("D201", "error", "revisions")]
    assert pending.complaints[0].mend == "catalysis migrate upgrade"
    assert [(each.code, each.reason) for each in pending.skipped] == [
        ("D200", "the database is not at the newest revision")
    ]
    await upgrade(empty, config=project)
    assert said(await examine(empty, test_schema.MODELS, config=project)) == []
    await send(empty, "ALTER TABLE item ADD COLUMN extra INTEGER")
    (complaint,) = (await examine(empty, test_schema.MODELS, config=project)).complaints
    assert (complaint.code, complaint.subject) == ("D221", "item.extra")
    assert "catalysis migrate revision" in complaint.mend


async def test_a_revision_that_is_not_here(empty, project):
    from tests.doctor import test_schema

    await upgrade(empty, config=project)
    await send(empty, "UPDATE alembic_version SET version_num = 'newer'")
    found = await examine(empty, test_schema.MODELS, config=project)
    assert said(found) == [("D202", "error", "revisions")]
    assert "newer" in found.complaints[0].message


async def test_two_heads(empty, project, tmp_path):
    from tests.doctor import test_schema

    await upgrade(empty, config=project)
    for name in ("left", "right"):
        (tmp_path / "project" / "migrations" / "versions" / f"{name}.py").write_text(
            f"revision = {name!r}\ndown_revision = {_head(tmp_path)!r}\ndef upgrade(): pass\ndef downgrade(): pass\n"
        )
    assert said(await examine(empty, test_schema.MODELS, config=project)) == [
        ("D201", "error", "revisions"),
        ("D203", "error", "revisions"),
    ]


def _head(folder) -> str:
    (first,) = (folder / "project" / "migrations" / "versions").glob("*_first.py")
    return next(
        line.split("'")[1] if "'" in line else line.split('"')[1]
        for line in first.read_text().splitlines()
        if line.startswith("revision")
    )


async def test_a_version_table_that_may_not_be_read(postgres, stranger, tmp_path, monkeypatch):
    """Another role's: the comparison is skipped, and all else is looked at."""
    await send(postgres, "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
    monkeypatch.chdir(tmp_path)
    init_project(Path("migrations"), "unused")
    (tmp_path / "migrations" / "env.py").write_text(
        "from catalysis.migrations import run_environment\nfrom sqlalchemy import MetaData\n"
        "run_environment(MetaData())\n"
    )
    found = await examine(stranger, (), config=load_config())
    assert [(each.code, each.reason) for each in found.skipped if each.code == "D200"] == [
        ("D200", "permission denied for table alembic_version.")
    ]
    assert said(found) == []
