"""Activities of the tests, and the tables they write to.  `on` lets a test take part in what they do."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import registry
from sqlmodel import Field, func, select
from temporalio.activity import cancellation_details

from catalysis import DTO, ModelWithIdAndTimestamps, Session, activity
from catalysis.integrations.temporal import (
    Retry,
    attempt_number,
    effects_table,
    heartbeat,
    last_heartbeat,
)


class Model(ModelWithIdAndTimestamps, registry=registry()):
    pass


class Booking(Model, table=True):
    reference: str
    amount: Decimal
    attempt: int = 1


class Seat(Model, table=True):
    number: str = Field(unique=True)
    taken: int = 0


effects_table(Model.metadata)


class Order(DTO):
    reference: str
    amount: Decimal = Decimal(1)
    due: datetime = datetime(2030, 1, 1, tzinfo=UTC)


class Receipt(DTO):
    id: UUID
    reference: str
    amount: Decimal
    attempt: int


on: dict[str, Callable[..., Awaitable[Any]]] = {}
"""What a test does in the middle of an activity, by the activity's name."""
QUICK = Retry(first_pause=0.01, factor=1)


async def _meanwhile(name: str, *given: Any) -> None:
    if name in on:
        await on[name](*given)


async def _book(session: Session, order: Order) -> Receipt:
    booking = Booking(reference=order.reference, amount=order.amount, attempt=attempt_number())
    session.add(booking)
    await session.flush()
    return Receipt(id=booking.id, reference=booking.reference, amount=booking.amount, attempt=booking.attempt)


@activity(display_name="Book once", timeout=3, retry=QUICK, idempotent=True)
async def book_once(session: Session, order: Order) -> Receipt:
    receipt = await _book(session, order)
    await _meanwhile("book_once", session)
    return receipt


@activity(timeout=3, retry=QUICK)
async def book(session: Session, order: Order) -> Receipt:
    """Not idempotent: the control."""
    receipt = await _book(session, order)
    await session.commit()
    await _meanwhile("book", session)
    return receipt


@activity(retry=QUICK)
async def take_seat(session: Session, number: str) -> int:
    """At an isolation level where two at the same time cannot both succeed."""
    await session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
    seat = (await session.exec(select(Seat).where(Seat.number == number))).one()
    await _meanwhile("take_seat", number)
    seat.taken += 1
    await session.commit()
    return attempt_number()


@activity(retry=QUICK)
async def add_seat(session: Session, number: str) -> None:
    session.add(Seat(number=number))
    await session.commit()


@activity(heartbeat=0.4, timeout=60, retry=Retry(attempts=1))
async def wait_long(session: Session, reference: str) -> str:
    """Holds a transaction until it is cancelled."""
    session.add(Booking(reference=reference, amount=Decimal(1)))
    await session.flush()
    heartbeat("in it")
    await _meanwhile("wait_long")
    try:
        await asyncio.Event().wait()
    finally:
        await _meanwhile("wait_long ended", cancellation_details())
    return "never"


@activity(heartbeat=0.1, timeout=60, retry=QUICK)
async def step_by_step(steps: int) -> list[int]:
    """Goes on where the attempt before was."""
    done = list(last_heartbeat()[0]) if last_heartbeat() else []
    for step in range(len(done), steps):
        done.append(attempt_number())
        heartbeat(done)
        await _meanwhile("step_by_step", step)
    return done


@activity(retry=Retry(attempts=3, first_pause=3600, factor=1))
async def fail_for_hours() -> int:
    if attempt_number() < 3:
        raise RuntimeError("not yet")
    return attempt_number()


@activity()
async def return_row(session: Session) -> Any:
    return {"found": [Booking(reference="a", amount=Decimal(1))]}


@activity()
async def count(session: Session, prefix: str) -> int:
    found = select(func.count()).select_from(Booking).where(Booking.reference.startswith(prefix))
    return (await session.exec(found)).one()


@activity()
async def slow_query(session: Session) -> None:
    await session.exec(text("SELECT pg_sleep(60)"))


ACTIVITIES = [
    book_once,
    book,
    take_seat,
    add_seat,
    wait_long,
    step_by_step,
    fail_for_hours,
    return_row,
    count,
    slow_query,
]
