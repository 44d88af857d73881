"""Trials by a real hypopg: what it says is what an index that is really made does.

It needs a server that has it.  CATALYSIS_TEST_HYPOPG_BIN names its folder of programs; on Debian
`apt-get install postgresql-15 postgresql-15-hypopg` makes it /usr/lib/postgresql/15/bin.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select, text

from catalysis import Database
from catalysis.advice import Workload, advise
from tests.advice.shop import customer, open_shop, order
from tests.advice.test_advise import NEWEST, OF_CUSTOMER, names, o, sent
from tests.servers import PostgresServer

VARIABLE = "CATALYSIS_TEST_HYPOPG_BIN"

pytestmark = pytest.mark.skipif(VARIABLE not in os.environ, reason=f"{VARIABLE} names no server with hypopg")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    server = PostgresServer.start(binaries=Path(os.environ[VARIABLE]))
    yield server
    server.stop()


async def test_it_is_used_and_agrees_with_real_indexes(server: PostgresServer):
    database = Database(server.url())
    await open_shop(database)
    try:
        async with database.engine.begin() as connection:
            await connection.exec_driver_sql("CREATE EXTENSION hypopg")
        statements = [
            OF_CUSTOMER,
            NEWEST,
            select(order).order_by(o.placed_at).limit(5),
            select(order).join(customer).where(customer.c.email == "Person3@example.org"),
            select(func.count()).select_from(order).where(o.text == "x", o.deleted_at.is_(None)),
        ]
        workload: Workload = await sent(database, statements)
        before = await names(database)
        pretended = await advise(database, workload)
        made = await advise(database, workload, in_transaction=True)
        assert await names(database) == before
        async with database.engine.connect() as connection:  # the one that was used, from the pool
            assert await connection.scalar(text("SELECT count(*) FROM hypopg()")) == 0
            assert await connection.scalar(text("SHOW lock_timeout")) == "0"
    finally:
        await database.close()
    assert {each.proved_by for each in pretended.indexes} == {"hypopg"}
    assert {each.proved_by for each in made.indexes} == {"transaction"}
    assert {each.definition for each in pretended.indexes} == {each.definition for each in made.indexes}
    assert len(made.indexes) >= 3
    costs = {gain.statement.sql: gain.after for each in made.indexes for gain in each.gains}
    for index in pretended.indexes:
        assert (index.size or 0) > 8192
        for gain in index.gains:
            assert gain.after == pytest.approx(costs[gain.statement.sql], rel=0.5)


async def test_what_hypopg_cannot_pretend_is_not_proved(server: PostgresServer):
    database = Database(server.url("template1"))
    try:
        await open_shop(database)
        async with database.engine.begin() as connection:
            await connection.exec_driver_sql("CREATE EXTENSION hypopg")
        workload = await sent(database, [select(order).where(o.notes.op("@>")({"gift": 3}))])
        advice = await advise(database, workload)
    finally:
        await database.close()
    assert advice.indexes == ()
    assert {each.definition.method for each in advice.unproved} == {"gin"}
    assert "hypopg cannot pretend it" in advice.unproved[0].reason
