"""A flush of one class's instances asks no relationship that has no say: what is sent and left is SQLAlchemy's own."""

import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import ForeignKey, event, inspect, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Mapped, declarative_base, joinedload, make_transient, mapped_column, relationship

from catalysis import Session, watch_queries
from catalysis.engine.alchemy import flushing

Base: Any = declarative_base()


class Wall(Base):
    """Bricks refer to its code; a change of it is carried on by SQLAlchemy, not by the database."""

    __tablename__ = "wall"
    code: Mapped[str] = mapped_column(primary_key=True)
    height: Mapped[int] = mapped_column(default=1)
    bricks: Mapped[list["Brick"]] = relationship(back_populates="wall", passive_updates=False)


class Brick(Base):
    __tablename__ = "brick"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    weight: Mapped[int | None]
    wall_code: Mapped[str | None] = mapped_column(
        ForeignKey("wall.code", deferrable=True, initially="DEFERRED")
    )
    wall: Mapped[Wall | None] = relationship(back_populates="bricks", passive_updates=False)


class Mortar(Base):
    """Tiles refer to its code, and it knows of none."""

    __tablename__ = "mortar"
    code: Mapped[str] = mapped_column(primary_key=True)


class Tile(Base):
    __tablename__ = "tile"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    mortar_code: Mapped[str | None]
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("tile.id"))
    mortar: Mapped[Mortar | None] = relationship(
        passive_updates=False, primaryjoin="foreign(Tile.mortar_code) == Mortar.code"
    )
    parent: Mapped["Tile | None"] = relationship(remote_side="Tile.id")


class Roof(Base):
    """Its gutters know nothing of it."""

    __tablename__ = "roof"
    code: Mapped[str] = mapped_column(primary_key=True)
    gutters: Mapped[list["Gutter"]] = relationship(
        passive_updates=False, primaryjoin="foreign(Gutter.roof_code) == Roof.code"
    )


class Gutter(Base):
    __tablename__ = "gutter"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    roof_code: Mapped[str | None]


class Lamp(Base):
    """Its bulb goes with it, or with a change of it."""

    __tablename__ = "lamp"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    watts: Mapped[int | None]
    bulb_id: Mapped[int | None] = mapped_column(ForeignKey("bulb.id"))
    bulb: Mapped["Bulb | None"] = relationship(cascade="all, delete-orphan", single_parent=True)


class Bulb(Base):
    __tablename__ = "bulb"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


async def add_plainly(session: AsyncSession) -> None:
    session.add_all([Brick(id=10 + number, weight=number, wall_code="a") for number in range(3)])


async def add_tiles_that_refer(session: AsyncSession) -> None:
    session.add_all([Tile(id=10), Tile(id=11, parent_id=10), Tile(id=12, parent_id=1)])


async def change_plainly(session: AsyncSession) -> None:
    for each in (await session.scalars(select(Brick).order_by(Brick.id))).all():
        each.weight = (each.weight or 0) + 1


async def change_foreign_keys(session: AsyncSession) -> None:
    for each in (await session.scalars(select(Brick).order_by(Brick.id))).all():
        each.wall_code = "b"


async def change_the_parent(session: AsyncSession) -> None:
    (await session.get_one(Wall, "a")).height = 5


async def rename_the_parent(session: AsyncSession) -> None:
    """Its bricks are not loaded: SQLAlchemy loads them, to give them the new code."""
    (await session.get_one(Wall, "a")).code = "c"


async def rename_what_others_refer_to(session: AsyncSession) -> None:
    """The tile is in the session, and is found there."""
    session.tile = await session.get_one(Tile, 1)  # that it stays
    (await session.get_one(Mortar, "m")).code = "n"


async def rename_what_knows_others(session: AsyncSession) -> None:
    (await session.get_one(Roof, "r")).code = "s"


async def rename_what_was_made_transient(session: AsyncSession) -> None:
    wall = await session.get_one(Wall, "b")
    await session.delete(wall)
    await session.flush()
    make_transient(wall)
    wall.code = "d"
    session.add(wall)


async def change_what_may_have_an_orphan(session: AsyncSession) -> None:
    (await session.get_one(Lamp, 1)).watts = 60


async def relate(session: AsyncSession) -> None:
    session.add_all([Tile(id=20, parent=Tile(id=21)), Tile(id=19)])


