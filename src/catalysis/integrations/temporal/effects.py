"""Effects once: one row a call, committed with what the call wrote, and its stored result for whoever calls again.

The row is claimed before anything else is done, so that of two attempts at the same time the second waits for the
first at the database, and does nothing if the first commits.
"""

from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from pydantic import TypeAdapter
from sqlalchemy import (
    Column,
    CursorResult,
    DateTime,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    delete,
    event,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import BLANK_SCHEMA

from catalysis.database import Database, DatabaseService
from catalysis.errors import ActivityError, TransactionMisused
from catalysis.integrations.temporal.attempts import Place
from catalysis.integrations.temporal.results import check_result
from catalysis.session import Session
from catalysis.tools.conflict import insert_unless_there

EFFECTS = "catalysis_effect"


def effects_table(metadata: MetaData) -> Table[Any]:
    """The table of effects in `metadata`, added where it is not there yet.

    Call it beside your models, `effects_table(SQLModel.metadata)`: migrations and `create_all` carry it then.
    """
    if (known := metadata.tables.get(EFFECTS)) is not None:
        return known
    key = [_text("namespace"), _text("workflow_id"), _text("run_id"), _text("activity_id"), _text("activity")]
    return Table(
        EFFECTS,
        metadata,
        *key,
        Column("result", Text, nullable=True),
        Column("created_at", DateTime(timezone=True), nullable=False),
        PrimaryKeyConstraint(*(column.name for column in key), name=f"pk_{EFFECTS}"),
        Index(f"ix_{EFFECTS}_created_at", "created_at"),
        schema=BLANK_SCHEMA,
    )


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


_table = effects_table(MetaData())


async def create_effects(database: Database | None = None) -> None:
    """Make the table of effects if it is not there, in a database (default: the process's own) without migrations."""
    await (database or DatabaseService.database()).create_all(_table.metadata)


async def prune_effects(database: Database | None = None, *, older_than: timedelta) -> int:
    """Remove the rows of calls that ended longer ago, and return how many.

    A call whose row is gone has its effect again if it is made again: keep rows longer than any workflow that made
    them may still run, and than any `key` may come again.
    """

    async def work(session: Session) -> int:
        old = delete(_table).where(_table.c.created_at < datetime.now(UTC) - older_than)
        return cast("CursorResult[Any]", await session.execute(old)).rowcount

    return await (database or DatabaseService.database()).transaction(work)


async def check_effects(database: Database) -> None:
    """Whether the table of effects is there, as far as the database can be asked now.

    Raises:
        ActivityError: it is not.
    """
    try:
        async with database.engine.connect() as connection:
            await connection.execute(select(_table.c.activity).limit(0))
    except DBAPIError as failure:
        _raise_if_missing(failure)
    except OSError:  # it cannot be reached; the activities will tell
        return


async def once(database: Database, place: Place, kind: Any, work: Callable[[Session], Awaitable[Any]]) -> Any:
    """Run `work` in a transaction with the row of `place`, or return the result that is stored there.

    Raises:
        ActivityError: there is no table of effects, or `work` returned what cannot be stored.
        TransactionMisused: `work` committed or rolled back by itself.
    """

    adapter: TypeAdapter[Any] = TypeAdapter(kind)

    async def whole(session: Session) -> Any:
        stored = await _claim(session, place)
        if stored is not None:
            return adapter.validate_json(stored)
        with _no_commit_within(session):
            result = await work(session)
        check_result(result, place.activity)
        told = adapter.dump_json(result).decode()
        adapter.validate_json(told)  # what no retry could read is better not committed
        kept = update(_table).where(_is(place)).values(result=told)
        if (await session.execute(kept.returning(_table.c.activity_id))).first() is None:
            raise TransactionMisused(
                f"The activity {place.activity!r} took back its own row.  Leave what is its key alone."
            )
        return result

    return await database.transaction(whole)


async def _claim(session: Session, place: Place) -> str | None:
    """Take the row; None if it is ours now, else the stored result."""
    row = {**asdict(place), "created_at": datetime.now(UTC)}
    claimed = insert_unless_there(_table, session.get_bind().dialect).values(row)
    try:
        ours = (await session.execute(claimed.returning(_table.c.activity_id))).first()
    except DBAPIError as failure:
        _raise_if_missing(failure)
        raise
    if ours is not None:
        return None
    stored = (await session.execute(select(_table.c.result).where(_is(place)))).scalar_one()
    if stored is None:
        raise ActivityError(
            f"The row of the activity {place.activity!r} in {EFFECTS} has no result: who wrote it?"
        )
    return stored


def _is(place: Place) -> Any:
    found: Any = True
    for name, value in asdict(place).items():
        found = (_table.c[name] == value) if found is True else found & (_table.c[name] == value)
    return found


@contextmanager
def _no_commit_within(session: Session) -> Generator[None]:
    """A commit in the middle would keep what was written until then without the result, and a retry do it again."""

    def refuse(committing: Any) -> None:
        if not committing.in_nested_transaction():
            raise TransactionMisused(
                "An activity with idempotent=True does not commit: its writes are committed with its result when it "
                "returns.  Take the commit out, or flush."
            )

    event.listen(session.sync_session, "before_commit", refuse)
    try:
        yield
    finally:
        event.remove(session.sync_session, "before_commit", refuse)


def _raise_if_missing(failure: DBAPIError) -> None:
    missing = getattr(failure.orig, "sqlstate", None) == "42P01"  # undefined_table
    if missing or f"no such table: {EFFECTS}" in str(failure.orig):
        raise ActivityError(
            f"There is no table {EFFECTS}, which activities with idempotent=True need.  Put "
            "`effects_table(SQLModel.metadata)` beside your models and migrate, or `await create_effects(database)`."
        ) from None
