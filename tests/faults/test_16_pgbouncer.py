"""16. PgBouncer in transaction mode (`DatabaseSettings.pooler="transaction"`) is a tested configuration.

Mutations seen to fail, each in `connect_args` unless another place is named:
- no `statement_cache_size=0`: what asyncpg asks by itself is left behind, prepared by name;
- no `prepared_statement_cache_size=0`: a changed column is read as it was (1065353216 for 1.0);
- neither of them: "unnamed prepared statement does not exist"; nor the name function: named ones, and they are left;
- settings are sent to the pooler: "unsupported startup parameter";
- `prepare` sets `transaction_timeout` here too: it is left on the pooler's connections.

The name function alone is missed with asyncpg 0.30 (statements that the server does not have), and not with 0.31 and
later, which name none by themselves where they keep none.  A read needs no transaction of its own: asyncpg ends
preparing with Flush, so that the pooler keeps the server until the Sync of the execution; and where it has asked for
types in between, it parses the statement again together with the execution.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import column, func, table, text
from sqlalchemy.orm import selectinload
from sqlmodel import select

from catalysis import (
    Database,
    DatabaseSettings,
    NoAnswer,
    Session,
    bulk_insert,
    paginate,
    paginate_keyset,
    upsert,
)
from tests.faults.checks import goes_on, names, seen_from_outside
from tests.models import Job, Label, Person, made
from tests.proxy import counted
from tests.servers import PgBouncer

WORKER = """
import asyncio, sys
from sqlalchemy import func, text
from sqlmodel import select
from catalysis import Database, DatabaseSettings
from tests.models import Label

async def main(url, number, statements):
    database = Database(DatabaseSettings(url=url, pooler="transaction", pool_size=5, pool_timeout=60))
    left = int(statements)
    async def lane(lane):
        nonlocal left
        while left > 0:
            left -= 5
            name = f"{number} {lane} {left}"
            async with database.session() as session:
                session.add(label := Label(name=name))
                await session.commit()
                await session.refresh(label)
            async with database.session() as session:
                found = (await session.exec(select(Label).where(Label.name == name))).one()
                assert (await session.exec(select(func.lower(Label.name)).where(Label.id == found.id))).one() == name
                assert (await session.execute(text("SELECT :n"), {"n": name})).scalar_one() == name
    await asyncio.gather(*[lane(n) for n in range(5)])
    await database.close()

asyncio.run(main(*sys.argv[1:]))
"""


LEFT = """
SELECT name FROM pg_prepared_statements WHERE name <> ''
UNION ALL SELECT name FROM pg_settings WHERE source = 'session' AND name LIKE '%timeout'
"""


async def left_on_servers(pooled: str, connections: int = 4) -> list[str]:
    """Names of statements and bounds that were left on the pooler's connections, each asked while all are held."""
    database = Database(DatabaseSettings(url=pooled, pooler="transaction", pool_size=connections))
    barrier = asyncio.Barrier(connections)

    async def look() -> tuple[int, list[str]]:
        async with database.engine.begin() as connection:
            pid = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
            await barrier.wait()
            rows = await connection.execute(text(LEFT))
            return pid, list(rows.scalars())

    async with asyncio.timeout(30):
        found = await asyncio.gather(*[look() for _ in range(connections)])
    await database.close()
    assert len({pid for pid, _ in found}) == connections, "every connection was looked at"
    return [name for _, left in found for name in left]


@pytest.mark.parametrize("statements", [100, pytest.param(1_000, marks=pytest.mark.long)])
async def test_three_processes(postgres_url: str, pgbouncer: PgBouncer, statements: int):
    async with made(postgres_url) as direct:
        pooled = pgbouncer.through(postgres_url)
        processes = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", WORKER, pooled, str(number), str(statements)),
                cwd=Path(__file__).parents[2],
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            for number in range(3)
        ]
        for said, _ in await asyncio.gather(*[process.communicate() for process in processes]):
            assert said.decode() == ""
        assert [process.returncode for process in processes] == [0, 0, 0]
        assert len(await names(direct)) == 3 * statements // 5
        assert await left_on_servers(pooled) == []


@pytest.fixture
async def pooled(postgres_url: str, pgbouncer: PgBouncer) -> AsyncIterator[Database]:
    """Two connections of ours, four of the pooler's: statements of one session meet several servers."""
    async with made(postgres_url):
        settings = DatabaseSettings(
            url=pgbouncer.through(postgres_url),
            pooler="transaction",
            pool_size=2,
            max_overflow=0,
            transaction_timeout=60,
        )
        database = Database(settings)
        yield database
        await database.close()


