"""Models with and without marks, rows of them, and what a statement shows of two databases that hold these rows."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    Column,
    ForeignKey,
    Table,
    func,
    select,
    text,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    column_property,
    mapped_column,
    relationship,
)

from catalysis import Database, SoftDelete, UnsupportedStatement, include_deleted

GONE = datetime(2020, 1, 1)


class Base(DeclarativeBase):
    pass


class Kept(SoftDelete, Base):
    __abstract__ = True
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    deleted_at: Mapped[datetime | None]


item_tag = Table(
    "item_tag",
    Base.metadata,
    Column("item_id", ForeignKey("item.id"), primary_key=True),
    Column("tag_id", ForeignKey("tag.id"), primary_key=True),
)


class Tag(Kept):
    __tablename__ = "tag"


class Item(Kept):
    __tablename__ = "item"
    shelf_id: Mapped[int | None] = mapped_column(ForeignKey("shelf.id"))
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("item.id"))
    shelf: Mapped["Shelf | None"] = relationship(back_populates="items")
    parent: Mapped["Item | None"] = relationship(remote_side="Item.id")
    tags: Mapped[list[Tag]] = relationship(secondary=item_tag, order_by=Tag.id)


class Shelf(Kept):
    __tablename__ = "shelf"
    items: Mapped[list[Item]] = relationship(back_populates="shelf", order_by=Item.id)


class Note(Base):
    """Has no mark, and is seen by all."""

    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    said: Mapped[str]
    item_id: Mapped[int | None] = mapped_column(ForeignKey("item.id"))
    item: Mapped[Item | None] = relationship()


Note.copies = column_property(
    select(func.count(Item.id)).where(Item.name == Note.said).correlate_except(Item).scalar_subquery()
)


class Animal(Kept):
    __tablename__ = "animal"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}
    kind: Mapped[str]
    shelf_id: Mapped[int | None] = mapped_column(ForeignKey("shelf.id"))


class Dog(Animal):
    __tablename__ = "dog"
    __mapper_args__ = {"polymorphic_identity": "dog"}
    id: Mapped[int] = mapped_column(ForeignKey("animal.id"), primary_key=True)
    barks: Mapped[str]


def rows() -> list[Base]:
    """What is marked is called "gone", and each kind of row is beside one that is marked and one that is not."""
    tags = [Tag(id=n, name=("live", "gone")[n % 2], deleted_at=(None, GONE)[n % 2]) for n in range(2)]
    shelves = [Shelf(id=n, name=f"shelf {n}") for n in range(4)]
    shelves[1].name, shelves[1].deleted_at = "gone", GONE
    items = [
        Item(id=n, name=f"item {n}", shelf_id=shelf, parent_id=parent, tags=tags[: n % 3])
        for n, (shelf, parent) in enumerate(((0, None), (0, 0), (1, 1), (1, 0), (2, 1), (None, None), (2, 4)))
    ]
    for marked in (1, 3, 4, 6):  # all of shelf 2
        items[marked].name, items[marked].deleted_at = "gone", GONE
    notes = [Note(id=n, said=("gone", "item 0")[n % 2], item_id=(0, 1, None, 4)[n]) for n in range(4)]
    animals = [
        Dog(id=n, name=("cat", "gone")[n % 2], deleted_at=(None, GONE)[n % 2], shelf_id=n % 3, barks=str(n))
        for n in range(4)
    ]
    return [*tags, *shelves, *items, *notes, *animals, Animal(id=9, name="gone", deleted_at=GONE)]


async def fill(database: Database, *, without_marked: bool) -> None:
    await database.create_all(Base.metadata)
    async with database.session() as session:
        made = rows()
        for kind in (Tag, Shelf, Item, Note, Animal, Dog):  # parents first
            session.add_all([each for each in made if type(each) is kind])
            await session.flush()
        await session.commit()
    if without_marked:
        async with database.engine.connect() as connection:
            await take_out(connection)


async def take_out(connection: AsyncConnection) -> None:
    """The marked rows, with foreign keys left to point at nothing."""
    if connection.dialect.name == "sqlite":
        await connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
    else:
        await connection.exec_driver_sql("SET session_replication_role = replica")
    await connection.execute(
        text("DELETE FROM dog WHERE id IN (SELECT id FROM animal WHERE deleted_at IS NOT NULL)")
    )
    for table in ("animal", "item", "shelf", "tag"):
        await connection.execute(text(f"DELETE FROM {table} WHERE deleted_at IS NOT NULL"))
    await connection.commit()
    await connection.invalidate()


# --- What comes back ------------------------------------------------------------------------------

FALLBACK = {"logging_token": "an option that the native path knows nothing of"}
REFUSED = "refused"


def shown(value: Any, depth: int = 2) -> Any:
    """A value, or an instance with all that it has loaded."""
    if isinstance(value, list):
        return [shown(each, depth) for each in value]
    if not isinstance(value, Base):
        return value
    return {
        name: "…" if depth == 0 and isinstance(each, Base | list) else shown(each, depth - 1)
        for name, each in sorted(value.__dict__.items())
        if not name.startswith("_")
    }


async def found(database: Database, statement: Any, *, natively: bool = True) -> Any:
    options = {} if natively else FALLBACK
    async with database.session() as session:
        try:
            result = await session.execute(statement, execution_options=options)
        except UnsupportedStatement:
            return REFUSED
        return sorted(repr([shown(each) for each in row]) for row in result.unique().all())


async def same(with_marked: Database, without: Database, statement: Any) -> Any:
    """What both show, by either path; or that it is refused."""
    answers = [await found(with_marked, statement, natively=natively) for natively in (True, False)]
    assert answers[0] == answers[1], statement
    if answers[0] != REFUSED:
        assert answers[0] == await found(without, statement.options(include_deleted())), statement
    return answers[0]
