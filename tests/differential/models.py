"""Models with most of what a mapping can have, and a few rows of each."""

import enum
from datetime import date
from typing import Any

from sqlalchemy import JSON, Column, ForeignKey, ForeignKeyConstraint, Numeric, String, Table, func, select
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    column_property,
    composite,
    deferred,
    mapped_column,
    relationship,
)
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, SQLModel


class Base(DeclarativeBase):
    pass


class Mood(enum.Enum):
    CALM = "calm"
    WILD = "wild"


class Upper(TypeDecorator[str]):
    """Stored in lower case, seen in upper case."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return value and value.lower()

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return value and value.upper()


class Point:
    def __init__(self, x: int | None, y: int | None) -> None:
        self.x, self.y = x, y

    def __composite_values__(self) -> tuple[int | None, int | None]:
        return self.x, self.y

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and (self.x, self.y) == (other.x, other.y)

    def __hash__(self) -> int:
        return hash((self.x, self.y))

    def __repr__(self) -> str:
        return f"Point({self.x}, {self.y})"


tagged = Table(
    "tagged",
    Base.metadata,
    Column("book_id", ForeignKey("book.id"), primary_key=True),
    Column("tag_id", ForeignKey("tag.id"), primary_key=True),
)


class Tag(Base):
    __tablename__ = "tag"
    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str] = mapped_column(Upper(20), unique=True)
    books: Mapped[list["Book"]] = relationship(secondary=tagged, back_populates="tags")


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    mood: Mapped[Mood | None]
    born: Mapped[date | None]
    notes: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    biography: Mapped[str | None] = deferred(mapped_column(String))
    books: Mapped[list["Book"]] = relationship(
        back_populates="author", cascade="all, delete-orphan", order_by="Book.id"
    )
    passport: Mapped["Passport | None"] = relationship(back_populates="author")

    @hybrid_property
    def shout(self) -> str:
        return self.name + "!"


class Passport(Base):
    __tablename__ = "passport"
    country: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int | None] = mapped_column(ForeignKey("author.id"), unique=True)
    author: Mapped[Author | None] = relationship(back_populates="passport")
    stamps: Mapped[set["Stamp"]] = relationship(back_populates="passport", cascade="all, delete-orphan")


class Stamp(Base):
    __tablename__ = "stamp"
    id: Mapped[int] = mapped_column(primary_key=True)
    country: Mapped[str | None]
    number: Mapped[int | None]
    passport: Mapped[Passport | None] = relationship(back_populates="stamps")
    __table_args__ = (ForeignKeyConstraint(["country", "number"], ["passport.country", "passport.number"]),)


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(unique=True)
    price: Mapped[Any] = mapped_column(Numeric(8, 2), nullable=True)
    copies: Mapped[int] = mapped_column(server_default="7")
    version: Mapped[int] = mapped_column()
    author_id: Mapped[int | None] = mapped_column(ForeignKey("author.id"))
    author: Mapped[Author | None] = relationship(back_populates="books")
    tags: Mapped[list[Tag]] = relationship(secondary=tagged, back_populates="books", order_by=Tag.id)
    __mapper_args__ = {"version_id_col": version}


class Spot(Base):
    __tablename__ = "spot"
    id: Mapped[int] = mapped_column(primary_key=True)
    x: Mapped[int | None]
    y: Mapped[int | None]
    place: Mapped[Point] = composite(Point, "x", "y")


class Branch(Base):
    """A tree."""

    __tablename__ = "branch"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("branch.id"))
    parent: Mapped["Branch | None"] = relationship(back_populates="children", remote_side="Branch.id")
    children: Mapped[list["Branch"]] = relationship(back_populates="parent", order_by="Branch.id")


class Animal(Base):
    """Joined inheritance, and single below it."""

    __tablename__ = "animal"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str]
    keeper_id: Mapped[int | None] = mapped_column(ForeignKey("author.id"))
    keeper: Mapped[Author | None] = relationship()
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}


class Dog(Animal):
    __tablename__ = "dog"
    id: Mapped[int] = mapped_column(ForeignKey("animal.id"), primary_key=True)
    tricks: Mapped[int] = mapped_column(default=0)
    __mapper_args__ = {"polymorphic_identity": "dog"}


class Fish(Animal):
    __mapper_args__ = {"polymorphic_identity": "fish"}


Author.book_count = column_property(
    select(func.count(Book.id)).where(Book.author_id == Author.id).correlate_except(Book).scalar_subquery()
)


class SQLModelBase(SQLModel, registry=Base.registry):
    pass


class Gadget(SQLModelBase, table=True):
    __tablename__ = "gadget"
    id: int | None = Field(default=None, primary_key=True)
    name: str
    weight: float | None = None


MODELS: list[Any] = [Author, Book, Tag, Passport, Stamp, Spot, Branch, Animal, Dog, Fish, Gadget]


def rows() -> list[Any]:
    """What every program starts from."""
    authors = [
        Author(
            id=n,
            name=f"author {n}",
            mood=[Mood.CALM, Mood.WILD, None][n % 3],
            born=date(1900 + n, 1, 2) if n % 2 else None,
            notes={"n": n} if n != 2 else None,
            biography=f"life {n}",
        )
        for n in range(1, 5)
    ]
    tags = [Tag(id=n, label=f"TAG {n}") for n in range(1, 5)]
    books = [
        Book(
            id=n,
            title=f"book {n}",
            price=n + 0.5,
            author=authors[n % 3] if n < 7 else None,
            tags=tags[: n % 4],
        )
        for n in range(1, 9)
    ]
    passports = [Passport(country="xy", number=n, author=authors[n] if n < 2 else None) for n in range(3)]
    stamps = [Stamp(id=n, passport=passports[n % 2]) for n in range(1, 5)]
    branches = [Branch(id=1, name="root")]
    for n in range(2, 6):
        branches.append(Branch(id=n, name=f"branch {n}", parent=branches[(n - 2) // 2]))
    animals = [
        Animal(id=1, name="it", keeper=authors[0]),
        Dog(id=2, name="rex", tricks=3, keeper=authors[0]),
        Fish(id=3, name="wanda"),
        Dog(id=4, name="bo", tricks=1),
    ]
    gadgets = [Gadget(id=n, name=f"gadget {n}", weight=n / 2) for n in range(1, 4)]
    spots = [Spot(id=n, place=Point(n, n * 2)) for n in range(1, 4)]
    return [*authors, *tags, *books, *passports, *stamps, *branches, *animals, *gadgets, *spots]
