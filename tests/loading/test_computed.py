"""What is computed of a relationship equals the same worked out in Python from its rows."""

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import BigInteger, Column, ForeignKey, Integer, Numeric, Table, and_, inspect, select
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, foreign, mapped_column, relationship

from catalysis import Session, count, exists, load, top, total, watch_queries


class Base(DeclarativeBase):
    pass


lists = Table(
    "computed_list",
    Base.metadata,
    Column("basket_id", ForeignKey("computed_basket.id")),
    Column("ware_id", ForeignKey("computed_ware.id")),
    Column("pieces", Integer),
)


class Basket(Base):
    __tablename__ = "computed_basket"
    id: Mapped[int] = mapped_column(primary_key=True)
    wares: Mapped[list["Ware"]] = relationship(secondary=lists, order_by="Ware.id")
    prices: Mapped[list["Price"]] = relationship(back_populates="basket")


class Ware(Base):
    __tablename__ = "computed_ware"
    id: Mapped[int] = mapped_column(primary_key=True)
    weight: Mapped[int | None]


class Price(Base):
    __tablename__ = "computed_price"
    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[Decimal | None] = mapped_column(Numeric(10, 2))
    cents: Mapped[int | None] = mapped_column(BigInteger)
    basket_id: Mapped[int] = mapped_column(ForeignKey("computed_basket.id"))
    basket: Mapped[Basket] = relationship(back_populates="prices")


dear: Any = aliased(Price, select(Price).where(Price.cents > 10).subquery())
leads: Any = relationship(dear, primaryjoin=lambda: and_(Basket.id == foreign(dear.basket_id)), viewonly=True)
inspect(Basket).add_property("dear", leads)

HELD = [(1, 1, 2), (1, 1, 3), (1, 2, 1), (2, 2, 5), (2, 2, 5), (2, 3, 1)]
"""Basket, ware, pieces: some twice."""
BASKETS = [1, 2, 3]


@pytest.fixture
async def session(backend_url: str) -> AsyncIterator[Session]:
    engine = create_async_engine(backend_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with Session(engine) as session:
        session.add_all([Ware(id=n, weight=[None, 1, 10, 100][n]) for n in BASKETS])
        session.add_all([Basket(id=n) for n in BASKETS])
        await session.flush()
        await session.execute(
            lists.insert(), [{"basket_id": b, "ware_id": w, "pieces": n} for b, w, n in HELD]
        )
        session.add(Price(basket_id=1, amount=Decimal("1.10"), cents=2**40))
        session.add(Price(basket_id=1, amount=Decimal("0.10"), cents=5))
        session.add(Price(basket_id=2))
        await session.commit()
        yield session
    await engine.dispose()


async def baskets_of(session: Session) -> list[Basket]:
    return list((await session.scalars(select(Basket).order_by(Basket.id))).all())


async def test_what_an_association_table_holds_twice_is_there_once(session: Session) -> None:
    baskets = await baskets_of(session)
    await load(baskets, Basket.wares)
    with watch_queries() as queries:
        assert await load(baskets, count(Basket.wares)) == [len(each.wares) for each in baskets] == [2, 2, 0]
        assert await load(baskets, total(Basket.wares, Ware.weight)) == [
            sum(ware.weight or 0 for ware in each.wares) for each in baskets
        ]
        for n in (1, 2, 3):
            first = await load(baskets, top(Basket.wares, n, order_by=Ware.id))
            assert first == [each.wares[:n] for each in baskets]
    queries.assert_statements(5)


async def test_criteria_about_an_association_table(session: Session) -> None:
    baskets = await baskets_of(session)
    many = lists.c.pieces > 1
    held = [{ware for basket, ware, pieces in HELD if basket == each.id and pieces > 1} for each in baskets]
    assert await load(baskets, count(Basket.wares, many)) == [len(each) for each in held] == [1, 1, 0]
    assert await load(baskets, exists(Basket.wares, many)) == [bool(each) for each in held]
    first = await load(baskets, top(Basket.wares, 5, many))
    assert [{ware.id for ware in each} for each in first] == held
    assert await load(baskets, total(Basket.wares, lists.c.pieces, Ware.id != 2)) == [5, 1, 0]


async def test_a_total_is_of_its_columns_type(session: Session) -> None:
    baskets = await baskets_of(session)
    amounts = await load(baskets, total(Basket.prices, Price.amount))
    assert amounts == [Decimal("1.20"), 0, 0]
    assert {type(each) for each in amounts} == {Decimal}
    cents = await load(baskets, total(Basket.prices, Price.cents))
    assert cents == [2**40 + 5, 0, 0]
    assert {type(each) for each in cents} == {int}


async def test_a_relationship_to_an_alias(session: Session) -> None:
    baskets = await baskets_of(session)
    leads: Any = inspect(Basket).attrs["dear"].class_attribute
    assert await load(baskets, count(leads)) == [1, 0, 0]
    assert [[each.cents for each in some] for some in await load(baskets, top(leads, 2))] == [[2**40], [], []]


async def test_pending_parents_are_flushed_first(session: Session) -> None:
    new = Basket(id=9)
    session.add_all([new, Price(basket=new), Price(basket=new)])
    assert await load([new], count(Basket.prices)) == [2]
    late = Price(basket_id=9)
    session.add(late)
    await load([late], Price.basket)
    assert late.basket is new
    await session.rollback()


async def test_no_value_for_an_instance_of_another_class(session: Session) -> None:
    with pytest.raises(InvalidRequestError, match="Basket objects alone"):
        await load([Basket(id=1), Ware(id=1)], count(Basket.prices))
