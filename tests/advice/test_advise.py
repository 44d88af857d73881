"""Advice on real databases: what is proposed is proved, and nothing of a trial stays."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from io import StringIO
from typing import Any

import pytest
from rich.console import Console
from sqlalchemy import Select, String, delete, func, insert, or_, select, type_coerce, update
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.exc import DBAPIError

from catalysis import Database
from catalysis.advice import Advice, Statement, Workload, advise, gather_workload
from catalysis.advice.catalog import read_catalog
from catalysis.advice.figures import with_assumed_limit
from catalysis.advice.printing import as_tables
from catalysis.advice.proving import Made
from catalysis.errors import AdviceError
from tests.advice.shop import NOON, customer, order

o = order.c


async def sent(database: Database, statements: Sequence[Any], *, keep_parameters: bool = False) -> Workload:
    with gather_workload(database, keep_parameters=keep_parameters) as workload:
        async with database.engine.connect() as connection:
            for each in statements:
                await connection.execute(each)
            await connection.rollback()
    return workload


async def advice_for(
    database: Database, *statements: Any, keep_parameters: bool = False, **options: Any
) -> Advice:
    workload = await sent(database, statements, keep_parameters=keep_parameters)
    return await advise(database, workload, **{"in_transaction": True, **options})


async def names(database: Database) -> list[str]:
    async with database.engine.connect() as connection:
        return sorted(each.name for each in (await read_catalog(connection)).indexes)


def proposed(advice: Advice) -> list[str]:
    return [each.ddl.partition(" ON ")[2] for each in advice.indexes]


OF_CUSTOMER = select(order).where(o.customer_id == 5)
NEWEST = OF_CUSTOMER.where(o.deleted_at.is_(None)).order_by(o.placed_at.desc()).limit(10)


async def test_one_index_for_what_is_asked(shop: Database):
    before = await names(shop)
    advice = await advice_for(shop, OF_CUSTOMER, select(order).where(o.id == 3))
    assert proposed(advice) == ['"order" (customer_id)']
    [index] = advice.indexes
    [gain] = index.gains
    assert [each.indexes for each in sorted(advice.statements, key=lambda each: -len(each.indexes))] == [
        ("ix_order_customer_id",),
        (),
    ]
    assert "ix_order_customer_id" in gain.plan_after
    assert "ix_order_customer_id" not in gain.plan_before
    if advice.dialect == "postgresql":
        assert gain.before is not None
        assert gain.after is not None
        assert gain.before >= 10 * gain.after
        assert gain.without == gain.before
        assert (index.size or 0) > 100_000
        assert index.ddl.startswith("CREATE INDEX CONCURRENTLY ix_order_customer_id ON")
    else:
        assert (gain.before, gain.after, index.size) == (None, None, None)
        assert "SCAN order" in gain.plan_before
        assert "SEARCH order USING INDEX" in gain.plan_after
    assert await names(shop) == before


async def test_an_index_that_serves_two_statements(shop: Database):
    advice = await advice_for(shop, OF_CUSTOMER, NEWEST)
    assert len(advice.indexes) == 1
    assert len(advice.indexes[0].gains) == 2


async def test_once_it_is_made_nothing_more_is_proposed(shop: Database):
    first = await advice_for(shop, OF_CUSTOMER, NEWEST, select(order).order_by(o.placed_at).limit(5))
    async with shop.engine.begin() as connection:
        for each in first.indexes:
            await connection.exec_driver_sql(each.definition.ddl(connection.dialect))
    again = await advice_for(shop, OF_CUSTOMER, NEWEST, select(order).order_by(o.placed_at).limit(5))
    assert len(first.indexes) == 2
    assert again.indexes == ()


async def test_the_first_rows_of_an_order(shop: Database):
    advice = await advice_for(
        shop, select(order).order_by(o.placed_at).limit(5), select(func.max(o.placed_at))
    )
    assert proposed(advice) == ['"order" (placed_at)']


async def test_the_first_rows_of_what_is_rare(shop: Database):
    """Walking along all orders for those of one customer would go far."""
    statement = select(order).where(o.customer_id == 5).order_by(o.text.desc()).limit(3)
    [index] = (await advice_for(shop, statement)).indexes
    assert index.definition.keys[0].sql == "customer_id"


async def test_both_sides_of_an_or_need_an_index(shop: Database):
    advice = await advice_for(shop, select(order).where(or_(o.customer_id == 5, o.text == "x")))
    assert sorted(proposed(advice)) == ['"order" (customer_id)', '"order" (text)']


async def test_what_a_delete_makes_the_server_look_for(shop: Database):
    advice = await advice_for(shop, delete(customer).where(customer.c.id == -1))
    assert proposed(advice) == ['"order" (customer_id)']
    assert (advice.indexes[0].gains[0].statement.derived_from or "").startswith("DELETE FROM customer")


async def test_changes_count_as_writes(shop: Database):
    row = {"id": -1, "email": "x", "city": "y"}
    statements = [update(order).where(o.customer_id == -5).values(text="x"), insert(customer).values(row)]
    advice = await advice_for(shop, *statements)
    assert [(each.ddl.partition(" ON ")[2], each.writes) for each in advice.indexes] == [
        ('"order" (customer_id)', 1)
    ]


async def test_small_tables_and_unselective_columns_need_none(shop: Database):
    async with shop.engine.begin() as connection:
        await connection.exec_driver_sql("CREATE TABLE tiny (id integer PRIMARY KEY, a integer)")
        await connection.exec_driver_sql("INSERT INTO tiny VALUES (1, 2)")
    workload = Workload([Statement("SELECT tiny.id FROM tiny WHERE tiny.a = 3")])
    workload.add(Statement('SELECT "order".id, "order".text FROM "order" WHERE "order".state = \'shipped\''))
    advice = await advise(shop, workload, in_transaction=True)
    assert advice.indexes == ()
    assert len(advice.statements) == 2


async def test_without_a_way_to_prove_nothing_is_advised(shop: Database):
    advice = await advice_for(shop, OF_CUSTOMER, select(order).where(o.id == 3), in_transaction=False)
    assert advice.indexes == ()
    assert [each.ddl.partition(" ON ")[2] for each in advice.unproved] == ['"order" (customer_id)']
    assert "--prove-here" in advice.unproved[0].reason
    assert advice.unproved[0].statements[0].sql.startswith("SELECT")


async def test_what_is_not_analysed_is_said(shop: Database):
    workload = Workload(
        map(
            Statement,
            ("SELECT ((", 'SELECT "order".nothing FROM "order"', "SELECT x.a FROM elsewhere x", "SELECT 1"),
        )
    )
    advice = await advise(shop, workload, in_transaction=True)
    assert len(advice.skipped) == 4
    assert advice.statements == ()
    assert all(each.reason for each in advice.skipped)


async def test_tables_in_other_schemas(postgres_shop: Database):
    async with postgres_shop.engine.begin() as connection:
        await connection.exec_driver_sql('CREATE SCHEMA "Else Where"')
        await connection.exec_driver_sql('CREATE TABLE "Else Where"."Thing" AS SELECT * FROM "order"')
        await connection.exec_driver_sql('ANALYZE "Else Where"."Thing"')
    sql = 'SELECT * FROM "Else Where"."Thing" WHERE "Else Where"."Thing".'
    try:
        workload = Workload(Statement(f"{sql}{each} = $1") for each in ("customer_id", "id", "lower(text)"))
        workload.add(Statement(f"{sql}text = $1"))
        advice = await advise(postgres_shop, workload, in_transaction=True)
    finally:
        async with postgres_shop.engine.begin() as connection:
            await connection.exec_driver_sql('DROP SCHEMA "Else Where" CASCADE')
    assert sorted(proposed(advice)) == [
        f'"Else Where"."Thing" ({each})' for each in ("customer_id", "id", "text")
    ]
    assert all((each.size or 0) > 100_000 for each in advice.indexes)


async def test_a_low_threshold_has_its_gains(postgres_shop: Database):
    """What is a half and not a tenth is a gain where no more is asked."""
    rare = select(o.text).where(o.state == "open")
    advice = await advice_for(postgres_shop, rare, at_least=1.5)
    [index] = advice.indexes
    [gain] = index.gains
    assert gain.before is not None
    assert gain.after is not None
    assert 1.5 <= gain.before / gain.after < 2, (gain.before, gain.after)
    Console(file=StringIO()).print(as_tables(advice))


async def test_a_threshold_of_ones_own(postgres_shop: Database):
    rare = select(o.text).where(o.state == "open")
    assert (await advice_for(postgres_shop, rare, at_least=1_000_000)).indexes == ()
    assert len((await advice_for(postgres_shop, rare, at_least=1.5)).indexes) == 1


async def test_values_make_another_plan_than_any_value(postgres_shop: Database):
    """Of two states one order in 200 is open; without a value the planner takes half of all for asked."""
    rare = select(order).where(o.state == "open")
    assert (await advice_for(postgres_shop, rare)).indexes == ()
    found = await advice_for(postgres_shop, rare, keep_parameters=True)
    assert proposed(found) == ['"order" (state)']


async def test_containment(postgres_shop: Database):
    notes, tags = type_coerce(o.notes, JSONB), type_coerce(o.tags, ARRAY(String))
    statements: list[Select[Any]] = [
        select(order).where(notes.contains({"gift": 3})),
        select(order).where(tags.contains(["tag4"])),
    ]
    advice = await advice_for(postgres_shop, *statements, keep_parameters=True, at_least=5)
    assert set(proposed(advice)) == {
        '"order" USING gin (notes jsonb_path_ops)',
        '"order" USING gin (tags)',
    }


async def test_trigrams_only_where_the_extension_is(postgres_shop: Database):
    searched = select(order).where(o.text.ilike("%order 3117%"))
    without = await advice_for(postgres_shop, searched, keep_parameters=True)
    assert without.indexes == ()
    assert "pg_trgm is not there" in without.remarks[0]
    async with postgres_shop.engine.begin() as connection:
        await connection.exec_driver_sql("CREATE EXTENSION pg_trgm")
    there = await advice_for(postgres_shop, searched, keep_parameters=True, at_least=5)
    assert proposed(there) == ['"order" USING gin (text gin_trgm_ops)']


async def test_expressions_are_judged_with_statistics(postgres_shop: Database):
    """Without, the planner takes one row in 200 for found; here it is one in 20,000."""
    advice = await advice_for(postgres_shop, select(o.id).where(func.lower(o.text) == "x"))
    assert [each.lower() for each in proposed(advice)] == ['"order" ((lower(text)))']


async def test_partial_where_the_statement_says_it(postgres_shop: Database):
    advice = await advice_for(
        postgres_shop, select(func.count()).select_from(order).where(~o.paid, o.deleted_at.is_(None))
    )
    assert len(advice.indexes) == 1


async def test_a_column_of_a_key_that_cannot_be_indexed(postgres_shop: Database):
    """A value larger than a third of a page ends CREATE INDEX: that candidate is not proved, the others are."""
    async with postgres_shop.engine.begin() as connection:
        await connection.exec_driver_sql('ALTER TABLE "order" ADD long text')
        await connection.exec_driver_sql(
            "UPDATE \"order\" SET long = (SELECT string_agg(md5(n::text), '') FROM generate_series(1, 500) n) "
            "WHERE id = 7"
        )
    async with postgres_shop.engine.connect() as connection:
        autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await autocommit.exec_driver_sql("VACUUM ANALYZE")
    workload = Workload(
        [
            Statement('SELECT * FROM "order" WHERE "order".long = $1'),
            Statement('SELECT * FROM "order" WHERE "order".customer_id = $1'),
        ]
    )
    advice = await advise(postgres_shop, workload, in_transaction=True)
    assert proposed(advice) == ['"order" (customer_id)']
    assert "cannot be made: index row" in advice.unproved[0].reason


async def test_rows_changed_a_moment_ago(postgres_shop: Database):
    """Old versions of rows hold a new index back while somebody may still see them."""
    async with postgres_shop.engine.connect() as reader:
        await reader.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await reader.execute(select(func.count()).select_from(customer))
        async with postgres_shop.engine.begin() as writer:
            await writer.execute(update(order).where(o.id < 50).values(text="other"))
        advice = await advice_for(postgres_shop, OF_CUSTOMER)
        await reader.rollback()
    assert advice.indexes == ()
    assert "VACUUM" in advice.unproved[0].reason


async def test_a_trial_waits_for_a_lock_not_long(postgres_shop: Database):
    async with postgres_shop.engine.connect() as writer:
        await writer.execute(update(order).where(o.id == 1).values(text="x"))
        advice = await advice_for(postgres_shop, OF_CUSTOMER)
        await writer.rollback()
    assert advice.indexes == ()
    assert "lock" in advice.unproved[0].reason


@pytest.mark.parametrize("in_transaction", [False, True])
async def test_a_locked_table_is_not_waited_for_either(postgres_shop: Database, in_transaction: bool):
    """The catalog's own functions wait for it, before any trial begins."""
    async with postgres_shop.engine.connect() as migration:
        await migration.exec_driver_sql('LOCK TABLE "order" IN ACCESS EXCLUSIVE MODE')
        with pytest.raises(AdviceError, match="locked"):
            async with asyncio.timeout(20):
                await advise(postgres_shop, Workload(), in_transaction=in_transaction)
        await migration.rollback()


