"""Activities without a server: called, called again by `local`, and what they are given."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from pydantic import ValidationError
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from catalysis import (
    DTO,
    ActivityError,
    CannotConnect,
    Database,
    DatabaseDep,
    DatabaseService,
    Session,
    activity,
)
from catalysis.integrations.temporal import (
    Retry,
    attempt_number,
    execute,
    heartbeat,
    last_heartbeat,
    local,
    per_worker,
    with_options,
    workflow,
)
from tests.integrations.temporal import flows, jobs
from tests.integrations.temporal.running import bookings, effects

if TYPE_CHECKING:
    from decimal import Decimal as Missing

NOW = Retry(attempts=4, first_pause=0)


@pytest.fixture
async def service(ledger: Database) -> AsyncIterator[Database]:
    """The process's own database."""
    before = DatabaseService._database
    DatabaseService.configure(ledger)
    yield ledger
    DatabaseService._database = before


async def test_a_call_is_one_call_with_a_session_of_its_own(service: Database) -> None:
    receipt = await jobs.book(jobs.Order(reference="called"))
    assert [each.id for each in await bookings(service, "called")] == [receipt.id]
    assert jobs.book.__display_name__ == "book"
    assert jobs.book_once.__display_name__ == "Book once"


async def test_a_call_of_an_idempotent_activity_is_committed_and_has_no_row(service: Database) -> None:
    for _ in range(2):
        await jobs.book_once(jobs.Order(reference="called"))
    assert len(await bookings(service, "called")) == 2
    assert await effects(service) == 0


async def test_a_callers_own_session_is_used(service: Database) -> None:
    seen: list[Session] = []

    async def look(session: Session) -> None:
        seen.append(session)

    jobs.on["book"] = look
    async with service.session() as session:
        await jobs.book(jobs.Order(reference="own"), session=session)
    assert seen == [session]


async def test_a_call_that_fails_is_not_called_again(service: Database) -> None:
    calls = 0

    @activity(retry=NOW)
    async def fail() -> None:
        nonlocal calls
        calls += 1
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        await fail()
    assert calls == 1
    with pytest.raises(RuntimeError):
        await local(fail)
    assert calls == 5


async def test_local_numbers_its_attempts_and_execute_is_local_here() -> None:
    @activity(retry=NOW)
    async def third(of: int) -> int:
        if attempt_number() < of:
            raise ConnectionError
        return attempt_number()

    assert await execute(third, 3) == 3


async def test_errors_for_which_no_attempt_helps_end_local(service: Database) -> None:
    calls: list[int] = []

    @activity(retry=NOW)
    async def seat(session: Session) -> None:
        calls.append(attempt_number())
        await jobs.add_seat("1A", session=session)

    await local(seat)
    with pytest.raises(IntegrityError):
        await local(seat)
    assert calls == [1, 1]

    @activity(retry=Retry(never=("KeyError",), first_pause=0))
    async def fail() -> None:
        calls.append(attempt_number())
        raise KeyError("no")

    with pytest.raises(KeyError):
        await local(fail)
    assert calls == [1, 1, 1]


async def test_timeouts_hold_locally_too() -> None:
    calls = 0

    @activity(timeout=0.05, retry=Retry(first_pause=0))
    async def sleep() -> None:
        nonlocal calls
        calls += 1
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await local(with_options(sleep, retry=Retry(attempts=2, first_pause=0)))
    assert calls == 2
    with pytest.raises(TimeoutError):
        await local(with_options(sleep, deadline=0.3))
    assert calls > 2


async def test_activities_inside_of_one_are_plain_calls(service: Database) -> None:
    """Mutation: if they took the outer one's place, the second call would do nothing."""

    @activity(idempotent=True)
    async def outer(session: Session) -> list[jobs.Receipt]:
        return [await jobs.book_once(jobs.Order(reference="inside")) for _ in range(2)]

    first, second = await local(outer)
    assert first.id != second.id
    first, second = await ActivityEnvironment().run(outer)
    assert first.id != second.id
    assert await effects(service) == 2
    assert len(await bookings(service, "inside")) == 4


async def test_a_workflow_runs_without_a_server(service: Database) -> None:
    receipt = await flows.BookOnce().run(jobs.Order(reference="here"))
    assert receipt.reference == "here"
    assert flows.BookOnce.__display_name__ == "Book a thing once"


async def test_a_parameter_per_worker_is_made_and_closed_for_a_call() -> None:
    log: list[str] = []

    @asynccontextmanager
    async def make() -> AsyncIterator[str]:
        log.append("made")
        yield "mailer"
        log.append("closed")

    @activity()
    async def send(letter: str, mailer: str = per_worker(make)) -> str:
        log.append(letter)
        return mailer

    assert await send("a") == "mailer"
    assert await send("b", mailer="fake") == "fake"
    assert log == ["made", "a", "closed", "b"]


