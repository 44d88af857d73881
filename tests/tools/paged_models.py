"""Models for the tests of pages: owners of tasks, tags across them, and one model with a column of every type."""

import enum
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import CHAR, BigInteger, Column, DateTime, Enum, ForeignKey, Numeric, Table, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    pass


task_tag = Table(
    "task_tag",
    Base.metadata,
    Column("task_id", ForeignKey("task.id"), primary_key=True),
    Column("tag_id", ForeignKey("tag.id"), primary_key=True),
)


class Owner(Base):
    __tablename__ = "owner"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    tasks: Mapped[list["Task"]] = relationship(back_populates="owner")


class Tag(Base):
    __tablename__ = "tag"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Task(Base):
    __tablename__ = "task"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    priority: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("owner.id"))
    owner: Mapped[Owner | None] = relationship(back_populates="tasks")
    tags: Mapped[list[Tag]] = relationship(secondary=task_tag, order_by=Tag.id)
    notes: Mapped[list["Note"]] = relationship()


class Note(Base):
    __tablename__ = "note"
    task_id: Mapped[int] = mapped_column(ForeignKey("task.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(default="")


class Animal(Base):
    __tablename__ = "animal"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}


class Dog(Animal):
    __tablename__ = "dog"
    id: Mapped[int] = mapped_column(ForeignKey("animal.id"), primary_key=True)
    barks: Mapped[int]
    __mapper_args__ = {"polymorphic_identity": "dog"}


class Cat(Animal):
    __mapper_args__ = {"polymorphic_identity": "cat"}


class Colour(enum.Enum):
    RED = "green"
    GREEN = "red"


class Everything(Base):
    __tablename__ = "everything"
    id: Mapped[int] = mapped_column(primary_key=True)
    integer: Mapped[int | None]
    big: Mapped[int | None] = mapped_column(BigInteger)
    floating: Mapped[float | None]
    decimal: Mapped[Decimal | None] = mapped_column(Numeric(30, 12))
    text: Mapped[str | None]
    fixed: Mapped[str | None] = mapped_column(CHAR(4))
    flag: Mapped[bool | None]
    blob: Mapped[bytes | None]
    uuid: Mapped[UUID | None]
    day: Mapped[date | None]
    naive: Mapped[datetime | None]
    aware: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    clock: Mapped[time | None]
    duration: Mapped[timedelta | None]
    colour: Mapped[Colour | None]
    colour_text: Mapped[Colour | None] = mapped_column(Enum(Colour, native_enum=False))


START = datetime(2024, 1, 1, tzinfo=UTC)


VALUES: dict[str, list[Any]] = {
    "integer": [-(2**31), -1, 0, 7, 2**31 - 1],
    "big": [-(2**63), -(2**53) - 1, 0, 2**53 + 1, 2**63 - 1],
    "floating": [-math.inf, -1e308, -0.1, -5e-324, 0.0, 0.1, 0.1 + 0.2, 2.0, 1e16 + 2, math.inf],
    "decimal": [
        Decimal("-123456789012345678.000000000001"),
        Decimal("-0.1"),
        Decimal(0),
        Decimal("0.100000000001"),
    ],
    "text": ["", " ", "'", "A", "Z", "a", 'quoted "text"', "\n", "é", "ß", "日本", "\U0001f600", "x" * 500],
    "fixed": ["a", "a b", "ab", "b"],
    "flag": [False, True],
    "blob": [b"", b"\0", b"\0\xff", b"a", b"\xff"],
    "uuid": [UUID(int=0), UUID(int=1), UUID("018f0000-0000-7000-8000-000000000000"), UUID(int=2**128 - 1)],
    "day": [date.min, date(1969, 12, 31), date(2024, 2, 29), date.max],
    "naive": [
        datetime(1, 1, 1),
        datetime(2024, 1, 1),
        datetime(2024, 1, 1, 0, 0, 0, 1),
        datetime(9999, 12, 31, 23),
    ],
    "aware": [START, START + timedelta(microseconds=1), START.replace(tzinfo=timezone(timedelta(hours=-9)))],
    "clock": [time.min, time(12), time(12, 0, 0, 1), time.max],
    "duration": [
        timedelta(0),
        timedelta(microseconds=1),
        timedelta(seconds=90),
        timedelta(days=400, seconds=5),
    ],
    "colour": [Colour.GREEN, Colour.RED],
    "colour_text": [Colour.GREEN, Colour.RED],
}
"""Values of each column of `Everything` but its key."""


def tasks(count: int) -> list[Task]:
    """Tasks 1 to `count`, three of them created at any one time, every third without a priority."""
    return [
        Task(
            id=number,
            title=f"task {number}",
            priority=None if number % 3 == 0 else number % 4,
            created_at=START + timedelta(hours=number // 3),
        )
        for number in range(1, count + 1)
    ]


@asynccontextmanager
async def engine_with_tables(url: str, base: Any = Base) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(base.metadata.create_all)
        yield engine
    finally:
        await engine.dispose()


@contextmanager
def statements_of(engine: AsyncEngine) -> Iterator[list[str]]:
    """The statements the engine sends in the block."""
    sent: list[str] = []

    def hear(conn: Any, cursor: Any, sql: str, *rest: Any) -> None:
        sent.append(" ".join(sql.split()))

    event.listen(engine.sync_engine, "before_cursor_execute", hear)
    try:
        yield sent
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", hear)