@pytest.mark.parametrize("closed", [False, True])
async def test_a_trial_that_is_cancelled_says_so_and_leaves_nothing(
    shop: Database, monkeypatch: pytest.MonkeyPatch, closed: bool
):
    """The connection may be closed by then, which is not what is to be told."""
    workload = await sent(shop, [OF_CUSTOMER, NEWEST])
    before = await names(shop)
    really, reached = Made.only, asyncio.Event()

    @asynccontextmanager
    async def slow(self: Made, numbers: frozenset[int]) -> AsyncGenerator[None]:
        async with really(self, numbers):
            if self.names:
                asyncio.get_running_loop().call_later(0.2, reached.set)
            if self.names and shop.engine.dialect.name == "postgresql":
                if closed:  # as explain_sql() leaves it when it cannot undo
                    (await self.connection.get_raw_connection()).driver_connection.terminate()
                else:
                    await self.connection.exec_driver_sql("SELECT pg_sleep(30)")
            if self.names:
                await asyncio.sleep(30)
            yield

    monkeypatch.setattr(Made, "only", slow)
    advising = asyncio.create_task(advise(shop, workload, in_transaction=True))
    await reached.wait()
    advising.cancel()
    with pytest.raises(asyncio.CancelledError):
        await advising
    assert await names(shop) == before
    async with shop.engine.begin() as connection:
        await connection.execute(insert(customer).values(id=-7, email="x", city="y"))


