"""The row of an effect: claimed, committed with the work, and found again."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from catalysis import Database, DatabaseService, Session, TransactionMisused, activity
from catalysis.errors import ActivityError
from catalysis.integrations.temporal import create_effects, effects_table, local, prune_effects
from catalysis.integrations.temporal.attempts import Place, local_attempt
from catalysis.migrations.environment import differences_of
from tests.integrations.temporal import jobs
from tests.integrations.temporal.running import bookings, effects
from tests.proxy import faulty

PLACE = Place("default", "order-7", "run", "1", "book_once")


@pytest.fixture(autouse=True)
def process_database(ledger: Database) -> Any:
    before = DatabaseService._database
    yield DatabaseService.configure(ledger)
    DatabaseService._database = before


async def book(place: Place, reference: str = "it") -> jobs.Receipt:
    with local_attempt(place, 1):
        return await jobs.book_once(jobs.Order(reference=reference))


async def test_the_same_place_has_one_effect_and_one_result(ledger: Database) -> None:
    first = await book(PLACE)
    assert await book(PLACE) == first
    others = [
        replace(PLACE, **{name: "other"}) for name in ("namespace", "workflow_id", "run_id", "activity_id")
    ]
    results = [await book(each) for each in others]
    assert len({each.id for each in (first, *results)}) == 5
    assert await effects(ledger) == len(await bookings(ledger, "it")) == 5


async def test_a_failure_leaves_no_row(ledger: Database) -> None:
    async def fail(session: Any) -> None:
        raise RuntimeError("before the commit")

    jobs.on["book_once"] = fail
    with pytest.raises(RuntimeError):
        await book(PLACE)
    assert (await effects(ledger), await bookings(ledger, "it")) == (0, [])
    jobs.on.clear()
    await book(PLACE)
    assert (await effects(ledger), len(await bookings(ledger, "it"))) == (1, 1)


async def test_many_attempts_at_the_same_time(ledger: Database) -> None:
    """Mutation: with the row inserted after the work, or without its key, there are several bookings."""
    receipts = await asyncio.gather(*(book(PLACE) for _ in range(8)))
    assert len({each.id for each in receipts}) == 1
    assert (await effects(ledger), len(await bookings(ledger, "it"))) == (1, 1)


async def test_who_waited_for_one_that_failed_does_it(ledger: Database) -> None:
    calls = 0

    async def fail_first(session: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            await asyncio.sleep(0.1)
            raise RuntimeError("the first")

    jobs.on["book_once"] = fail_first
    ended = await asyncio.gather(*(book(PLACE) for _ in range(3)), return_exceptions=True)
    assert sorted(isinstance(each, RuntimeError) for each in ended) == [False, False, True]
    assert (calls, len(await bookings(ledger, "it"))) == (2, 1)


async def test_a_commit_of_its_own_is_refused(ledger: Database) -> None:
    """A savepoint's is not.  Mutation: without the listener, the booking is there without its row."""

    async def commit(session: Session) -> None:
        async with session.begin_nested():
            session.add(jobs.Seat(number="1"))
        await session.commit()

    jobs.on["book_once"] = commit
    with pytest.raises(TransactionMisused, match="does not commit"):
        await book(PLACE)
    assert (await effects(ledger), await bookings(ledger, "it")) == (0, [])


async def test_a_rollback_of_its_own_is_refused(ledger: Database) -> None:
    async def take_back(session: Session) -> None:
        await session.rollback()

    jobs.on["book_once"] = take_back
    with pytest.raises(Exception, match="closed transaction"):
        await book(PLACE)
    assert await effects(ledger) == 0


async def test_a_result_that_no_retry_could_read_is_not_committed(ledger: Database) -> None:
    @activity(idempotent=True)
    async def lie(session: Session) -> jobs.Receipt:
        session.add(jobs.Seat(number="1"))
        return {"id": "none"}  # pyright: ignore[reportReturnType] - that is the lie

    with (
        local_attempt(PLACE, 1),
        pytest.warns(UserWarning, match="Pydantic serializer"),
        pytest.raises(ValueError, match="Receipt"),
    ):
        await lie()
    assert await effects(ledger) == 0