async def append_to_what_is_not_loaded(session: AsyncSession) -> None:
    """The wall remembers the brick, to tell it from those it has not loaded."""
    wall = await session.get_one(Wall, "a")
    session.add(Brick(id=30, wall=wall))


async def change_beside_what_is_not_in_the_session(session: AsyncSession) -> None:
    """SQLAlchemy warns of the brick."""
    wall = await session.get_one(Wall, "a")
    wall.height, session.brick = 7, Brick(id=31, wall=wall)  # that it stays


async def change_beside_what_is_loaded(session: AsyncSession) -> None:
    brick = await session.get_one(Brick, 1, options=[joinedload(Brick.wall)])
    brick.weight = 100


async def unset(session: AsyncSession) -> None:
    brick = await session.get_one(Brick, 1)
    brick.wall = None


async def unset_by_del(session: AsyncSession) -> None:
    del (await session.get_one(Tile, 1, options=[joinedload(Tile.mortar)])).mortar


async def delete(session: AsyncSession) -> None:
    await session.delete(await session.get_one(Brick, 1))


Program = Callable[[AsyncSession], Awaitable[None]]
ALONE: dict[Program, bool] = {
    add_plainly: True,
    add_tiles_that_refer: True,
    change_plainly: True,
    change_foreign_keys: True,
    change_the_parent: True,
    rename_the_parent: False,
    rename_what_others_refer_to: False,
    rename_what_knows_others: False,
    rename_what_was_made_transient: False,
    change_what_may_have_an_orphan: False,
    relate: False,
    append_to_what_is_not_loaded: False,
    change_beside_what_is_not_in_the_session: False,
    change_beside_what_is_loaded: False,
    unset: False,
    unset_by_del: False,
    delete: False,
}
"""Whether nobody needs to be asked."""


async def sent_by(kind: type[AsyncSession], url: str, program: Program) -> Any:
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine) as session:
        session.add_all(
            [Wall(code="a"), Wall(code="b"), Mortar(code="m"), Roof(code="r"), Gutter(id=1, roof_code="r")]
        )
        session.add(Bulb(id=1))
        await session.flush()
        session.add(Lamp(id=1, bulb_id=1))
        session.add_all([Brick(id=number, weight=number, wall_code="a") for number in range(3)])
        session.add_all([Tile(id=1, mortar_code="m"), Tile(id=2, parent_id=1)])
        await session.commit()
    sent: list[str] = []

    def hear(conn: Any, cursor: Any, sql: str, parameters: Any, context: Any, many: bool) -> None:
        sent.append(sql)

    async with kind(engine, expire_on_commit=False) as session:
        await program(session)
        if issubclass(kind, Session):
            with watch_queries() as queries:
                await session.flush()
            sent = [each.sql for each in queries]
        else:
            event.listen(engine.sync_engine, "before_cursor_execute", hear)
            await session.flush()
            event.remove(engine.sync_engine, "before_cursor_execute", hear)
        states = sorted(
            (
                str(inspect(each).key),
                sorted(each.__dict__.keys() - {"_sa_instance_state"}),
                inspect(each).modified,
            )
            for each in session.identity_map.values()
        )
        await session.commit()
    tables = [each.__table__ for each in (Wall, Brick, Mortar, Tile, Roof, Gutter, Lamp, Bulb)]
    async with engine.connect() as connection:
        rows = [sorted((await connection.execute(select(each))).all(), key=str) for each in tables]
    await engine.dispose()
    return [" ".join(each.removesuffix(" RETURNING 1").split()) for each in sent], states, rows


@pytest.mark.parametrize("program", ALONE, ids=lambda program: program.__name__)
async def test_the_same_is_sent_and_left(backend_url: str, program: Program, monkeypatch: pytest.MonkeyPatch):
    found: list[bool] = []
    only: Any = flushing.NativeFlush._only_action

    def noted(flush: Any) -> Any:
        action = only(flush)
        found.append(action is not None)
        return action

    monkeypatch.setattr(flushing.NativeFlush, "_only_action", noted)
    with warnings.catch_warnings(record=True, action="always") as warned_by_stock:
        stock = await sent_by(AsyncSession, backend_url, program)
    with warnings.catch_warnings(record=True, action="always") as warned:
        ours = await sent_by(Session, backend_url, program)
    assert ours == stock
    assert stock[0]
    assert [str(each.message) for each in warned] == [str(each.message) for each in warned_by_stock]
    assert found[-1] is ALONE[program]
