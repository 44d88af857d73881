"""Advice as a revision, really applied and taken back."""

from pathlib import Path
from typing import Any

import pytest
from alembic.config import Config
from sqlalchemy import select

from catalysis import Database
from catalysis.advice import Advice, Statement, Workload, advise
from catalysis.advice.advise import ProposedIndex
from catalysis.advice.catalog import read_catalog
from catalysis.advice.definitions import IndexDefinition, Key, TableName
from catalysis.advice.revision import model_line, write_revision
from catalysis.errors import AdviceError, MigrationError
from catalysis.migrations import check, downgrade, init_project, load_config, upgrade
from tests.advice.shop import metadata, order
from tests.advice.test_advise import NEWEST, OF_CUSTOMER, advice_for
from tests.migrations.conftest import ENV, set_models

TABLE = TableName("order")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A project whose database is at its newest revision: there is none."""
    root = tmp_path / "project"
    root.mkdir()
    init_project(Path("migrations"), "app.models", root)
    (root / "migrations" / "env.py").write_text(ENV)
    config = load_config(root / "pyproject.toml")
    set_models(config, metadata)
    return config


async def definitions(database: Database) -> dict[str, IndexDefinition]:
    async with database.engine.connect() as connection:
        found = await read_catalog(connection)
    return {each.name: each.definition for each in found.indexes if not each.needed}


def proposing(*definitions: IndexDefinition) -> Advice:
    return Advice(tuple(ProposedIndex(each.name, each, "", (), None, 0, "hypopg") for each in definitions))


async def test_up_and_down(shop: Database, config: Config):
    newest = select(order).order_by(order.c.placed_at).limit(5)
    advice = await advice_for(shop, OF_CUSTOMER, NEWEST, newest)
    path = await write_revision(shop, advice, "what was advised", config=config)
    text = path.read_text()
    assert "autocommit_block()" in text
    assert "postgresql_concurrently=True" in text
    assert await definitions(shop) == {}  # it is written, and not applied
    await upgrade(shop, config=config)
    made = await definitions(shop)
    assert made == {each.name: each.definition for each in advice.indexes}
    assert len(made) == 2
    assert await check(shop, config=config) != []  # until the models have them too
    assert (await advice_for(shop, OF_CUSTOMER, NEWEST, newest)).indexes == ()
    await downgrade(shop, "base", config=config)
    assert await definitions(shop) == {}


SPECIAL = (
    IndexDefinition(TABLE, (Key("customer_id"), Key("placed_at", descending=True))),
    IndexDefinition(TABLE, (Key("state"),), predicate=("NOT paid", "deleted_at IS NULL")),
    IndexDefinition(TABLE, (Key("lower(text)", is_expression=True), Key("id"))),
)
ON_POSTGRESQL = (
    IndexDefinition(TABLE, (Key("customer_id"),), include=("text", "state")),
    IndexDefinition(TABLE, (Key("placed_at", nulls="FIRST"),)),
    IndexDefinition(TABLE, (Key("notes", operator_class="jsonb_path_ops"),), method="gin"),
    IndexDefinition(TABLE, (Key("tags"),), method="gin"),
    IndexDefinition(TABLE, (Key("notes ->> 'a:b'", is_expression=True),)),
    IndexDefinition(TABLE, (Key("text", operator_class="text_pattern_ops"),)),
    IndexDefinition(
        TABLE, (Key("text", operator_class='COLLATE "C" text_pattern_ops', descending=True), Key("state"))
    ),
)


async def test_indexes_of_every_kind(shop: Database, config: Config):
    advice = proposing(*SPECIAL, *(ON_POSTGRESQL if shop.engine.dialect.name == "postgresql" else ()))
    await write_revision(shop, advice, "of every kind", config=config)
    await upgrade(shop, config=config)
    made = await definitions(shop)
    for each in advice.indexes:
        found, wanted = made[each.name], each.definition
        assert (found.include, found.method, len(found.keys)) == (
            wanted.include,
            wanted.method,
            len(wanted.keys),
        )
        assert [k.descending for k in found.keys] == [k.descending for k in wanted.keys]
        assert len(found.predicate) == len(wanted.predicate)
        if shop.engine.dialect.name == "postgresql":
            assert [k.nulls for k in found.keys] == [k.nulls for k in wanted.keys]
    await downgrade(shop, "base", config=config)
    assert await definitions(shop) == {}


@pytest.mark.parametrize("definition", [*SPECIAL, *ON_POSTGRESQL], ids=lambda each: each.name)
async def test_the_line_for_the_model_agrees_with_the_revision(
    postgres_shop: Database, config: Config, definition: IndexDefinition
):
    from sqlalchemy import Index, MetaData, text

    advice = proposing(definition)
    await write_revision(postgres_shop, advice, "one", config=config)
    await upgrade(postgres_shop, config=config)
    assert any(definition.name in each for each in await check(postgres_shop, config=config))
    models = MetaData()
    for table in metadata.tables.values():
        copy = table.to_metadata(models)
        if copy.name == order.name:
            made: Any = eval(model_line(advice.indexes[0]), {"Index": Index, "text": text})
            made._set_parent(copy)
    set_models(config, models)
    assert await check(postgres_shop, config=config) == []


async def test_what_could_go_is_dropped_when_asked(shop: Database, config: Config):
    async with shop.engine.begin() as connection:
        await connection.exec_driver_sql('CREATE INDEX first ON "order" (state)')
        await connection.exec_driver_sql('CREATE INDEX second ON "order" (state, placed_at)')
    advice = await advise(shop, Workload())
    with pytest.raises(AdviceError, match="not to drop second"):
        await write_revision(shop, advice, "drop", config=config, drop=["second"])
    with pytest.raises(AdviceError, match="no index is proposed"):
        await write_revision(shop, advice, "nothing", config=config)
    before = await definitions(shop)
    await write_revision(shop, advice, "drop", config=config, drop=["first"])
    await upgrade(shop, config=config)
    assert list(await definitions(shop)) == ["second"]
    await downgrade(shop, "base", config=config)
    assert await definitions(shop) == before


async def test_a_database_that_is_behind(shop: Database, config: Config):
    advice = proposing(SPECIAL[0])
    await write_revision(shop, advice, "first", config=config)
    with pytest.raises(MigrationError):
        await write_revision(shop, advice, "second", config=config)


ODD = (
    'CREATE SCHEMA "Odd Place"',
    'CREATE TABLE "Odd Place"."Of It" (id int, "Col" int, "order" int, state varchar(10), made date)',
    'CREATE INDEX falls ON "Odd Place"."Of It" ("Col" DESC)',
    'CREATE INDEX falls_on ON "Odd Place"."Of It" ("Col" DESC, "order" DESC)',
    'CREATE INDEX opened ON "Odd Place"."Of It" (id) WHERE state = \'open\' AND made IS NULL',
    'CREATE INDEX opened_on ON "Odd Place"."Of It" (id, made) WHERE state = \'open\' AND made IS NULL',
    'CREATE INDEX patterned ON "Odd Place"."Of It" (state varchar_pattern_ops, made DESC)',
    'CREATE INDEX patterned_on ON "Odd Place"."Of It" (state varchar_pattern_ops, made DESC, id)',
    "CREATE TABLE parted (id int, k int) PARTITION BY LIST (k)",
    "CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1)",
    "CREATE INDEX whole ON parted (id)",
    "CREATE INDEX whole_on ON parted (id, k)",
)


async def test_odd_indexes_go_and_come_back_as_they_were(postgres_shop: Database, config: Config):
    """Names that need quotes, directions with operator classes, conditions with casts, a partitioned table."""

    async def there() -> set[tuple[str, str]]:
        async with postgres_shop.engine.connect() as connection:
            found = await connection.exec_driver_sql(
                "SELECT indexname, indexdef FROM pg_indexes WHERE tablename <> 'alembic_version'"
            )
            return {(row[0], row[1]) for row in found}

    async with postgres_shop.engine.begin() as connection:
        for each in ODD:
            await connection.exec_driver_sql(each)
    try:
        before = await there()
        advice = await advise(postgres_shop, Workload())
        names = ["falls", "opened", "patterned", "whole"]
        assert sorted(each.name for each in advice.to_drop) == names  # parts of `whole` go with it alone
        await write_revision(postgres_shop, advice, "drop", config=config, drop=names)
        await upgrade(postgres_shop, config=config)
        assert not {name for name, _ in await there()} & set(names)
        await downgrade(postgres_shop, "base", config=config)
        assert await there() == before
    finally:
        async with postgres_shop.engine.begin() as connection:
            await connection.exec_driver_sql('DROP SCHEMA "Odd Place" CASCADE')


async def test_an_index_of_a_partitioned_table_is_not_made_concurrently(
    postgres_shop: Database, config: Config
):
    async with postgres_shop.engine.begin() as connection:
        for each in ODD[8:10]:
            await connection.exec_driver_sql(each)
        await connection.exec_driver_sql("INSERT INTO parted SELECT n, 1 FROM generate_series(1, 20000) AS n")
        await connection.exec_driver_sql("ANALYZE parted")
    workload = Workload([Statement("SELECT * FROM parted WHERE parted.id = $1")])
    advice = await advise(postgres_shop, workload, in_transaction=True)
    assert [each.ddl for each in advice.indexes] == ["CREATE INDEX ix_parted_id ON parted (id)"]
    await write_revision(postgres_shop, advice, "parted", config=config)
    await upgrade(postgres_shop, config=config)
    assert "ix_parted_id" in await definitions(postgres_shop)
    await downgrade(postgres_shop, "base", config=config)
    assert "ix_parted_id" not in await definitions(postgres_shop)
