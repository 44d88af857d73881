"""What is out of the ordinary in a flush ends as on stock: rows, states, errors, and how often defaults are called.

Each program is of a difference that there once was.
"""

import warnings
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Column, ForeignKey, Integer, String, Table, Uuid, event, inspect, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Mapped, declarative_base, make_transient, mapped_column, relationship
from sqlalchemy.types import TypeDecorator

from catalysis import Session

Base: Any = declarative_base()
numbers = count()


class Odd(Base):
    """Its number is counted up by whoever asks."""

    __tablename__ = "odd"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(default=lambda: next(numbers))
    weight: Mapped[int | None]


class Numbered(Base):
    """The database makes its key, which is what comes back."""

    __tablename__ = "numbered"
    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(default=lambda: next(numbers), onupdate=lambda: next(numbers))
    weight: Mapped[int | None]


class Vector:
    """Compared value by value, as numpy's arrays are: what comes out has no truth."""

    def __init__(self, values: str) -> None:
        self.values = values

    def __repr__(self) -> str:
        return self.values

    def __eq__(self, other: object) -> Any:
        return Vector("of truths")

    def __bool__(self) -> bool:
        raise ValueError("the truth of several values")

    __hash__ = None


class VectorType(TypeDecorator[Vector]):
    impl = String
    cache_ok = True

    def process_bind_param(self, value: Vector | None, dialect: Any) -> str | None:
        return None if value is None else value.values

    def process_result_value(self, value: str | None, dialect: Any) -> Vector | None:
        return None if value is None else Vector(value)


class Embedded(Base):
    __tablename__ = "embedded"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    vector: Mapped[Vector] = mapped_column(VectorType)


def fail() -> int:
    raise LookupError("no number today")


class Never(TypeDecorator[int]):
    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Any) -> int | None:
        if value == 13:
            raise ArithmeticError("unlucky")
        return value


class Failing(Base):
    __tablename__ = "failing"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    made: Mapped[int] = mapped_column(default=fail)
    bound: Mapped[int] = mapped_column(Never, default=lambda: 13)
    changed: Mapped[int | None] = mapped_column(onupdate=fail)
    weight: Mapped[int | None]


class Child(Base):
    """Its parent goes with it, so that a flush looks who it is."""

    __tablename__ = "child"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    weight: Mapped[int | None]
    odd_id: Mapped[int | None] = mapped_column(ForeignKey("odd.id"))
    odd: Mapped[Odd | None] = relationship(cascade="all, delete-orphan", single_parent=True)


class Backwards(TypeDecorator[UUID]):
    impl = Uuid
    cache_ok = True

    @property
    def sort_key_function(self) -> Any:
        return lambda value: -value.int


class Stacked(Base):
    """Of those that are changed the last comes first, or two of them would be at one level."""

    __tablename__ = "stacked"
    id: Mapped[UUID] = mapped_column(Backwards, primary_key=True)
    level: Mapped[int] = mapped_column(unique=True)


class Renamed(Base):
    """Its key is not the table's."""

    __table__ = Table(
        "renamed",
        Base.metadata,
        Column("id", Integer, primary_key=True),
        Column("code", Integer, unique=True),
        Column("weight", Integer),
    )
    __mapper_args__ = {"primary_key": [__table__.c.code]}


async def in_a_serializable_transaction(session: AsyncSession) -> list[Any]:
    await session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
    return await change_several(session)


async def on_a_connection_with_options(session: AsyncSession) -> list[Any]:
    def hear(session: Any, transaction: Any, connection: Any) -> None:
        connection.execution_options(of_its_own=True)

    event.listen(session.sync_session, "after_begin", hear)
    return await change_several(session)


async def change_several(session: AsyncSession) -> list[Any]:
    kept = [*(Odd(id=number) for number in range(3)), *(Numbered() for _ in range(3))]
    session.add_all(kept)
    await session.flush()
    for each in kept:
        each.weight = 5
    await session.flush()
    await session.delete(kept.pop())
    await session.delete(kept.pop())
    await session.commit()
    return kept


async def where_the_driver_commits(session: AsyncSession) -> list[Any]:
    """Each a transaction of one statement, on an engine that begins none; more than one connection is asked."""
    kept: list[Any] = []
    engine: Any = session.bind
    made = create_async_engine(engine.url, isolation_level="AUTOCOMMIT")
    for _ in range(2):
        async with type(session)(made, expire_on_commit=False) as other:
            kept.append(Odd(id=len(kept)))
            other.add(kept[-1])
            await other.commit()
    await made.dispose()
    return kept


async def by_defaults_that_raise(session: AsyncSession) -> list[Any]:
    kept = [Failing(id=1, bound=1), Failing(id=2, bound=2)]
    session.add_all(kept)
    await session.flush()
    return kept


async def by_a_default_that_raises(session: AsyncSession) -> list[Any]:
    session.add(Failing(id=1, bound=1))
    await session.commit()
    return []


async def by_a_default_that_cannot_be_bound(session: AsyncSession) -> list[Any]:
    session.add_all([Failing(id=1, made=1), Failing(id=2, made=2)])
    await session.flush()
    return []