async def test_a_trial_that_breaks_leaves_nothing(shop: Database, monkeypatch: pytest.MonkeyPatch):
    before = await names(shop)

    async def breaks(self: Made, number: int) -> int:
        raise RuntimeError("in the middle")

    monkeypatch.setattr(Made, "size", breaks)
    with pytest.raises(RuntimeError, match="in the middle"):
        await advice_for(shop, OF_CUSTOMER)
    assert await names(shop) == before
    async with shop.engine.begin() as connection:  # and nobody holds a lock
        await connection.execute(insert(customer).values(id=-7, email="x", city="y"))


async def test_indexes_that_could_go(shop: Database):
    async with shop.engine.begin() as connection:
        await connection.exec_driver_sql('CREATE INDEX first ON "order" (state)')
        await connection.exec_driver_sql('CREATE INDEX second ON "order" (state, placed_at)')
    advice = await advise(shop, Workload(), unused_days=1)
    assert [(each.name, each.reason) for each in advice.to_drop] == [
        ("first", "its columns are the first of second, which serves the same searches")
    ]


@pytest.mark.parametrize("where", ["where", "\n  WHERE", "WHERE"])
async def test_a_partial_index_is_known_for_one_however_it_is_written(shop: Database, where: str):
    """SQLite keeps the text of CREATE INDEX as it was."""
    async with shop.engine.begin() as connection:
        await connection.exec_driver_sql('CREATE INDEX whole ON "order" (customer_id)')
        await connection.exec_driver_sql(f'CREATE INDEX few ON "order" (text) {where} deleted_at IS NULL')
        await connection.exec_driver_sql(
            f'CREATE INDEX part ON "order" (customer_id, id) {where} deleted_at IS NULL'
        )
    advice = await advice_for(shop, OF_CUSTOMER, select(order).where(o.text == "x"))
    assert proposed(advice) == ['"order" (text)']
    assert advice.to_drop == ()


