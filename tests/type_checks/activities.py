"""What a type checker must say of activities.  Checked by `make check`; never run."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import assert_type

from catalysis import Session, activity
from catalysis.integrations.temporal import execute, local, per_worker, with_options


class Mailer: ...


@asynccontextmanager
async def open_mailer() -> AsyncGenerator[Mailer]:
    yield Mailer()


async def make_mailer() -> Mailer:
    return Mailer()


@activity(idempotent=True)
async def charge(session: Session, order: str, amount: int = 1) -> float:
    return amount


@activity(display_name="Send")
async def send(
    letter: str, mailer: Mailer = per_worker(open_mailer), other: Mailer = per_worker(make_mailer)
) -> None: ...


async def asked() -> None:
    assert_type(await charge("order", amount=2), float)
    assert_type(await execute(charge, "order"), float)
    assert_type(await local(charge, "order", amount=2), float)
    assert_type(await execute(with_options(charge, queue="slow"), "order"), float)
    assert_type(await execute(send, "letter"), None)
    await send("letter", mailer=Mailer())
    await charge(1)  # pyright: ignore[reportArgumentType] - the session is not the caller's to give
    await execute(charge)  # pyright: ignore[reportCallIssue] - the order is missing
