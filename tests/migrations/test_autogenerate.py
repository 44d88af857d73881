"""From models to revisions and back, on both databases."""

from collections.abc import Callable
from typing import Any

import pytest
from alembic.config import Config
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import CHAR, TypeDecorator
from sqlmodel import AutoString

from catalysis.database import Database
from catalysis.migrations import check, downgrade, revise, upgrade
from catalysis.models import NAMING_CONVENTION
from tests.migrations.conftest import migrate_to, set_models
from tests.migrations.models import METADATA

Change = Callable[[Table], object]


def tables(changes: dict[str, list[Change]]) -> MetaData:
    """A parent, and a child for each of the cases with its changes made to it."""
    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    Table("parent", metadata, Column("id", Integer, primary_key=True))
    for case in changes:
        child = Table(
            case,
            metadata,
            Column("id", Integer, primary_key=True),
            Column("name", String(50), nullable=False),
            Column("size", Integer),
            Column("data", JSON().with_variant(JSONB(), "postgresql")),
            Column("parent_id", ForeignKey("parent.id", ondelete="CASCADE")),
            Column("gone", DateTime(timezone=True)),
        )
        for change in changes[case]:
            change(child)
    return metadata


def index(*what: str, **options: Any) -> Change:
    """An index called ix over columns or expressions."""

    def change(table: Table) -> None:
        expressions = [table.c[each] if each in table.c else text(each) for each in what]
        Index(f"ix {table.name}", *expressions, _table=table, **options)  # a text alone would know no table

    return change


def where(condition: str) -> dict[str, Any]:
    return {"postgresql_where": text(condition), "sqlite_where": text(condition)}


def column(name: str, *type_: Any, refers_to: str = "", **kwargs: Any) -> Change:
    """Another column, or one in the place of that of its name."""

    def change(table: Table) -> None:
        reference = [ForeignKey(refers_to)] if refers_to else []
        table.append_column(Column(name, *type_, *reference, **kwargs), replace_existing=True)

    return change


async def test_models_and_what_their_revision_makes_do_not_differ(database: Database, config: Config) -> None:
    set_models(config, METADATA)
    missing = await check(database, config=config)
    assert "missing in the database: table task" in missing
    assert "missing in the database: enum status" in missing
    revision = await migrate_to(database, config, METADATA)
    assert "sqlmodel" not in revision.read_text()
    assert await revise(database, "nothing", config=config) is None
    await downgrade(database, "base", config=config)
    await upgrade(database, config=config)
    assert await check(database, config=config) == []


@pytest.mark.parametrize("found_on", ["sqlite", "postgres"])
async def test_what_one_database_found_the_other_runs(
    sqlite: Database, postgres: Database, config: Config, found_on: str
) -> None:
    first, other = (sqlite, postgres) if found_on == "sqlite" else (postgres, sqlite)
    await migrate_to(first, config, METADATA)
    await upgrade(other, config=config)
    assert await check(other, config=config) == []
    await downgrade(other, "base", config=config)
    await upgrade(other, config=config)
    assert await check(other, config=config) == []


CHANGES: dict[str, tuple[list[Change], list[Change]]] = {
    "an index": ([], [index("name")]),
    "of two columns": ([index("name")], [index("name", "size")]),
    "in another order": ([index("name", "size")], [index("size", "name")]),
    "backwards": ([index("name")], [index("name DESC")]),
    "unique": ([index("name")], [index("name", unique=True)]),
    "no index": ([index("name", unique=True)], []),
    "of an expression": ([index("name")], [index("lower(name)")]),
    "of another expression": ([index("lower(name)")], [index("upper(name)")]),
    "of an expression and a column": ([index("lower(name)")], [index("lower(name)", "size")]),
    "of an expression no more": (
        [index("coalesce(name, 'a (b')", unique=True, **where("size > 0"))],
        [index("name")],
    ),
    "index of an expression gone": ([index("lower(name)", **where("size > (1 + 1)"))], []),
    "partial": ([index("name")], [index("name", **where("gone IS NULL"))]),
    "partial in another way": (
        [index("name", **where("name IN ('a', 'b')"))],
        [index("name", **where("name IN ('A', 'b')"))],
    ),
    "partial no more": ([index("name", unique=True, **where("size = 1"))], [index("name", unique=True)]),
    "an expression made partial": ([index("lower(name)")], [index("lower(name)", **where("size = 1"))]),
    "GIN": ([], [index("data", postgresql_using="gin")]),
    "a unique constraint": ([], [lambda table: UniqueConstraint(table.c.name, table.c.size, name="uq")]),
    "a column": ([], [column("more", String(20), server_default="x", nullable=False)]),
    "a longer column": ([], [column("name", String(80), nullable=False)]),
    "another type": ([], [column("size", Numeric(10, 2))]),
    "not null": ([], [column("size", Integer, nullable=False)]),
    "a default": ([], [column("size", Integer, server_default="7")]),
    "another default": (
        [column("at", DateTime(timezone=True), server_default=func.now())],
        [column("at", DateTime(timezone=True), server_default=text("'2020-01-01 00:00:00'"))],
    ),
    "no default": ([column("on", Boolean, server_default=text("true"))], [column("on", Boolean)]),
    "no cascade": ([], [column("parent_id", refers_to="parent.id")]),
    "no reference": ([], [column("parent_id", Integer)]),
}


async def test_changes_are_found_made_and_taken_back(database: Database, config: Config) -> None:
    old = tables({case: before for case, (before, _) in CHANGES.items()})
    new = tables({case: after for case, (_, after) in CHANGES.items()})
    await migrate_to(database, config, old)
    set_models(config, new)
    found = await check(database, config=config)
    print("\n".join(found))
    assert [case for case in CHANGES if not any(case in line for line in found)] == []
    revision = await migrate_to(database, config, new)
    await downgrade(database, "-1", config=config)
    await upgrade(database, config=config)
    assert await check(database, config=config) == []
    await downgrade(database, "-1", config=config)
    revision.unlink()
    set_models(config, old)
    assert await check(database, config=config) == []
