"""From models to revisions and back, on both databases."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic.config import Config
from sqlalchemy import (
    ARRAY,
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Dialect, make_url
from sqlalchemy.types import CHAR, TypeDecorator
from sqlmodel import AutoString

from catalysis.database import Database
from catalysis.errors import MigrationError
from catalysis.migrations import check as differences
from catalysis.migrations import downgrade, revise, upgrade
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
            Column("data", JSON().with_variant(postgresql.JSONB(), "postgresql")),
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


def check(condition: str, name: str = "size") -> Change:
    return lambda table: table.append_constraint(CheckConstraint(condition, name=name))


def column(name: str, *type_: Any, refers_to: str = "", **kwargs: Any) -> Change:
    """Another column, or one in the place of that of its name."""

    def change(table: Table) -> None:
        reference = [ForeignKey(refers_to)] if refers_to else []
        table.append_column(Column(name, *type_, *reference, **kwargs), replace_existing=True)

    return change


async def test_models_and_what_their_revision_makes_do_not_differ(database: Database, config: Config) -> None:
    set_models(config, METADATA)
    missing = await differences(database, config=config)
    assert "missing in the database: table task" in missing
    assert "missing in the database: enum status" in missing
    revision = await migrate_to(database, config, METADATA)
    assert "sqlmodel" not in revision.read_text()
    assert await revise(database, "nothing", config=config) is None
    await downgrade(database, "base", config=config)
    await upgrade(database, config=config)
    assert await differences(database, config=config) == []


@pytest.mark.parametrize("found_on", ["sqlite", "postgres"])
async def test_what_one_database_found_the_other_runs(
    sqlite: Database, postgres: Database, config: Config, found_on: str
) -> None:
    first, other = (sqlite, postgres) if found_on == "sqlite" else (postgres, sqlite)
    await migrate_to(first, config, METADATA)
    await upgrade(other, config=config)
    assert await differences(other, config=config) == []
    await downgrade(other, "base", config=config)
    await upgrade(other, config=config)
    assert await differences(other, config=config) == []


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
    "over a new column": ([index("name")], [column("more", String), index("more", **where("more > 'a'"))]),
    "GIN": ([], [index("data", postgresql_using="gin")]),
    "a unique constraint": ([], [lambda table: UniqueConstraint(table.c.name, table.c.size, name="uq")]),
    "a check": ([], [check("size > 0")]),
    "no check": ([check("size > 0"), check("name <> ''", "other")], [check("size > 0")]),
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


@pytest.mark.parametrize("found_on", ["sqlite", "postgres"])
async def test_changes_are_found_made_and_taken_back(
    sqlite: Database, postgres: Database, config: Config, found_on: str
) -> None:
    database, other = (sqlite, postgres) if found_on == "sqlite" else (postgres, sqlite)
    old = tables({case: before for case, (before, _) in CHANGES.items()})
    new = tables({case: after for case, (_, after) in CHANGES.items()})
    await migrate_to(database, config, old)
    set_models(config, new)
    found = await differences(database, config=config)
    assert [case for case in CHANGES if not any(case in line for line in found)] == []
    revision = await migrate_to(database, config, new)
    await upgrade(other, config=config)
    assert await differences(other, config=config) == []
    await downgrade(database, "-1", config=config)
    revision.unlink()
    set_models(config, old)
    assert await differences(database, config=config) == []


class Compact(TypeDecorator[str]):
    """A type that is stored differently on each database."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        return CHAR(32) if dialect.name == "sqlite" else postgresql.UUID()


async def test_types_are_written_as_they_are_stored(database: Database, config: Config) -> None:
    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    types = {
        "a": AutoString(length=9),
        "b": Compact(),
        "c": JSON(),
        "d": ARRAY(String).with_variant(JSON(), "sqlite"),
    }
    Table(
        "t",
        metadata,
        Column("id", Integer, primary_key=True),
        *(Column(name, type_) for name, type_ in types.items()),
    )
    source = (await migrate_to(database, config, metadata)).read_text()
    assert "sa.Column('a', sa.String(length=9)" in source
    assert "sa.Column('b', sa.CHAR(length=32).with_variant(sa.Uuid(), 'postgresql')" in source
    gone = (await migrate_to(database, config, MetaData())).read_text()
    assert "catalysis" not in source + gone
    assert "tests." not in source + gone
    await downgrade(database, "base", config=config)
    await upgrade(database, config=config)


async def test_what_the_project_leaves_out_is_left_alone(
    database: Database, config: Config, folder: Path
) -> None:
    def include(item: Any, name: str, kind: str, reflected: bool, compare_to: Any) -> bool:
        return not name.startswith("ix ")

    config.attributes["options"] = {"include_object": include}
    await migrate_to(database, config, tables({"t": []}))
    set_models(config, tables({"t": [index("lower(name)")]}))
    assert await differences(database, config=config) == []


async def test_tables_go_after_those_that_refer_to_them(database: Database, config: Config) -> None:
    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    for number in range(9):
        before = Column("before", ForeignKey(f"t{number - 1}.id")) if number else Column("before", Integer)
        Table(f"t{number}", metadata, Column("id", Integer, primary_key=True), before)
    await migrate_to(database, config, metadata)
    await migrate_to(database, config, MetaData())
    await downgrade(database, "-1", config=config)
    await upgrade(database, config=config)


async def test_the_server_says_whether_indexes_are_the_same(postgres: Database, config: Config) -> None:
    metadata = tables({"t": [index("name", **where("name IN ('a', 'b') AND NOT size = 1"))]})
    await migrate_to(postgres, config, metadata)
    async with postgres.engine.begin() as connection:
        await connection.execute(text('ALTER INDEX "ix t" RENAME TO old'))
        definition = str(await connection.scalar(text("SELECT pg_get_indexdef('old'::regclass)")))
        await connection.execute(text("DROP INDEX old"))
        await connection.execute(text(definition.replace(" old ", ' "ix t" ')))
    assert await differences(postgres, config=config) == []


async def test_a_role_that_may_only_read_can_check(postgres: Database, config: Config) -> None:
    url = make_url(postgres.settings.url)
    role = f"reader_{url.database}"
    reader = Database(url.set(username=role))

    async def run(*statements: str) -> None:
        async with postgres.engine.begin() as connection:
            for statement in statements:
                await connection.execute(text(statement))

    await run(
        f"DROP ROLE IF EXISTS {role}", f"CREATE ROLE {role} LOGIN", f"GRANT USAGE ON SCHEMA public TO {role}"
    )
    set_models(config, METADATA)
    with pytest.raises(MigrationError, match="The database refuses: permission denied for schema public"):
        await upgrade(reader, config=config)
    await migrate_to(postgres, config, METADATA)
    await run(
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
        f"REVOKE TEMPORARY ON DATABASE {url.database} FROM public",
    )
    assert await differences(reader, config=config) == []
    await reader.close()
    await run(
        f"GRANT TEMPORARY ON DATABASE {url.database} TO public", f"DROP OWNED BY {role}", f"DROP ROLE {role}"
    )
