"""Rows of plain classes are bound by us: the statements, their order and what is left are SQLAlchemy's own."""

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from sqlalchemy import event, inspect, literal, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Mapped, declarative_base, mapped_column
from sqlalchemy.orm.exc import StaleDataError

from catalysis import Session, watch_queries
from catalysis.engine.alchemy import flushing

Base: Any = declarative_base()


class Stone(Base):
    """Plain: one table, a key that is given, defaults of Python's."""

    __tablename__ = "stone"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(default="pebble")
    weight: Mapped[int | None] = mapped_column(default=lambda: 7)
    touched: Mapped[int] = mapped_column(default=0, onupdate=lambda: 9)
    note: Mapped[str | None] = mapped_column(deferred=True)


def change_alike(found: list[Stone], add: Callable[[Any], None]) -> None:
    for each in found:
        each.weight = (each.weight or 0) + 1


def change_in_part(found: list[Stone], add: Callable[[Any], None]) -> None:
    for number, each in enumerate(reversed(found)):
        each.name = each.name if number % 2 else f"name {number}"  # set to what it is: no change
        if number % 3:
            each.weight = None
    found[4].touched = 3


def change_and_add(found: list[Stone], add: Callable[[Any], None]) -> None:
    add(Stone(id=50))
    found[2].name = "changed"
    add(Stone(id=49, weight=None))
    found[1].note = "of a column that was not loaded"


def change_keys(found: list[Stone], add: Callable[[Any], None]) -> None:
    found[0].id = 70
    found[1].name = "beside a key that moves"


def change_by_sql(found: list[Stone], add: Callable[[Any], None]) -> None:
    found[0].weight = literal(4) + 1
    found[1].weight = 2


PROGRAMS = (change_alike, change_in_part, change_and_add, change_keys, change_by_sql)


async def sent_by(kind: type[AsyncSession], url: str, program: Any) -> Any:
    """The statements and values that a session sends, the states it leaves, and the rows."""
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
        await connection.run_sync(
            lambda c: c.execute(Stone.__table__.insert(), [{"id": n, "name": f"n{n}"} for n in range(8)])
        )
    sent: list[Any] = []
    async with kind(engine, expire_on_commit=False) as session:
        found = list((await session.scalars(select(Stone).order_by(Stone.id))).all())
        program(found, session.add)
        if issubclass(kind, Session):
            with watch_queries() as queries:
                await session.flush()
            sent = [" ".join(each.sql.split()) for each in queries]
        else:

            def hear(conn: Any, cursor: Any, sql: str, parameters: Any, context: Any, many: bool) -> None:
                sent.append(" ".join(sql.split()))

            event.listen(engine.sync_engine, "before_cursor_execute", hear)
            await session.flush()
        everything = sorted({*found, *session.identity_map.values()}, key=lambda each: each.id)
        states = [
            (dict(inspect(each).dict), inspect(each).modified, inspect(each).key) for each in everything
        ]
        for values, *_ in states:
            values.pop("_sa_instance_state")
        await session.commit()
    async with engine.connect() as connection:
        rows = (await connection.execute(select(Stone.__table__).order_by(Stone.id))).all()
    await engine.dispose()
    writes = [each.removesuffix(" RETURNING 1") for each in sent if not each.startswith("SELECT")]
    return writes, states, rows


@pytest.mark.parametrize("program", PROGRAMS)
async def test_the_same_is_sent_and_left(backend_url: str, program: Any):
    stock = await sent_by(AsyncSession, backend_url, program)
    ours = await sent_by(Session, backend_url, program)
    assert ours == stock
    assert stock[0]


async def test_plain_rows_are_ours(backend_url: str, monkeypatch: pytest.MonkeyPatch):
    """The comparison above would hold as well if SQLAlchemy had bound them all."""
    saved: list[bool] = []
    save = flushing.save

    def noted(*given: Any) -> bool:
        saved.append(save(*given))
        return saved[-1]

    monkeypatch.setattr(flushing, "save", noted)
    for program in PROGRAMS:
        await sent_by(Session, backend_url, program)
    assert saved == [True, True, True, False, False]


async def test_a_row_that_is_gone_is_noticed(backend_url: str):
    engine = create_async_engine(backend_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with Session(engine) as session:
        session.add_all([Stone(id=1), Stone(id=2), Stone(id=3)])
        await session.commit()
        found = (await session.scalars(select(Stone).order_by(Stone.id))).all()
        async with engine.begin() as connection:
            await connection.execute(Stone.__table__.delete().where(Stone.id == 2))
        for each in found:
            each.name = "late"
        with pytest.raises(StaleDataError, match=r"expected to update 3 row\(s\); 2 were matched"):
            await session.commit()
        await session.rollback()
        assert {each.name for each in (await session.scalars(select(Stone))).all()} == {"pebble"}
    await engine.dispose()


async def test_each_row_of_many_knows_what_it_was_given(backend_url: str):
    """SQLAlchemy, where it sends an executemany, gives every instance the `onupdate` value of the first row."""
    numbers = count(100)

    class Own(declarative_base()):
        __tablename__ = "own"
        id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
        weight: Mapped[int] = mapped_column()
        touched: Mapped[int] = mapped_column(default=0, onupdate=lambda: next(numbers))

    engine = create_async_engine(backend_url)
    async with engine.begin() as connection:
        await connection.run_sync(Own.metadata.drop_all)
        await connection.run_sync(Own.metadata.create_all)
    async with Session(engine, expire_on_commit=False) as session:
        rows = [Own(id=number, weight=1) for number in range(3)]
        session.add_all(rows)
        await session.commit()
        for each in rows:
            each.weight = 2
        await session.commit()
        sent = (await session.execute(select(Own.id, Own.touched).order_by(Own.id))).all()
        assert [(each.id, each.touched) for each in rows] == sent == [(0, 100), (1, 101), (2, 102)]
    await engine.dispose()
