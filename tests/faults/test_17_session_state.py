"""17. A setting, an advisory lock, a temporary table, a LISTEN of one borrower: none reaches the next.

A pool of one, so that the next borrower has the same connection.  Where nothing can have been left, nothing is sent.

Mutations seen to fail: `forget_session_state` returns at once; `Lease.note` does nothing (native statements' crosses);
`_QUOTED` without `$$…$$`, or without `E'…'`; `_CALL` of ASCII alone; `_TEMPORARY` without the schema; a query that
makes a table is not looked at; `_end_preparing` returns at once (the lock of a statement that was prepared and not
executed stays).
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import func, text, update
from sqlalchemy.exc import DBAPIError
from sqlmodel import col, select

from catalysis import Database, DatabaseSettings, Session
from catalysis.engine.leftovers import leaves_state
from tests.faults.checks import eventually, seen_from_outside
from tests.models import Label, made
from tests.proxy import counted

LEFT = (
    "SELECT current_setting('search_path') || coalesce(current_setting('my.user', true), '')",
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    "SELECT count(*) FROM pg_class WHERE relpersistence = 't'",
    "SELECT count(*) FROM pg_listening_channels()",
    "SELECT current_setting('statement_timeout')",
    "SELECT current_user",
)

BORROWERS: dict[str, list[Any]] = {
    "a setting": [text("SET search_path TO nowhere"), text("SET statement_timeout = 77")],
    "a setting of our own": [text("SELECT set_config('my.user', 'ada', false)")],
    "a native setting": [select(func.set_config("my.user", "ada", False))],
    "an advisory lock": [text("SELECT pg_advisory_lock(1)")],
    "a native advisory lock": [select(Label.id, func.pg_advisory_lock(2)), select(func.pg_advisory_lock(3))],
    "a temporary table": [text("CREATE TEMP TABLE left_over (id int)")],
    "a table of the temporary schema": [text("CREATE TABLE pg_temp.left_over (id int)")],
    "a table that is made of a query": [
        text("CREATE TABLE made AS SELECT set_config('my.user', 'ada', false), pg_try_advisory_lock(4)")
    ],
    "a setting behind a string": [text("SELECT $$it's$$, set_config('my.user', 'ada', false)")],
    "a function of a foreign name": [
        text(
            "CREATE FUNCTION память() RETURNS text LANGUAGE sql "
            "AS $$ SELECT set_config('my.user', 'ada', false) $$"
        ),
        text("SELECT память()"),
    ],
    "a table that is selected into": [text("SELECT 1 AS id INTO TEMPORARY left_over")],
    "a channel": [text("LISTEN somewhere")],
    "a role": [text("CREATE ROLE other"), text("SET ROLE other")],
    "a function's": [text("DO $$ BEGIN PERFORM set_config('my.user', 'ada', false); END $$")],
}


@pytest.fixture
async def one(postgres_url: str) -> AsyncIterator[Database]:
    settings = DatabaseSettings(
        url=postgres_url, pool_size=1, max_overflow=0, statement_timeout=60, transaction_timeout=50
    )
    async with made(settings) as database:
        yield database


async def seen(database: Database) -> list[Any]:
    async with database.session() as session:
        values = [(await session.execute(text(sql))).scalar_one() for sql in LEFT]
        return [*values, (await session.execute(text("SHOW transaction_timeout"))).scalar_one()]


async def pid(database: Database) -> int:
    async with database.session() as session:
        return (await session.execute(text("SELECT pg_backend_pid()"))).scalar_one()


@pytest.mark.parametrize("ends", ["commit", "rollback", "close", "an error", "cancelled"])
@pytest.mark.parametrize("name", BORROWERS)
async def test_none_crosses(one: Database, name: str, ends: str):
    before, connection = await seen(one), await pid(one)

    async def borrow() -> None:
        async with one.session() as session:
            for statement in BORROWERS[name]:
                await session.execute(statement)
            if ends == "commit":
                await session.commit()
            elif ends == "rollback":
                await session.rollback()
            elif ends == "an error":
                raise LookupError
            elif ends == "cancelled":
                await asyncio.Event().wait()

    task = asyncio.create_task(borrow())
    if ends == "cancelled":
        await eventually(lambda: one.pool_figures().lent == 1, "it did not borrow")
        await asyncio.sleep(0.02)
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await seen(one) == before
    if ends != "cancelled":  # which may have come in the middle of a statement, and then throws it away
        assert await pid(one) == connection, "the connection was reset, not replaced"
    async with seen_from_outside(one.settings.url) as server:
        await server.connection.execute("DROP ROLE IF EXISTS other")


async def test_a_connection_that_cannot_be_reset_is_not_lent_again(one: Database):
    connection = await pid(one)
    async with seen_from_outside(one.settings.url) as server:
        session = one.session()
        await session.execute(text("SET search_path TO nowhere"))
        await server.kill_all()
        with pytest.raises(DBAPIError):
            await session.close()
    assert await pid(one) != connection


async def test_what_leaves_nothing_costs_nothing(postgres_url: str):
    async with counted(postgres_url) as (url, trips), made(url) as database:

        async def work(session: Session) -> None:
            await session.exec(select(Label, func.now()))
            await session.execute(text("SELECT count(*) FROM label WHERE name = 'pg_advisory_lock('"))

        for _ in range(3):
            trips.reset()
            async with database.session() as session, session.begin():
                await work(session)
        assert trips.count == 4, "BEGIN, two statements, COMMIT"
        trips.reset()
        async with database.session() as session, session.begin():
            await session.execute(text("SET search_path TO public"))
        trips.reset()
        async with database.session() as session, session.begin():
            await work(session)
        assert trips.count == 4, "it is reset once"


@pytest.mark.parametrize(
    ("sql", "leaves"),
    [
        ("SELECT label.id FROM label WHERE label.name IN ($1, $2)", False),
        ("SELECT count(*), coalesce(max(a), 1) FROM label", False),
        ("INSERT INTO label (id, name) VALUES ($1, $2) RETURNING label.id", False),
        ('INSERT INTO "my schema"."my table" (id) VALUES ($1) ON CONFLICT (id) DO UPDATE SET a = 1', False),
        ("UPDATE label SET name=$1::VARCHAR(20) WHERE label.id = $2", False),
        ("CREATE TABLE a (id int PRIMARY KEY, b int REFERENCES c (d))", False),
        ("BEGIN", False),
        ("SET LOCAL search_path TO x", False),
        ("SELECT pg_advisory_xact_lock(1)", False),
        ("SELECT set_config($1::VARCHAR, $2::VARCHAR, true)", False),
        ("SELECT set_config($1, $2, true), set_config('a', 'b', false)", True),
        ("SELECT 'set_config(' -- pg_advisory_lock(1)", False),
        ("", False),
        ("SET search_path TO x", True),
        ("-- nothing\n  set search_path TO x", True),
        ("/* SELECT */ RESET ALL", True),
        ("select set_config('a', 'b', false)", True),
        ("SELECT \"set_config\"('a', 'b', false)", True),
        ("WITH a AS (SELECT my_function(1)) SELECT * FROM a", True),
        ("SELECT pg_try_advisory_lock (1)", True),
        ("CREATE LOCAL TEMPORARY TABLE a (id int)", True),
        ("CREATE TEMP VIEW a AS SELECT 1", True),
        ("LISTEN a", True),
        ("DECLARE a CURSOR WITH HOLD FOR SELECT 1", True),
        ("DO $$ BEGIN END $$", True),
        ("CALL a()", True),
        ("SELECT E'it\\'s', set_config('a', 'b', false)", True),
        ("SELECT E'a\\\\', now(), 'set_config('", False),
        ("SELECT $a$ ' $a$, set_config('a', 'b', false)", True),
        ("SELECT $1, now(), $2", False),
        ("CREATE VIEW pg_temp.a AS SELECT 1", True),
        ("CREATE TABLE a AS (SELECT b FROM c WHERE d IN (1, 2))", False),
        ("CREATE MATERIALIZED VIEW a AS SELECT my_function(1)", True),
    ],
)
def test_what_may_be_left_is_told_from_the_sql(sql: str, leaves: bool):
    assert leaves_state(sql) is leaves


WRONG = {
    "a read": lambda session: session.exec(select(Label).where(col(Label.name) == 5)),
    "a read in a transaction": lambda session: session.exec(
        select(Label, func.now()).where(col(Label.name) == 5)
    ),
    "a write": lambda session: session.exec(update(Label).values(name=5)),
    "a new row": lambda session: _commit(session, Label(name=5)),
}


async def _commit(session: Session, label: Label) -> None:
    session.add(label)
    await session.commit()


@pytest.mark.parametrize("how", WRONG)
async def test_a_value_that_cannot_be_sent_leaves_no_lock(one: Database, how: str):
    """The statement is prepared by then, which has begun a transaction at the server."""
    async with seen_from_outside(one.settings.url) as server:
        for _ in range(2):
            async with one.session() as session:
                with pytest.raises(DBAPIError, match="expected str"):
                    await WRONG[how](session)
            locked = "SELECT mode FROM pg_locks WHERE relation = 'label'::regclass"
            assert await server.connection.fetch(locked) == []
            assert await server.backends(state="active") == []
        async with one.session() as session:
            assert (await session.exec(select(Label.name))).all() == []
