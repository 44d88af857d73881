"""Advice on the statements that the starter really sends, over many rows.

What is claimed is looked at again without the code that claims it: the indexes are made, and left out one by one.
"""

from collections.abc import Mapping

import pytest
from bench.advice import as_markdown, starter_workload
from bench.starter_rows import drop_secondary_indexes, fill
from sqlalchemy.ext.asyncio import AsyncConnection

from catalysis import Database
from catalysis.advice import Advice, Workload, advise
from catalysis.tools.explain_sql import explain_sql

SHAPES = 20


async def costs(connection: AsyncConnection, workload: Workload) -> Mapping[str, float]:
    """The planner's cost of each statement, for any values, with what is there now."""
    found: dict[str, float] = {}
    for each in workload.statements:
        cost = (await explain_sql(connection, each.sql)).root.total_cost
        assert cost is not None
        found[each.sql] = cost
    return found


async def assert_proved(database: Database, workload: Workload, advice: Advice) -> None:
    async with database.engine.connect() as connection:
        before = await costs(connection, workload)
        for index in advice.indexes:
            await connection.exec_driver_sql(index.definition.ddl(connection.dialect, name=index.name))
        after = await costs(connection, workload)
        for index in advice.indexes:
            savepoint = await connection.begin_nested()
            await connection.exec_driver_sql(f"DROP INDEX {index.name}")
            without = await costs(connection, workload)
            await savepoint.rollback()
            assert max(before[sql] / after[sql] for sql in after) >= 10
            assert max(without[sql] / after[sql] for sql in after) >= 10, f"{index.name} is redundant"
            for gain in index.gains:
                assert gain.after == pytest.approx(after[gain.statement.sql])
                assert gain.without == pytest.approx(without[gain.statement.sql])
                assert before[gain.statement.sql] / after[gain.statement.sql] >= 2
        await connection.rollback()
    for each in advice.statements:
        if not each.indexes:  # it has no index, and nothing would have been gained for it by those of others
            assert before[each.statement.sql] / after[each.statement.sql] < 10
    keys = [each for each in advice.statements if (each.before or 0) < 40]
    assert len(keys) >= 8, "reading by a key needs nothing"
    assert all(each.indexes == () for each in keys)


async def assert_advice(url: str, tasks: int) -> None:
    database = Database(url)
    try:
        await fill(database, tasks)
        workload = await starter_workload(database)
        assert len(workload) >= SHAPES
        own = await advise(database, workload, in_transaction=True)
        assert own.skipped == ()
        assert len(own.statements) == len(workload)
        await assert_proved(database, workload, own)
        assert sum(not each.indexes for each in own.statements) > len(own.statements) / 2
        dropped = await drop_secondary_indexes(database)
        assert len(dropped) == 8
        bare = await advise(database, workload, in_transaction=True)
        await assert_proved(database, workload, bare)
    finally:
        await database.close()
    print(as_markdown(own), as_markdown(bare), sep="\n\n")
    made = {each.ddl.partition(" ON ")[2] for each in bare.indexes}
    assert "task (created_at)" in made  # as the starter has it
    assert len(bare.indexes) > len(own.indexes)


async def test_thirty_thousand_tasks(postgres_url: str):
    await assert_advice(postgres_url, 30_000)


@pytest.mark.long
async def test_a_million_tasks(postgres_url: str):
    await assert_advice(postgres_url, 1_000_000)
