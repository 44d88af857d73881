"""Tripwires of the hook around COMMIT, and cancellation at any step of a transaction."""

import asyncio
import inspect
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session as SQLAlchemySession
from sqlalchemy.orm import SessionTransaction
from sqlmodel import select

from catalysis import Database, DatabaseSettings, Session
from catalysis.engine.alchemy.committing import CommittingSession, CommittingTransaction
from tests.models import Label, made


def test_every_outermost_transaction_is_made_in_one_place():
    assert inspect.getsource(SQLAlchemySession).count("SessionTransaction(") == 1
    assert "SessionTransaction(" in inspect.getsource(SQLAlchemySession._autobegin_t)
    assert list(inspect.signature(SQLAlchemySession._autobegin_t).parameters) == ["self", "begin"]
    assert "_autobegin_t" in vars(CommittingSession)


def test_a_transaction_commits_its_connections_between_two_states():
    source = inspect.getsource(SessionTransaction.commit)
    assert source.index("self._prepare_impl()") < source.index("trans.commit()")
    assert source.index("trans.commit()") < source.index("self._state = SessionTransactionState.COMMITTED")
    assert source.count("trans.commit()") == 1


async def test_each_way_to_begin_makes_ours(database: Database):
    async with database.session() as session:
        sync = session.sync_session
        for begin in (session.begin, session.connection):
            await begin()
            assert type(sync.get_transaction()) is CommittingTransaction
            await session.rollback()
        await session.begin_nested()
        assert type(sync.get_transaction()) is CommittingTransaction
        assert type(sync.get_nested_transaction()) is SessionTransaction
        await session.rollback()


async def two_labels(session: Session, name: str) -> None:
    session.add(Label(name=f"{name} a"))
    await session.flush()
    session.add(Label(name=f"{name} b"))


NESTED: dict[str, dict[str, Any]] = {
    "alone": {},
    "isolated": {"isolation": "serializable"},
    "with a savepoint": {"nested": "savepoint"},
}


@pytest.mark.parametrize("how", NESTED)
async def test_a_transaction_can_be_cancelled_at_any_step(backend_url: str, how: str):
    """It ends cancelled, with all or nothing of it there, no connection lost and none in a transaction."""
    settings = DatabaseSettings(url=backend_url, pool_size=1, max_overflow=0, pool_timeout=3)
    async with made(settings) as database:

        async def work(session: Session, step: int) -> None:
            if how == "with a savepoint":
                await session.exec(select(Label))
                await database.transaction(lambda session: two_labels(session, str(step)), nested="savepoint")
            else:
                await two_labels(session, str(step))

        options = {} if how == "with a savepoint" else NESTED[how]
        step, ended = 0, False
        while not ended:
            task = asyncio.create_task(
                database.transaction(lambda session, step=step: work(session, step), **options)
            )
            for _ in range(step):
                await asyncio.sleep(0)
            ended = task.done()
            task.cancel()
            outcome = (await asyncio.gather(task, return_exceptions=True))[0]
            assert isinstance(outcome, asyncio.CancelledError) or (ended and outcome is None), outcome
            async with asyncio.timeout(5), database.session() as session:
                kept = (await session.exec(select(Label.name).where(Label.name.startswith(f"{step} ")))).all()
                await session.execute(text("SELECT 1"))  # in a transaction, which needs a connection in order
            assert len(kept) == 2 if ended else len(kept) in (0, 2), kept
            step += 1 if step < 20 else 3
            assert step < 5_000, "it never ends"
        assert database.pool_figures().lent == 0
