"""Revisions that distribute tables: written, executed and taken back, on a cluster and where there is none.

Citus itself is not here: `citus.py` says what stands for it.
"""

import logging
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Column, ForeignKey, ForeignKeyConstraint, Integer, MetaData, Table, text

from catalysis import Database, ModelError
from catalysis.distribution import Distributed, Reference
from catalysis.doctor import examine
from catalysis.migrations import check, downgrade, revise, upgrade
from tests.distribution.citus import create_extension, drop_extension
from tests.distribution.models import Model
from tests.migrations.conftest import config, folder, migrate_to, set_models, sqlite

__all__ = ["config", "folder", "sqlite"]  # fixtures

SHOP, OWN_KEY, EVERYWHERE = Distributed("shop"), Distributed("id"), Reference()


@pytest.fixture
async def cluster(postgres_url: str) -> AsyncIterator[Database]:
    """An empty database that has the extension."""
    with tempfile.TemporaryDirectory(prefix="catalysis-extension-") as folder:
        await create_extension(postgres_url, Path(folder))
    database = Database(postgres_url)
    yield database
    await database.close()
    await drop_extension(postgres_url)


def shops(*, item: Any = SHOP, shop: Any = OWN_KEY, colour: Any = EVERYWHERE, order: bool = True) -> MetaData:
    """Colours that all share; shops; their items and orders."""
    metadata = MetaData()

    def table(name: str, said: Any, *things: Any) -> None:
        Table(name, metadata, *things, info={} if said is None else {"distribution": said})

    def key() -> Column[int]:
        return Column("id", Integer, primary_key=True)

    def of_shop() -> Column[int]:
        return Column("shop", ForeignKey("shop.id"), primary_key=True)

    table("item", item, of_shop(), key(), Column("colour", ForeignKey("colour.id")))
    if order:
        shop_item = ForeignKeyConstraint(["shop", "item"], ["item.shop", "item.id"])
        table("order", item, of_shop(), key(), Column("item", Integer), shop_item)
    table("shop", shop, key())
    table("colour", colour, key())
    return metadata


async def calls(database: Database) -> list[str]:
    """What was asked of the extension, and forgotten now."""
    async with database.engine.begin() as connection:
        found = await connection.scalars(text("SELECT call FROM citus.calls ORDER BY number"))
        await connection.execute(text("DELETE FROM citus.calls"))
        return list(found)


async def placed(database: Database) -> dict[str, str]:
    query = text("SELECT table_name::text, distribution_column FROM citus_tables")
    async with database.engine.connect() as connection:
        return {row.table_name: row.distribution_column for row in await connection.execute(query)}


ALL = {"colour": "<none>", "shop": "id", "item": "shop", '"order"': "shop"}


@pytest.mark.parametrize("written_on", ["cluster", "sqlite", "postgres"])
async def test_one_revision_for_all(
    request: pytest.FixtureRequest, cluster: Database, sqlite: Database, config: Config, written_on: str
):
    """Seen to fail where the order is not that of `sorted_tables`, where `has_citus` is not asked, and where `info` is
    left in what Alembic writes."""
    if written_on == "postgres":
        await drop_extension(cluster.settings.url)
    elsewhere = sqlite if written_on == "sqlite" else cluster
    set_models(config, shops())
    assert all(line.startswith("missing") for line in await check(elsewhere, config=config)), "said once"
    revision = (await migrate_to(elsewhere, config, shops())).read_text()
    assert "info=" not in revision
    assert "catalysis" not in revision
    up, _, down = revision.partition("def downgrade")
    lines = [line.strip() for line in up.splitlines() if "op." in line]
    assert sorted(lines[-4:-2]) == [
        "op.create_distributed_table('shop', 'id')",
        "op.create_reference_table('colour')",
    ]
    assert lines[-2:] == [
        "op.create_distributed_table('item', 'shop')",
        "op.create_distributed_table('order', 'shop')",
    ]
    assert "distribute" not in down, "a table that is dropped takes its shards along"
    if written_on == "cluster":
        assert await placed(cluster) == ALL
        assert len(await calls(cluster)) == 4
    elif written_on == "sqlite":
        await upgrade(cluster, config=config)
        assert await check(cluster, config=config) == []
        assert await placed(cluster) == ALL
    await downgrade(cluster, "base", config=config)
    await upgrade(cluster, config=config)
    if written_on != "postgres":
        assert await placed(cluster) == ALL