async def test_a_key_is_once_for_all_calls(ledger: Database) -> None:
    calls = 0

    @activity(idempotent=True, key=lambda order: order.reference)
    async def charge(session: Session, order: jobs.Order) -> int:
        nonlocal calls
        calls += 1
        return calls

    order = jobs.Order(reference="order-7")
    assert [await charge(order), await charge(order), await ActivityEnvironment().run(charge, order)] == [
        1,
        1,
        1,
    ]
    assert await charge(jobs.Order(reference="order-8")) == 2


async def test_results_of_other_types_come_back_as_they_were(ledger: Database) -> None:
    @activity(idempotent=True)
    async def nothing(session: Session) -> None: ...

    @activity(idempotent=True)
    async def several(session: Session) -> dict[str, tuple[jobs.Order, ...]]:
        return {"a": (jobs.Order(reference="1"),)}

    for function in (nothing, several):
        place = replace(PLACE, activity=function.__name__)
        with local_attempt(place, 1):
            first = await function()
        with local_attempt(place, 2):
            assert await function() == first


async def test_old_rows_are_pruned(ledger: Database) -> None:
    await book(PLACE)
    assert await prune_effects(older_than=timedelta(hours=1)) == 0
    assert await prune_effects(older_than=timedelta(0)) == 1
    assert await effects(ledger) == 0


async def test_migrations_carry_the_table(ledger: Database) -> None:
    """What Alembic compares is what `effects_table` made, and they do not differ."""
    async with ledger.engine.connect() as connection:
        assert await connection.run_sync(differences_of, [jobs.Model.metadata]) == []
        await connection.execute(text("ALTER TABLE catalysis_effect DROP COLUMN result"))
        assert len(await connection.run_sync(differences_of, [jobs.Model.metadata])) == 1


async def test_a_missing_table_is_said(ledger: Database) -> None:
    async with ledger.session() as session:
        await session.execute(text("DROP TABLE catalysis_effect"))
        await session.commit()
    with pytest.raises(ActivityError, match="There is no table catalysis_effect"):
        await book(PLACE)
    await create_effects(ledger)
    await create_effects(ledger)
    await book(PLACE)
    assert effects_table(jobs.Model.metadata) is jobs.Model.metadata.tables["catalysis_effect"]


async def test_a_local_call_has_its_effect_once_when_the_reply_is_lost(postgres_url: str) -> None:
    """Mutation: without a place from `local`, the second attempt books again."""
    async with faulty(postgres_url) as (url, faults):
        database = DatabaseService.configure(url)
        await database.create_all(jobs.Model.metadata)
        faults.cut(b"COMMIT", "reply")
        receipt = await local(jobs.book_once, jobs.Order(reference="lost"))
        assert [each.id for each in await bookings(database, "lost")] == [receipt.id]
        assert faults.struck.is_set()
        await database.close()


async def test_a_commit_whose_reply_is_lost_is_looked_up_by_the_next_attempt(postgres_url: str) -> None:
    """What is not idempotent is told to be final: another attempt could do it twice.

    Mutation: with CommitOutcomeUnknown retryable for all, `book` would be attempted again.
    """
    async with faulty(postgres_url) as (url, faults):
        database = DatabaseService.configure(url)
        await database.create_all(jobs.Model.metadata)
        for function, is_final, found in ((jobs.book_once, False, 1), (jobs.book, True, 1)):
            order, environment = jobs.Order(reference=function.__name__), ActivityEnvironment()
            faults.cut(b"COMMIT", "reply")
            with pytest.raises(ApplicationError) as told:
                await environment.run(function, order)
            assert (told.value.type, told.value.non_retryable) == ("CommitOutcomeUnknown", is_final)
            if not is_final:
                receipt = await environment.run(function, order)
                assert [each.id for each in await bookings(database, order.reference)] == [receipt.id]
            assert len(await bookings(database, order.reference)) == found
        await database.close()
