"""The operations that are compared, each written for the bare driver, for stock SQLModel and for Catalysis."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import joinedload, registry
from sqlmodel import Field, Relationship, col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from catalysis import ModelWithIdAndTimestamps, Session

ROWS = 1_000
COLUMNS = "id, created_at, updated_at, deleted_at, title, number, owner_id"


class Model(ModelWithIdAndTimestamps, registry=registry()):
    pass


class Owner(Model, table=True):
    name: str


class Item(Model, table=True):
    title: str
    number: int = Field(index=True)
    owner_id: UUID = Field(foreign_key="owner.id")
    owner: Owner = Relationship()


Fetch = Callable[..., Awaitable[Any]]
Run = Callable[[], Awaitable[Any]]


@dataclass(frozen=True)
class Operation:
    """One thing to time: its name, and how each contender does it."""

    name: str
    driver: Callable[[Fetch], Run]
    session: Callable[[Callable[[], AsyncSession]], Run]


def _with_session(work: Callable[[Any], Awaitable[Any]]) -> Callable[[Callable[[], AsyncSession]], Run]:
    def bind(make: Callable[[], AsyncSession]) -> Run:
        async def run() -> None:
            async with make() as session:
                await work(session)

        return run

    return bind


def _sql(*statements: tuple[str, tuple[Any, ...]]) -> Callable[[Fetch], Run]:
    def bind(fetch: Fetch) -> Run:
        async def run() -> None:
            for sql, parameters in statements:
                await fetch(sql, *parameters)

        return run

    return bind


def operations(key: UUID, owner: UUID) -> list[Operation]:
    """The list; `key` is of one item, `owner` of its owner."""
    joined = ", ".join([f"item.{name}" for name in COLUMNS.split(", ")] + ["owner.id", "owner.name"])

    async def one(session: Any) -> None:
        (await session.exec(select(Item).where(Item.id == key))).one()

    async def twenty(session: Any) -> None:
        (await session.exec(select(Item).where(Item.number < 20).order_by(col(Item.number)))).all()

    async def thousand(session: Any) -> None:
        (await session.exec(select(Item))).all()

    async def with_owner(session: Any) -> None:
        (await session.exec(select(Item).options(joinedload(Item.owner)))).all()

    async def page(session: Any) -> None:
        (await session.exec(select(func.count()).select_from(Item))).one()
        (await session.exec(select(Item).order_by(col(Item.number)).limit(20).offset(40))).all()

    async def insert(session: Any) -> None:
        item = Item(title="new", number=-1, owner_id=owner)
        session.add(item)
        await session.flush()
        await session.rollback()

    where_key = f"SELECT {COLUMNS} FROM item WHERE id = ?"
    all_items = f"SELECT {COLUMNS} FROM item"
    with_owners = f"SELECT {joined} FROM item JOIN owner ON owner.id = item.owner_id"
    return [
        Operation("one row by key", _sql((where_key, (key,))), _with_session(one)),
        Operation(
            "20 rows", _sql((f"{all_items} WHERE number < 20 ORDER BY number", ())), _with_session(twenty)
        ),
        Operation("1,000 rows", _sql((all_items, ())), _with_session(thousand)),
        Operation("1,000 rows with a to-one", _sql((with_owners, ())), _with_session(with_owner)),
        Operation(
            "page of 20 with its count",
            _sql(("SELECT count(*) FROM item", ()), (f"{all_items} ORDER BY number LIMIT 20 OFFSET 40", ())),
            _with_session(page),
        ),
        Operation("insert one, flush, roll back", _sql(), _with_session(insert)),
    ]


def sessions(engine: AsyncEngine) -> dict[str, Callable[[], AsyncSession]]:
    """How each contender opens a session on the same engine."""
    return {
        "stock SQLModel": lambda: AsyncSession(engine, expire_on_commit=False),
        "Catalysis": lambda: Session(engine, expire_on_commit=False),
    }