async def test_changes_are_found_on_a_cluster(cluster: Database, config: Config):
    await migrate_to(cluster, config, shops(item=None, shop=None, colour=None))
    assert await placed(cluster) == {}
    set_models(config, shops())
    assert await check(cluster, config=config) == [
        "table colour is not a reference table in the database",
        "table shop is not distributed by id in the database",
        "table item is not distributed by shop in the database",
        "table order is not distributed by shop in the database",
    ]
    complaints = [each for each in (await examine(cluster, shops())).complaints if each.code == "D223"]
    assert [each.subject for each in complaints] == ["colour", "item", "order", "shop"]
    assert complaints[1].message == "Table item is not distributed by shop in the database."
    path = await migrate_to(cluster, config, shops())
    assert await placed(cluster) == ALL
    assert (await revise(cluster, "nothing", config=config)) is None
    await calls(cluster)
    await downgrade(cluster, "-1", config=config)
    assert await placed(cluster) == {}
    assert await calls(cluster) == ['undistribute_table "order" and what it is joined to'], (
        "once, as it cascades"
    )
    assert "op.undistribute_table('shop', cascade_via_foreign_keys=True)" in path.read_text()
    await upgrade(cluster, config=config)
    assert await placed(cluster) == ALL


async def test_another_distribution_and_back(cluster: Database, config: Config):
    def alone(said: Any) -> MetaData:
        metadata = MetaData()
        columns = [Column(each, Integer, primary_key=True) for each in ("a", "b")]
        Table("alone", metadata, *columns, info={} if said is None else {"distribution": said})
        return metadata

    await migrate_to(cluster, config, alone(Distributed("a")))
    await migrate_to(cluster, config, alone(Distributed("b", "none")))
    assert await placed(cluster) == {"alone": "b"}
    await migrate_to(cluster, config, alone(Reference()))
    assert await placed(cluster) == {"alone": "<none>"}
    await downgrade(cluster, "-1", config=config)
    assert await placed(cluster) == {"alone": "b"}
    await downgrade(cluster, "-1", config=config)
    assert await placed(cluster) == {"alone": "a"}
    await upgrade(cluster, config=config)
    await migrate_to(cluster, config, alone(None))
    assert await placed(cluster) == {}
    assert (await calls(cluster))[-1] == "undistribute_table alone"


async def test_a_table_that_goes_comes_back_as_it_was(cluster: Database, config: Config):
    await migrate_to(cluster, config, shops())
    path = await migrate_to(cluster, config, shops(order=False))
    assert "undistribute" not in path.read_text()
    await downgrade(cluster, "-1", config=config)
    assert await placed(cluster) == ALL


async def test_without_citus_it_is_said(postgres: Database, config: Config, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, logger="catalysis.migrations"):
        await migrate_to(postgres, config, shops())
    assert "create_reference_table('colour') was passed over: this database has no Citus" in caplog.text


async def test_what_no_cluster_takes_is_not_written(sqlite: Database, config: Config):
    set_models(config, shops(shop=None))
    with pytest.raises(ModelError, match="'item' is distributed, and 'shop' is local"):
        await revise(sqlite, "wrong", config=config)


async def test_offline_the_question_is_written_down(
    cluster: Database, config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    await migrate_to(cluster, config, shops())
    await downgrade(cluster, "base", config=config)
    monkeypatch.setenv("DATABASE_URL", cluster.settings.url)
    capsys.readouterr()
    command.upgrade(config, "head", sql=True)
    script = capsys.readouterr().out
    assert "THEN PERFORM create_distributed_table('item', 'shop'); END IF; END $$;" in script
    connection = await asyncpg.connect(cluster.settings.url.replace("+asyncpg", ""))
    await connection.execute(f"DROP TABLE alembic_version; {script}")
    await connection.close()
    assert await placed(cluster) == ALL


async def test_create_all_distributes_on_a_cluster(cluster: Database):
    """Seen to fail where nothing listens to `after_create`."""
    await cluster.create_all(Model.metadata)
    found = await placed(cluster)
    assert found == {
        "country": "<none>",
        "organisation": "id",
        "label": "organisation_id",
        "note": "organisation_id",
        "project": "organisation_id",
        "review": "organisation_id",
        "task": "organisation_id",
    }
    assert "create_distributed_table label by organisation_id, organisation" in await calls(cluster)
    await cluster.drop_all(Model.metadata)
    assert await placed(cluster) == {}


async def test_names_that_need_quotes(cluster: Database):
    metadata = MetaData(schema="It's")
    Table(
        "Beside",
        metadata,
        Column("Key", Integer, primary_key=True),
        info={"distribution": Distributed("Key")},
    )
    beside = Distributed("Own key", colocate_with="Beside")
    Table("A table", metadata, Column("Own key", Integer, primary_key=True), info={"distribution": beside})
    async with cluster.engine.begin() as connection:
        await connection.execute(text("""CREATE SCHEMA "It's" """))
    await cluster.create_all(metadata)
    assert await placed(cluster) == {'''"It's"."Beside"''': "Key", '''"It's"."A table"''': "Own key"}
    await cluster.drop_all(metadata)


async def test_create_all_says_what_no_cluster_takes(postgres: Database):
    with pytest.raises(ModelError, match="'item' is distributed, and 'shop' is local"):
        await postgres.create_all(shops(shop=None))