async def test_sessions_are_recognised_by_their_annotation(service: Database) -> None:
    @activity()
    async def by_dependency(number: int, db: DatabaseDep) -> int:
        return (await db.execute(text(f"SELECT {number}"))).scalar_one()

    assert await by_dependency(7) == 7  # pyright: ignore[reportCallIssue] - the session is not last there


async def test_what_cannot_be_an_activity_is_refused_when_it_is_declared() -> None:
    class Result(DTO):
        id: UUID

    with pytest.raises(ActivityError, match="takes no session"):

        @activity(idempotent=True)
        async def no_session(order: str) -> str:
            return order

    with pytest.raises(ActivityError, match="does not say what it returns"):

        @activity(idempotent=True)
        async def no_result(session: Session):  # pyright: ignore[reportUnknownParameterType]
            pass

    with pytest.raises(ActivityError, match="two sessions"):

        @activity()
        async def two(one: Session, other: Session) -> None:
            pass

    with pytest.raises(ActivityError, match="not given by position"):

        @activity()
        async def named(*, order: str) -> None:
            pass

    with pytest.raises(ActivityError, match="no coroutine function"):

        @activity()
        def plain() -> None: ...

    with pytest.raises(ActivityError, match="not idempotent"):

        @activity(key=str)
        async def keyed(session: Session) -> None: ...

    with pytest.raises(ActivityError, match="'Missing', which is not there"):

        @activity()
        async def unknown(amount: "Missing") -> None: ...

    with pytest.raises(ActivityError, match="no method `async def run"):

        @workflow()
        class Empty: ...

    with pytest.raises(ActivityError, match="is not an activity"):
        await execute(asyncio.sleep, 0)


async def test_a_session_is_nothing_that_a_worker_shares(service: Database) -> None:
    """Mutation: without the check, all activities of a worker write in one session."""

    @activity()
    async def share(session: Any = per_worker(DatabaseService.get_session)) -> None:
        pass

    with pytest.raises(ActivityError, match="makes a session"):
        await share()


async def test_a_mapped_object_does_not_leave_a_call_either(service: Database) -> None:
    with pytest.raises(ActivityError, match="a mapped Booking"):
        await jobs.return_row()


async def test_heartbeats_are_silent_outside_of_a_worker() -> None:
    heartbeat(1)
    assert last_heartbeat() == ()


async def test_temporals_own_test_environment_runs_them(service: Database) -> None:
    environment = ActivityEnvironment()
    beats: list[Any] = []
    environment.on_heartbeat = lambda *details: beats.append(details)
    order = jobs.Order(reference="offline")
    first = await environment.run(jobs.book_once, order)
    assert await environment.run(jobs.book_once, order) == first
    assert await effects(service) == 1
    assert await environment.run(jobs.step_by_step, 2) == [1, 1]
    assert [len(each[0]) for each in beats] == [2, 2]  # one list, which grew


async def test_an_invalid_result_is_told_without_its_values(service: Database) -> None:
    @activity()
    async def invalid() -> None:
        jobs.Order.model_validate({"reference": ["secret"], "amount": "none"})

    with pytest.raises(ValidationError):
        await invalid()
    with pytest.raises(
        Exception, match=r"ValidationError: Order is not valid: reference \(string_type\)"
    ) as told:
        await ActivityEnvironment().run(invalid)
    assert "secret" not in str(told.value)


async def test_a_database_that_is_down_is_another_attempt() -> None:
    database = Database("postgresql://postgres@127.0.0.1:1/nowhere")

    @activity(retry=Retry(attempts=2, first_pause=0))
    async def ask() -> None:
        attempts.append(attempt_number())
        async with database.session() as session:
            await session.execute(text("SELECT 1"))

    attempts: list[int] = []
    with pytest.raises(CannotConnect, match=r"127\.0\.0\.1:1 \(ConnectionRefusedError\)"):
        await local(ask)
    assert attempts == [1, 2]
    with pytest.raises(ApplicationError, match="No server let us in") as told:
        await ActivityEnvironment().run(ask)
    assert not told.value.non_retryable
    await database.close()


def test_it_is_imported_and_called_without_temporal() -> None:
    """In a process where `temporalio` cannot be found."""
    program = """
import asyncio, importlib.util, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == "temporalio" else found(name, *a)
sys.modules["temporalio"] = None
from catalysis import activity, DatabaseService, Session
from catalysis.integrations.temporal import Retry, execute, workflow
from sqlalchemy import text
DatabaseService.configure("sqlite://")
@activity(retry=Retry(attempts=2))
async def ask(session: Session, number: int) -> int:
    return (await session.execute(text(f"SELECT {number}"))).scalar_one()
@workflow()
class Ask:
    async def run(self, number: int) -> int:
        return await execute(ask, number)
async def main():
    print(await ask(6) , await Ask().run(7))
    await DatabaseService.close()
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout == "6 7\n", done.stderr
