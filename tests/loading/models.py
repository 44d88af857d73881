"""Shelves and their items: what the tests of batches and of `load` share."""

from typing import Any

from sqlalchemy import ForeignKey, select
from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    attribute_keyed_dict,
    mapped_column,
    relationship,
    synonym,
)

from catalysis import (
    Session,
)


class Base(AsyncAttrs, DeclarativeBase):
    pass


class Shelf(Base):
    __tablename__ = "shelf"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    items: Mapped[list["Item"]] = relationship(back_populates="shelf", order_by="Item.size.desc()")
    by_name: Mapped[dict[str, "Item"]] = relationship(
        viewonly=True, collection_class=attribute_keyed_dict("name")
    )
    warned: Mapped[list["Item"]] = relationship(viewonly=True, info={"strict_loading": "warn"})
    refused: Mapped[list["Item"]] = relationship(viewonly=True, info={"strict_loading": "raise"})


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    size: Mapped[int]
    note: Mapped[str | None] = mapped_column(deferred=True)
    remark: Mapped[str | None] = synonym("note")
    shelf_id: Mapped[int | None] = mapped_column(ForeignKey("shelf.id"))
    shelf: Mapped[Shelf | None] = relationship(back_populates="items")
    twin_id: Mapped[int | None] = mapped_column(ForeignKey("item.id"))
    twin: Mapped["Item | None"] = relationship(remote_side="Item.id")
    twins: Mapped[list["Item"]] = relationship(overlaps="twin", order_by="Item.id")


SHELVES, ITEMS = 7, 4


async def shelves_of(session: Session, *options: Any) -> list[Shelf]:
    return list((await session.scalars(select(Shelf).options(*options).order_by(Shelf.id))).all())