async def test_unused_indexes(postgres_shop: Database):
    async with postgres_shop.engine.begin() as connection:
        await connection.exec_driver_sql('CREATE INDEX idle ON "order" (state)')
    await advise(postgres_shop, Workload(), unused_days=0)
    [found] = (await advise(postgres_shop, Workload(), unused_days=0)).to_drop
    assert found.name == "idle"
    assert (found.size or 0) > 8192


async def test_no_value_is_in_what_is_said(postgres_shop: Database):
    advice = await advice_for(
        postgres_shop,
        select(order).where(o.text == "secret of mine"),
        select(o.id).where(o.placed_at > NOON),
        keep_parameters=True,
    )
    said = repr((advice.indexes, advice.statements, advice.skipped, advice.unproved))
    plans = [gain.plan_after for each in advice.indexes for gain in each.gains]
    assert "secret of mine" not in said.replace("\\", "")
    assert plans


def test_a_limit_nobody_knows():
    assert with_assumed_limit("SELECT a WHERE b = $1 LIMIT $2::BIGINT OFFSET $3 FOR UPDATE") == (
        "SELECT a WHERE b = $1 LIMIT 100 OFFSET 0 FOR UPDATE"
    )
    assert with_assumed_limit("SELECT (SELECT a LIMIT $1) WHERE b = $2 LIMIT $3") == (
        "SELECT (SELECT a LIMIT 100) WHERE b = $1 LIMIT 100"
    )
    assert with_assumed_limit("SELECT $1 LIMIT $1") == "SELECT $1 LIMIT $1"
    assert with_assumed_limit("SELECT a LIMIT 5") == "SELECT a LIMIT 5"


async def test_a_database_without_advice():
    class Elsewhere:
        class dialect:
            name = "mysql"

    with pytest.raises(AdviceError, match="mysql"):
        await read_catalog(Elsewhere())  # pyright: ignore[reportArgumentType] - what it is for is asked of it alone


async def test_a_role_that_may_not_make_indexes(postgres_shop: Database):
    async with postgres_shop.engine.begin() as connection:
        await connection.exec_driver_sql(
            "DO $$ BEGIN CREATE ROLE advised LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
        )
        await connection.exec_driver_sql("GRANT USAGE ON SCHEMA public TO advised")
        await connection.exec_driver_sql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO advised")
    workload = await sent(postgres_shop, [OF_CUSTOMER])
    other = Database(postgres_shop.settings.url.replace("postgres@", "advised@"))
    try:
        advice = await advise(other, workload, in_transaction=True)
    except DBAPIError as failure:
        pytest.fail(str(failure))
    finally:
        await other.close()
    assert advice.indexes == ()
    assert "must be owner" in advice.unproved[0].reason
