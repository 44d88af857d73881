"""What is told of a failure, and whether another attempt may help."""

from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError, NoResultFound
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm.exc import StaleDataError
from temporalio.exceptions import ApplicationError

from catalysis import ActivityError, Database
from catalysis.errors import BulkError, CannotConnect
from catalysis.integrations.temporal.failures import failure_of, told_to_temporal

REFUSED = "canary-5d1f"


async def refusal(database: Database, sql: str) -> DBAPIError:
    async with database.session() as session:
        with pytest.raises(DBAPIError) as refused:
            await session.execute(text(sql))
    return refused.value


@pytest.mark.parametrize(
    ("sql", "final"),
    [
        ("SELECT * FROM nowhere_at_all", True),
        ("SELEC 1", True),
        (f"SELECT '{REFUSED}'::int", True),
        ("SELECT 1 / 0", True),
        (f"DO $$ BEGIN RAISE EXCEPTION '{REFUSED}'; END $$", True),
        (f"DO $$ BEGIN RAISE '{REFUSED}' USING ERRCODE = '40P01'; END $$", False),
        (f"DO $$ BEGIN RAISE '{REFUSED}' USING ERRCODE = '55P03'; END $$", False),
        (f"DO $$ BEGIN RAISE '{REFUSED}' USING ERRCODE = '53300'; END $$", False),
        (f"DO $$ BEGIN RAISE '{REFUSED}' USING ERRCODE = '25006'; END $$", False),
        ("SELECT pg_terminate_backend(pg_backend_pid())", False),
    ],
)
async def test_postgresql_is_judged_by_its_sqlstate(postgres_url: str, sql: str, final: bool) -> None:
    database = Database(postgres_url)
    failure = failure_of(await refusal(database, sql))
    assert failure is not None
    assert failure.retryable is not final
    assert REFUSED not in failure.message
    assert "SELECT" not in failure.message
    await database.close()


async def test_sqlite_is_judged_by_its_code(tmp_path: Any) -> None:
    database = Database(f"sqlite:///{tmp_path / 'test.db'}")
    failure = failure_of(await refusal(database, f"SELECT * FROM {REFUSED.replace('-', '_')}"))
    assert failure is not None
    assert (failure.retryable, failure.message) == (
        False,
        "The database refuses the statement (SQLITE_ERROR).",
    )
    await database.close()


def test_others() -> None:
    told = {
        name: failure_of(error)
        for name, error in {
            "stale": StaleDataError(),
            "none": NoResultFound(),
            "pool": PoolTimeout(),
            "own": ActivityError("said"),
            "lost": _from(BulkError("said"), ConnectionRefusedError()),
            "refused": CannotConnect("host:1 (ConnectionRefusedError)", None, ConnectionRefusedError()),
            "group": ExceptionGroup("", [ValueError(), PoolTimeout()]),
            "user's": ValueError(),
        }.items()
    }
    assert {name: each and each.retryable for name, each in told.items()} == {
        "stale": True,
        "none": False,
        "pool": True,
        "own": False,
        "lost": True,
        "refused": True,
        "group": True,
        "user's": None,
    }


def _from(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("on_purpose", [True, False])
def test_origins_of_the_applications_own_errors_are_told_without_their_text(on_purpose: bool) -> None:
    """Mutation: without `_hide_origins`, Temporal writes the cause with its SQL into the history."""

    def fail() -> None:
        try:
            raise IntegrityError(f"INSERT {REFUSED}", None, Exception(REFUSED))
        except IntegrityError as error:
            if on_purpose:
                raise ValueError("mine") from error
            raise ValueError("mine")  # noqa: B904 - that is how it is often written

    with pytest.raises(ValueError, match="mine") as told, told_to_temporal(is_once=False):
        fail()
    origin = told.value.__cause__ or told.value.__context__
    assert isinstance(origin, ApplicationError)
    assert REFUSED not in str(origin)
