"""What other databases that speak PostgreSQL answer differently, raised for real by PostgreSQL itself.

CockroachDB and YugabyteDB are not here.  Their messages are: a transaction's retry error with 40001 at any step, COMMIT
and RELEASE SAVEPOINT included; 40003 where a COMMIT's result is ambiguous; no advisory locks.
"""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import select

from catalysis import CommitOutcomeUnknown, Database, Session
from catalysis.migrations import init_project, load_config, upgrade
from tests.models import Label, made
from tests.test_transactions import add, names, short_pauses, sqlstate

__all__ = ["short_pauses"]  # a fixture

RETRY = "restart transaction: TransactionRetryWithProtoRefreshError: WriteTooOldError"
"""As CockroachDB says it."""

FAILING = """
CREATE SEQUENCE attempts;
CREATE FUNCTION fail(code text, times int) RETURNS bool LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('attempts') <= times THEN RAISE EXCEPTION USING ERRCODE = code, MESSAGE = '{message}'; END IF;
    RETURN true;
END $$;
CREATE FUNCTION fail_late() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM fail(TG_ARGV[0], 2); RETURN NULL; END $$;
"""


async def failing(database: Database, *, at_commit: str | None = None) -> None:
    """The first two calls of `fail` fail, a sequence being what no rollback takes back."""
    async with database.engine.begin() as connection:
        for statement in FAILING.format(message=RETRY).split(";\nCREATE"):
            await connection.exec_driver_sql(
                statement if statement.lstrip().startswith("CREATE") else f"CREATE{statement}"
            )
        if at_commit:
            await connection.exec_driver_sql(
                "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON label DEFERRABLE INITIALLY DEFERRED "
                f"FOR EACH ROW EXECUTE FUNCTION fail_late('{at_commit}')"
            )


async def run(database: Database, **options: Any) -> int:
    """Add a label in a transaction; how often that was run."""
    runs = 0

    async def work(session: Session) -> None:
        nonlocal runs
        runs += 1
        await add(session, "x")
        if options.get("failing"):
            await session.execute(select(text("fail('40001', 2)")))

    await database.transaction(work)
    return runs


async def test_a_retry_error_of_a_statement(postgres_url: str):
    """Seen to fail where `REPLAYABLE` is empty."""
    async with made(postgres_url) as database:
        await failing(database)
        assert await run(database, failing=True) == 3
        assert await names(database) == ["x"]


async def test_a_retry_error_of_commit(postgres_url: str):
    """An answer to COMMIT: nothing was kept, and nobody has to wonder.  Seen to fail where `REPLAYABLE` is empty."""
    async with made(postgres_url) as database:
        await failing(database, at_commit="40001")
        assert await run(database) == 3
        assert await names(database) == ["x"]


async def test_a_retry_error_of_release(postgres_url: str):
    """A part in a savepoint is not run again by itself.  PostgreSQL has no error at RELEASE, so that one is raised just
    before it is sent.  Seen to fail where `REPLAYABLE` is empty."""
    async with made(postgres_url) as database:
        await failing(database)
        outer, inner = 0, 0

        async def part(session: Session) -> None:
            nonlocal inner
            inner += 1
            await add(session, "y")

        async def work(session: Session) -> None:
            nonlocal outer
            outer += 1
            await add(session, "x")
            await database.transaction(part, nested="savepoint")

        @event.listens_for(database.engine.sync_engine, "release_savepoint")
        def fail(connection: Connection, name: str, context: Any) -> None:
            connection.exec_driver_sql("SELECT fail('40001', 2)")

        await database.transaction(work)
        assert (outer, inner) == (3, 3)
        assert await names(database) == ["x", "y"]


@pytest.mark.parametrize("code", ["40003", "08007"])
async def test_a_commit_of_which_the_database_does_not_know(postgres_url: str, code: str):
    """Seen to fail where `was_lost` looks at the connection alone: a DBAPIError, as if nothing had been kept."""
    async with made(postgres_url) as database:
        await failing(database, at_commit=code)
        with pytest.raises(
            CommitOutcomeUnknown, match="The database lost track while COMMIT was under way"
        ) as lost:
            await run(database)
        assert sqlstate(lost.value) == code
        async with database.session() as session:
            session.add(Label(name="alone"))
            with pytest.raises(CommitOutcomeUnknown, match="a statement that commits by itself"):
                await session.commit()
        assert database.pool_figures().lent == 0


async def test_such_an_answer_before_commit_is_an_error_like_others(postgres_url: str):
    async with made(postgres_url) as database:
        await failing(database)
        async with database.session() as session:
            await add(session, "x")
            with pytest.raises(DBAPIError) as failure:
                await session.execute(text("SELECT fail('40003', 1)"))
            assert not isinstance(failure.value, CommitOutcomeUnknown)
            await session.rollback()


LOCKS = """
CREATE SCHEMA other;
CREATE FUNCTION other.pg_try_advisory_lock(bigint) RETURNS bool LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'advisory locks are not yet implemented' USING ERRCODE = '{code}'; END $$
"""


@pytest.mark.parametrize("code", ["42883", "0A000", "53300"])
async def test_migrations_where_there_are_no_advisory_locks(
    postgres: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture, code: str
):
    """They go on, and say so; any other error is one.  Seen to fail where `NO_LOCKS` is empty."""
    async with postgres.engine.begin() as connection:
        for statement in LOCKS.format(code=code).split(";\n", 1):
            await connection.exec_driver_sql(statement)
    settings = {"search_path": "other, pg_catalog, public"}
    database = Database(postgres.settings, connect_args={"server_settings": settings})
    init_project(Path("migrations"), "catalysis.models", tmp_path)
    config = load_config(tmp_path / "pyproject.toml")
    if code == "53300":
        with pytest.raises(Exception, match="not yet implemented"):
            await upgrade(database, config=config)
    else:
        await upgrade(database, config=config)
        assert "no advisory locks: see to it that nobody else migrates it now" in caplog.text
        async with database.engine.connect() as connection:
            held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database IS NOT NULL"
            assert await connection.scalar(text(held)) == 0
    await database.close()