async def test_everything_works_by_way_of_it(postgres_url: str, pooled: Database):
    async with pooled.session() as session:
        session.add_all([Person(name=f"p{n}", jobs=[Job(title="x")]) for n in range(5)])
        await session.commit()
    for _ in range(3):
        async with pooled.session() as session:
            people = (await session.exec(select(Person).options(selectinload(Person.jobs)))).all()
            assert [len(person.jobs) for person in people] == [1] * 5
            assert (await paginate(session, select(Person).order_by(Person.name), size=2)).total == 5
            page = await paginate_keyset(session, select(Person).order_by(Person.name), size=2)
            assert [each.name for each in page.items] == ["p0", "p1"]
            await bulk_insert(session, Label, [{"name": f"bulk {n}"} for n in range(1_500)])
            await upsert(session, Label, [{"name": "bulk 1"}, {"name": "more"}], key="name")
            streamed = await session.stream_scalars(select(Label).execution_options(yield_per=500))
            assert len([label async for label in streamed]) == 1_501
            await session.rollback()

    async def work(session: Session) -> int:
        session.add(Label(name="committed"))
        return (await session.exec(select(func.count(Label.id)))).one()

    assert await pooled.transaction(work, isolation="serializable") == 1
    assert await pooled.write_token()
    assert await left_on_servers(pooled.settings.url) == []
    async with seen_from_outside(postgres_url) as server:
        await server.none_in_transaction()


async def test_a_statement_by_itself_is_one_transaction_of_the_pooler(
    postgres_url: str, pgbouncer: PgBouncer
):
    """The server says once that it is ready, where BEGIN and ROLLBACK around it would make it three times."""
    async with made(postgres_url), counted(pgbouncer.through(postgres_url)) as (url, trips):
        database = Database(DatabaseSettings(url=url, pooler="transaction"))
        for turn in range(3):
            trips.reset()
            async with database.session() as session:
                session.add(Label(name=f"label {turn}"))
                await session.commit()
            written = trips.count
            async with database.session() as session:
                labels = (await session.exec(select(Label))).all()
            assert len(labels) == turn + 1
        assert (written, trips.count - written) == (1, 1)
        await database.close()


async def test_a_changed_column_is_read_as_what_it_is_now(pooled: Database, postgres_url: str):
    """Parsed again by a driver that does not ask again what comes back, a float would be read as an integer."""
    direct = Database(postgres_url)
    number = column("number")

    async def change(sql: str) -> None:
        async with direct.engine.begin() as connection:
            await connection.execute(text(sql))

    async def read() -> list[Any]:
        async with pooled.session() as session:
            by_us = (await session.exec(select(number).select_from(table("changed")))).one()
            return [by_us, await session.scalar(text("SELECT number FROM changed"))]

    await change("CREATE TABLE changed AS SELECT 1 AS number")
    assert await asyncio.gather(read(), read()) == [[1, 1]] * 2
    await change("ALTER TABLE changed ALTER COLUMN number TYPE real")
    assert await asyncio.gather(read(), read()) == [[1.0, 1.0]] * 2
    await change("DROP TABLE changed")
    await direct.close()


async def test_without_the_setting_it_fails(postgres_url: str, pgbouncer: PgBouncer):
    """So that the tests above are known to have something to find."""
    async with made(postgres_url):
        plain = Database(
            DatabaseSettings(url=pgbouncer.through(postgres_url)),
            connect_args={"server_settings": {}},
        )
        assert not (await plain.health()).ready, "it sends settings that the pooler refuses"
        await plain.close()


async def test_a_bound_of_ours_holds_where_the_servers_cannot_be_set(postgres_url: str, pgbouncer: PgBouncer):
    settings = DatabaseSettings(
        url=pgbouncer.through(postgres_url),
        pooler="transaction",
        answer_timeout=0.5,
        pool_size=1,
        max_overflow=0,
    )
    async with made(postgres_url), seen_from_outside(postgres_url) as server:
        database = Database(settings)
        async with database.session() as session:
            with pytest.raises(NoAnswer):
                await session.exec(select(func.pg_sleep(30)))
        await server.none_running("pg_sleep")
        await goes_on(database)
        await database.close()