async def by_an_onupdate_that_raises(session: AsyncSession) -> list[Any]:
    kept = [Failing(id=1, made=1, bound=1), Failing(id=2, made=1, bound=1)]
    session.add_all(kept)
    await session.flush()
    for each in kept:
        each.weight = 1
    await session.flush()
    return kept


async def beside_one_who_may_be_orphaned(session: AsyncSession) -> list[Any]:
    session.add_all([Odd(id=1), Child(id=1, odd_id=1), Child(id=2)])
    await session.commit()
    kept = list((await session.scalars(select(Child).execution_options(populate_existing=True))).all())
    for each in kept:
        session.expunge(each)
    kept = list((await session.scalars(select(Child).order_by(Child.id))).all())
    for each in kept:
        each.weight = 5
    await session.flush()
    return kept


async def with_a_relationship_added_late(session: AsyncSession) -> list[Any]:
    base: Any = declarative_base(metadata=Base.metadata)
    late = type("Late", (base,), {"__table__": Child.__table__})
    child = late(id=1, odd_id=1)
    for each in (Odd(id=1), child):
        session.add(each)
        await session.flush()
    late.odd = relationship(Odd, cascade="all, delete-orphan", single_parent=True, overlaps="odd")
    child.weight = 5
    await session.flush()
    return [child]


async def in_an_order_of_the_type(session: AsyncSession) -> list[Any]:
    kept = [Stacked(id=UUID(int=number), level=number) for number in range(1, 4)]
    session.add_all(kept)
    await session.flush()
    for each in kept:
        each.level += 1
    await session.flush()
    return kept


async def by_a_key_that_is_not_the_tables(session: AsyncSession) -> list[Any]:
    kept = [Renamed(code=1, weight=3), Renamed(code=2, weight=4)]
    session.add_all(kept)
    await session.flush()
    for each in kept:
        each.weight += 1
    await session.flush()
    return kept


async def of_values_whose_comparison_has_no_truth(session: AsyncSession) -> list[Any]:
    kept = [Embedded(id=number, vector=Vector("1")) for number in range(3)]
    session.add_all(kept)
    await session.flush()
    for each in kept:
        each.vector = Vector("2")
    await session.flush()
    kept[0].vector = Vector("3")
    return kept


async def beside_one_of_another_token(session: AsyncSession) -> list[Any]:
    session.add_all([Odd(id=1), Odd(id=2)])
    await session.commit()
    session.expunge_all()
    tokened = select(Odd).order_by(Odd.id).execution_options(identity_token="another")
    kept = list((await session.scalars(tokened)).all())
    session.expunge(kept[0])
    make_transient(kept[0])
    kept[0].id = 2
    session.add(kept[0])
    await session.flush()
    return kept


async def of_one_who_leaves_after_it(session: AsyncSession) -> list[Any]:
    kept = [Odd(id=1), Odd(id=2)]
    session.add_all(kept)

    def hear(session: Any, flush: Any) -> None:
        session.expunge(kept[1])

    event.listen(session.sync_session, "after_flush", hear, once=True)
    await session.flush()
    await session.rollback()
    return kept


Program = Callable[[AsyncSession], Awaitable[list[Any]]]
PROGRAMS: list[Program] = [
    in_a_serializable_transaction,
    on_a_connection_with_options,
    where_the_driver_commits,
    by_defaults_that_raise,
    by_a_default_that_raises,
    by_a_default_that_cannot_be_bound,
    by_an_onupdate_that_raises,
    beside_one_who_may_be_orphaned,
    with_a_relationship_added_late,
    in_an_order_of_the_type,
    by_a_key_that_is_not_the_tables,
    of_values_whose_comparison_has_no_truth,
    beside_one_of_another_token,
    of_one_who_leaves_after_it,
]


def left(instance: Any) -> Any:
    state: Any = inspect(instance)
    values = {key: str(value) for key, value in state.dict.items() if key in state.mapper.column_attrs}
    loaded = sorted(state.dict.keys() - {"_sa_instance_state"})
    key = state.key and state.key[1:]
    return loaded, values, str(state.committed_state), key, state.modified, state.persistent


async def outcome(kind: type[AsyncSession], url: str, program: Program) -> Any:
    global numbers
    numbers = count()
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    raised, states = None, []
    with warnings.catch_warnings(record=True, action="always") as warned:
        async with kind(engine, expire_on_commit=False) as session:
            try:
                states = [left(each) for each in await program(session)]
                await session.commit()
            except Exception as error:
                raised = type(error), str(error).splitlines()[0]
                await session.rollback()
    async with engine.connect() as connection:
        rows = [
            sorted(map(str, (await connection.execute(select(each))).all()))
            for each in Base.metadata.sorted_tables
        ]
    await engine.dispose()
    return raised, states, rows, next(numbers), [each.category for each in warned]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
async def test_it_ends_as_on_stock(backend_url: str, program: Program):
    stock = await outcome(AsyncSession, backend_url, program)
    assert await outcome(Session, backend_url, program) == stock
