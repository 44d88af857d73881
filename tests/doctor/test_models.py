"""What the doctor finds in models alone: each fault, and its mend, which it does not complain of."""

import warnings
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import pytest
from sqlalchemy import (
    Column,
    DateTime,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    TypeDecorator,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, registry, relationship
from sqlmodel import Field, Relationship

from catalysis import NAMING_CONVENTION, ModelWithIdAndTimestamps, SoftDelete
from catalysis.doctor.complaint import Complaint
from catalysis.doctor.models import Models, examine_models


def complaints(*metadata: MetaData) -> list[Complaint]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SQLAlchemy has its own word on relationships that are apart
        return list(examine_models(Models.of(metadata)))


def codes(*metadata: MetaData) -> list[tuple[str, str]]:
    return sorted((each.code, each.subject) for each in complaints(*metadata))


@pytest.fixture
def metadata() -> MetaData:
    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    Table("owner", metadata, Column("a", Integer, primary_key=True), Column("b", Integer, primary_key=True))
    Table("user", metadata, Column("id", Integer, primary_key=True))
    return metadata


# --- Foreign keys ---------------------------------------------------------------------------------


def one_key(*more: object) -> tuple[object, ...]:
    return (Column("id", Integer, primary_key=True), Column("user_id", ForeignKey("user.id")), *more)


@pytest.mark.parametrize(
    "columns",
    [
        one_key(),
        one_key(Column("x", Integer), Index("i", "x", "user_id")),
        one_key(Index("i", func.abs(text("user_id")))),
        one_key(Index("i", "user_id", postgresql_where=text("id > 3"), sqlite_where=text("id > 3"))),
        one_key(Index("i", "user_id", postgresql_using="brin")),
        (Column("id", Integer, primary_key=True), Column("user_id", ForeignKey("user.id"), primary_key=True)),
    ],
)
def test_a_foreign_key_without_an_index(metadata, columns):
    Table("task", metadata, *columns)
    (complaint,) = complaints(metadata)
    assert (complaint.code, complaint.name, complaint.severity) == (
        "D101",
        "foreign-key-without-index",
        "warning",
    )
    assert complaint.subject == "task.user_id"
    assert "user.id" in complaint.message
    assert complaint.mend == "Column('user_id', ForeignKey('user.id'), index=True)"
    assert complaint.source.startswith("https://www.postgresql.org/docs/")


@pytest.mark.parametrize(
    "columns",
    [
        one_key(Index("i", "user_id")),
        one_key(Index("i", "user_id", "id")),
        one_key(Index("i", text("user_id DESC")), Index("j", "user_id")),
        one_key(UniqueConstraint("user_id", "id")),
        one_key(Index("i", "user_id", postgresql_where=text("user_id IS NOT NULL"))),
        one_key(
            Column("deleted_at", DateTime(True)),
            Index("i", "user_id", sqlite_where=text("deleted_at IS NULL")),
        ),
        (Column("user_id", ForeignKey("user.id"), primary_key=True), Column("id", Integer, primary_key=True)),
    ],
)
def test_a_foreign_key_that_an_index_begins_with(metadata, columns):
    Table("task", metadata, *columns)
    assert complaints(metadata) == []


def test_a_descending_index_serves_a_foreign_key(metadata):
    task = Table("task", metadata, *one_key())
    Index("i", task.c.user_id.desc())
    assert complaints(metadata) == []


def test_what_comes_after_an_expression_serves_no_foreign_key(metadata):
    task = Table("task", metadata, *one_key())
    Index("i", func.abs(task.c.id), task.c.user_id)
    assert codes(metadata) == [("D101", "task.user_id")]


@pytest.mark.parametrize(("order", "found"), [(["b", "a", "id"], []), (["a", "id", "b"], ["D101"])])
def test_a_foreign_key_of_several_columns(metadata, order, found):
    Table(
        "pet",
        metadata,
        *(Column("id", Integer, primary_key=True), Column("a", Integer), Column("b", Integer)),
        ForeignKeyConstraint(["a", "b"], ["owner.a", "owner.b"]),
        Index("i", *order),
    )
    assert [each.code for each in complaints(metadata)] == found
    for each in complaints(metadata):
        assert each.subject == "pet.(a, b)"
        assert each.mend == "Index('ix_pet_a_b', 'a', 'b') in __table_args__"


def test_the_mend_is_written_as_the_model_is():
    class Base(
        ModelWithIdAndTimestamps, registry=registry(metadata=MetaData(naming_convention=NAMING_CONVENTION))
    ):
        pass

    class Owner(Base, table=True):
        pass

    class Cat(Base, table=True):
        owner_id: UUID = Field(foreign_key="owner.id")

    class Declared(DeclarativeBase):
        metadata = MetaData(naming_convention=NAMING_CONVENTION)

    class Keeper(Declared):
        __tablename__ = "keeper"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Dog(Declared):
        __tablename__ = "dog"
        id: Mapped[int] = mapped_column(primary_key=True)
        keeper_id: Mapped[int] = mapped_column(ForeignKey("keeper.id"))

    assert [each.mend for each in complaints(Base.metadata, Declared.metadata)] == [
        "owner_id: … = Field(foreign_key='owner.id', index=True)",
        "keeper_id: … = mapped_column(ForeignKey('keeper.id'), index=True)",
    ]


# --- One to one -----------------------------------------------------------------------------------


def one_to_one(*, unique: bool, uselist: bool = False, soft: bool = False) -> MetaData:
    class Base(
        ModelWithIdAndTimestamps, registry=registry(metadata=MetaData(naming_convention=NAMING_CONVENTION))
    ):
        pass

    class User(Base, table=True):
        if uselist:
            profile: list["Profile"] = Relationship(back_populates="user")
        else:
            profile: "Profile" = Relationship(
                back_populates="user", sa_relationship_kwargs={"uselist": False}
            )

    class Profile(*((SoftDelete, Base) if soft else (Base,)), table=True):
        user_id: UUID = Field(foreign_key="user.id", index=True, unique=unique)
        user: User = Relationship(back_populates="profile")

    return Base.metadata


def test_one_to_one_without_unique():
    (complaint,) = complaints(one_to_one(unique=False))
    assert (complaint.code, complaint.subject) == ("D102", "profile.user_id")
    assert "User.profile and Profile.user" in complaint.message
    assert "unique=True" in complaint.mend


def test_one_to_one_with_unique_or_one_to_many():
    assert complaints(one_to_one(unique=True)) == []
    assert complaints(one_to_one(unique=True, soft=True)) == []
    assert complaints(one_to_one(unique=False, uselist=True)) == []


# --- Types ----------------------------------------------------------------------------------------


class OwnZone(TypeDecorator[datetime]):
    impl = DateTime
    cache_ok = True


def test_naive_timestamps_are_those_of_a_plain_type():
    class Base(ModelWithIdAndTimestamps, registry=registry(metadata=MetaData())):
        pass  # its own times are aware

    class Event(Base, table=True):
        naive: datetime = Field(sa_type=DateTime)
        aware: datetime = Field(sa_type=DateTime(timezone=True))
        own: datetime = Field(sa_type=OwnZone)
        usual: datetime

    (complaint,) = complaints(Base.metadata)
    assert (complaint.code, complaint.subject, complaint.severity) == ("D103", "event.naive", "warning")
    assert complaint.mend == "naive: … = Field(sa_type=DateTime(timezone=True))"


def test_money_as_float_is_a_hint():
    metadata = MetaData()
    Table(
        "item",
        metadata,
        *(Column("id", Integer, primary_key=True), Column("price", Float), Column("unit_price", Float)),
        *(Column("amount", Numeric(10, 2)), Column("weight", Float), Column("priceless", Float)),
    )
    assert codes(metadata) == [("D106", "item.price"), ("D106", "item.unit_price")]
    assert {each.severity for each in complaints(metadata)} == {"info"}


# --- Relationships --------------------------------------------------------------------------------


def users_and_tasks(**options: str) -> MetaData:
    class Base(DeclarativeBase):
        metadata = MetaData(naming_convention=NAMING_CONVENTION)

    class User(Base):
        __tablename__ = "user"
        id: Mapped[int] = mapped_column(primary_key=True)
        tasks = relationship("Task", **options)

    class Task(Base):
        __tablename__ = "task"
        id: Mapped[int] = mapped_column(primary_key=True)
        user_id: Mapped[int] = mapped_column(ForeignKey("user.id"), index=True)
        user = relationship("User", **({"back_populates": "tasks"} if options.get("back_populates") else {}))

    return Base.metadata


def test_relationships_that_do_not_know_of_each_other():
    (complaint,) = complaints(users_and_tasks())
    assert (complaint.code, complaint.subject) == ("D104", "Task.user")
    assert complaint.mend == "back_populates='tasks' on Task.user, back_populates='user' on User.tasks"
    assert complaints(users_and_tasks(back_populates="user")) == []
    assert complaints(users_and_tasks(overlaps="user")) == []
    assert complaints(users_and_tasks(viewonly=True)) == []  # type: ignore[arg-type]


def test_a_backref_goes_both_ways():
    class Base(DeclarativeBase):
        metadata = MetaData(naming_convention=NAMING_CONVENTION)

    class User(Base):
        __tablename__ = "user"
        id: Mapped[int] = mapped_column(primary_key=True)
        tasks = relationship("Task", backref="user")

    class Task(Base):
        __tablename__ = "task"
        id: Mapped[int] = mapped_column(primary_key=True)
        user_id: Mapped[int] = mapped_column(ForeignKey("user.id"), index=True)

    assert complaints(Base.metadata) == []


@pytest.mark.parametrize(("second", "found"), [("joined", [("D105", "User")]), ("selectin", [])])
def test_collections_joined_on_each_load(second, found):
    class Base(DeclarativeBase):
        metadata = MetaData(naming_convention=NAMING_CONVENTION)

    class User(Base):
        __tablename__ = "user"
        id: Mapped[int] = mapped_column(primary_key=True)
        tasks = relationship("Task", lazy="joined")
        notes = relationship("Note", lazy=second)

    class Task(Base):
        __tablename__ = "task"
        id: Mapped[int] = mapped_column(primary_key=True)
        user_id: Mapped[int] = mapped_column(ForeignKey("user.id"), index=True)

    class Note(Base):
        __tablename__ = "note"
        id: Mapped[int] = mapped_column(primary_key=True)
        user_id: Mapped[int] = mapped_column(ForeignKey("user.id"), index=True)

    assert codes(Base.metadata) == found


# --- Names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("convention", "found"), [({}, [("D107", "task")]), (NAMING_CONVENTION, [])])
def test_constraints_without_names(convention, found):
    metadata = MetaData(naming_convention=convention or None)
    Table("task", metadata, Column("id", Integer, primary_key=True), Column("title", String, unique=True))
    assert codes(metadata) == found


def test_money_as_numeric_is_no_hint():
    class Base(ModelWithIdAndTimestamps, registry=registry(metadata=MetaData())):
        pass

    class Item(Base, table=True):
        price: Decimal

    assert complaints(Base.metadata) == []
