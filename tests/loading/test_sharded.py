"""Sessions over several databases: equal keys are different rows, and nobody is given another database's."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ForeignKey, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.ext.horizontal_shard import ShardedSession
from sqlalchemy.orm import Mapped, declarative_base, mapped_column, relationship, undefer

from catalysis import Session, count, load, managed, top, watch_queries

Base: Any = declarative_base()
SHARDS = ("north", "south")


class Owner(Base):
    __tablename__ = "owner"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    shard: Mapped[str]
    note: Mapped[str] = mapped_column(deferred=True)
    pets: Mapped[list["Pet"]] = relationship(back_populates="owner", order_by="Pet.id")


class Pet(Base):
    __tablename__ = "pet"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    shard: Mapped[str]
    owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"))
    owner: Mapped[Owner] = relationship(back_populates="pets")


@pytest.fixture
async def shards(tmp_path: Path) -> AsyncIterator[dict[str, AsyncEngine]]:
    """Three owners with three pets in each, under the same keys in both."""
    engines = {each: create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/{each}.db") for each in SHARDS}
    for shard, engine in engines.items():
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with AsyncSession(engine) as session:
            session.add_all([Owner(id=number, shard=shard, note=f"{shard} {number}") for number in range(3)])
            session.add_all([Pet(id=number, shard=shard, owner_id=number % 3) for number in range(9)])
            await session.commit()
    yield engines
    for engine in engines.values():
        await engine.dispose()


@pytest.fixture
def session_over(shards: dict[str, AsyncEngine]) -> Callable[[], Session]:
    def there(asked: Any) -> list[str]:
        return [*SHARDS] if asked is None else [asked.identity_token]

    def make() -> Session:
        return Session(
            sync_session_class=ShardedSession,
            shards={shard: engine.sync_engine for shard, engine in shards.items()},
            shard_chooser=lambda mapper, instance, clause=None: instance.shard,
            identity_chooser=lambda mapper, key, *, lazy_loaded_from, **kw: there(lazy_loaded_from),
            execute_chooser=lambda executing: there(executing.lazy_loaded_from),
        )

    return make


def pets_are_right(owners: Any) -> bool:
    return all(
        [(pet.shard, pet.id) for pet in owner.pets] == [(owner.shard, owner.id + n) for n in (0, 3, 6)]
        for owner in owners
    )


def owners_are_right(pets: Any) -> bool:
    return all((pet.owner.shard, pet.owner.id) == (pet.shard, pet.owner_id) for pet in pets)


async def touch_many(session: Session) -> None:
    owners = (await session.scalars(select(Owner))).all()
    assert len(owners) == 6
    assert pets_are_right(owners)


async def touch_one(session: Session) -> None:
    assert owners_are_right((await session.scalars(select(Pet))).all())


async def touch_columns(session: Session) -> None:
    owners = (await session.scalars(select(Owner))).all()
    for owner in owners[1:]:
        session.expire(owner)
    assert all(owner.note == f"{owner.shard} {owner.id}" for owner in owners)


@pytest.mark.parametrize("touch", [touch_many, touch_one, touch_columns])
async def test_a_touch_loads_from_the_instances_own(
    session_over: Callable[[], Session], touch: Callable[[Session], Awaitable[None]]
):
    async with session_over() as session:
        await managed(touch(session))


async def test_load_takes_each_from_its_own(session_over: Callable[[], Session]):
    async with session_over() as session:
        owners = (await session.scalars(select(Owner))).all()
        with watch_queries() as queries:
            await load(owners, Owner.pets, Owner.note)
        assert pets_are_right(owners)
        assert all(owner.note == f"{owner.shard} {owner.id}" for owner in owners)
        assert len(queries) == 2 * len(SHARDS)
    async with session_over() as session:
        pets = (await session.scalars(select(Pet))).all()
        await load(pets, Pet.owner)
        assert owners_are_right(pets)


async def test_what_is_computed_is_of_its_own(
    session_over: Callable[[], Session], shards: dict[str, AsyncEngine]
):
    async with AsyncSession(shards["south"]) as session:
        session.add(Pet(id=10, shard="south", owner_id=1))
        await session.commit()
    async with session_over() as session:
        owners = (await session.scalars(select(Owner).options(undefer(Owner.note)))).all()
        numbers = await load(owners, count(Owner.pets))
        latest = await load(owners, top(Owner.pets, 1, order_by=Pet.id.desc()))
    found = {owner.note: (number, *pets) for owner, number, pets in zip(owners, numbers, latest, strict=True)}
    assert {note: (number, pet.shard, pet.id) for note, (number, pet) in found.items()} == {
        f"{shard} {number}": (4, shard, 10) if (shard, number) == ("south", 1) else (3, shard, number + 6)
        for shard in SHARDS
        for number in range(3)
    }


async def test_a_token_stays_the_instances(shards: dict[str, AsyncEngine]):
    """Without several databases too, `identity_token` tells instances of one row apart; a refresh must find them."""
    async with Session(shards["north"]) as session:
        owners = [
            owner
            for token in ("a", "b")
            for owner in await session.scalars(select(Owner).execution_options(identity_token=token))
        ]
        assert len(owners) == len(set(owners)) == 6

        async def read() -> None:
            for each in owners:
                session.expire(each)
            assert [(each.shard, each.note) for each in owners] == [
                ("north", f"north {n}") for n in range(3)
            ] * 2

        await managed(read())
        session.expire_all()
        await load(owners, Owner.note)
        assert [each.note for each in owners] == [f"north {n}" for n in range(3)] * 2
        assert all(key[2] in ("a", "b") for key in session.identity_map)
