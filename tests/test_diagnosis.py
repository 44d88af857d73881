"""A broken model is explained with its mend, at the moment SQLAlchemy fails on it."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import DeclarativeBase, Mapped, configure_mappers, mapped_column, registry, relationship
from sqlmodel import Field, Relationship, SQLModel, select

from catalysis import Database, ModelError, ModelWithIdAndTimestamps
from catalysis.diagnosis import check_tables


def model_base() -> type[ModelWithIdAndTimestamps]:
    """A base in a registry of its own, so that what is broken stays here."""

    class Base(ModelWithIdAndTimestamps, registry=registry()):
        pass

    return Base


@pytest.fixture(autouse=True)
def _forget_broken_models():
    yield
    for model in list(ModelWithIdAndTimestamps.__subclasses__()):
        if model.__qualname__.startswith("model_base."):
            model.registry.dispose()


async def test_a_foreign_key_naming_the_class(tmp_path):
    base = model_base()

    class User(base, table=True):
        name: str

    class Task(base, table=True):
        user_id: UUID = Field(foreign_key="User.id")

    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    with pytest.raises(ModelError, match=r"task\.user_id refers to 'User\.id'.*write 'user\.id'"):
        await database.create_all(base.metadata)
    await database.close()


async def test_a_foreign_key_to_nothing(tmp_path):
    base = model_base()

    class Users(base, table=True):
        name: str

    class Task(base, table=True):
        user_id: UUID = Field(foreign_key="user.id")

    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    with pytest.raises(ModelError, match=r"Did you mean 'users\.id'\?"):
        await database.create_all(base.metadata)
    await database.close()


def test_a_foreign_key_naming_the_class_under_a_relationship():
    base = model_base()

    class User(base, table=True):
        name: str

    class Task(base, table=True):
        user_id: UUID = Field(foreign_key="User.id")
        user: User = Relationship()

    with pytest.raises(ModelError, match=r"write 'user\.id'"):
        Task()


def test_back_populates_that_does_not_match():
    base = model_base()

    class User(base, table=True):
        tasks: list["Task"] = Relationship(back_populates="owner")

    class Task(base, table=True):
        user_id: UUID = Field(foreign_key="user.id")
        user: User = Relationship(back_populates="tasks")

    with pytest.raises(
        ModelError, match=r"User\.tasks says back_populates='owner', but Task\.owner does not exist.*'user'"
    ):
        User()


def test_back_populates_with_nothing_on_the_other_side():
    base = model_base()

    class User(base, table=True):
        tasks: list["Task"] = Relationship(back_populates="user")

    class Task(base, table=True):
        user_id: UUID = Field(foreign_key="user.id")

    with pytest.raises(ModelError, match=r"Add a relationship 'user' to Task with back_populates='tasks'"):
        configure_mappers()


def test_a_missing_table_true_in_a_relationship():
    base = model_base()

    class Errand(base):
        user_id: UUID = Field(foreign_key="user.id")

    class User(base, table=True):
        errands: list["Errand"] = Relationship()

    with pytest.raises(
        ModelError, match=r"User\.errands is a relationship to 'Errand'.*`class Errand\(Base, table=True\)`"
    ):
        User()


def test_a_missing_table_true_in_a_statement():
    base = model_base()

    class Task(base):
        title: str

    with pytest.raises(ModelError, match=r"Task is used in a statement but has no table.*table=True"):
        select(Task)


def test_a_misspelt_relationship_target():
    base = model_base()

    class Task(base, table=True):
        user_id: UUID = Field(foreign_key="user.id")
        user: "Usr" = Relationship()  # noqa: F821 - the fault

    class User(base, table=True):
        name: str

    with pytest.raises(
        ModelError, match=r"Task\.user is a relationship to 'Usr'.*Did you mean 'User'\?"
    ) as caught:
        User()
    assert isinstance(caught.value, InvalidRequestError), "existing handlers still match"


def test_plain_declarative_models_are_explained_too():
    class Base(DeclarativeBase):
        pass

    class Parent(Base):
        __tablename__ = "parents"
        id: Mapped[int] = mapped_column(primary_key=True)
        children: Mapped[list["Child"]] = relationship(back_populates="mother")

    class Child(Base):
        __tablename__ = "children"
        id: Mapped[int] = mapped_column(primary_key=True)
        parent_id: Mapped[int] = mapped_column(ForeignKey("parents.id"))
        parent: Mapped[Parent] = relationship(back_populates="children")

    with pytest.raises(ModelError, match=r"Write back_populates='parent' on Parent\.children"):
        Parent()
    Base.registry.dispose()


def test_sound_models_pass():
    class Base(DeclarativeBase):
        pass

    class Node(Base):
        __tablename__ = "nodes"
        id: Mapped[int] = mapped_column(primary_key=True)
        parent_id: Mapped[int | None] = mapped_column(ForeignKey("nodes.id"))
        children: Mapped[list["Node"]] = relationship(back_populates="parent")
        parent: Mapped["Node | None"] = relationship(back_populates="children", remote_side="Node.id")
        others = relationship(lambda: Node, viewonly=True, primaryjoin="Node.id == foreign(Node.parent_id)")

    Base.registry.configure()
    assert SQLModel.metadata is not Base.metadata
    Base.registry.dispose()


# --- What SQLAlchemy accepts is never refused -----------------------------------------------------


@pytest.mark.parametrize("way", ["a function", "a function of an attribute", "an attribute"])
def test_every_way_to_name_the_other_side(way: str):
    class Base(DeclarativeBase):
        pass

    class Parent(Base):
        __tablename__ = "parents"
        id: Mapped[int] = mapped_column(primary_key=True)
        children: Mapped[list["Child"]] = relationship(
            back_populates=(lambda: "parent") if way == "a function" else lambda: Child.parent
        )

    other: Any = {
        "a function": lambda: "children",
        "a function of an attribute": lambda: Parent.children,
        "an attribute": Parent.children,
    }[way]

    class Child(Base):
        __tablename__ = "children"
        id: Mapped[int] = mapped_column(primary_key=True)
        parent_id: Mapped[int] = mapped_column(ForeignKey("parents.id"))
        parent: Mapped[Parent] = relationship(back_populates=other)

    child = Child(parent=Parent())
    assert child.parent.children == [child]
    Base.registry.dispose()


@pytest.fixture
def plain() -> Iterator[type[DeclarativeBase]]:
    """A declarative base whose tables are in a schema that SQLite has."""

    class Base(DeclarativeBase):
        metadata = MetaData(schema="main")

    yield Base
    Base.registry.dispose()


async def test_every_way_to_name_a_table(plain: type[DeclarativeBase], tmp_path):
    elsewhere = Table("elsewhere", MetaData(), Column("id", Integer, primary_key=True))

    class User(plain):
        __tablename__ = "user"
        id: Mapped[int] = mapped_column(primary_key=True)
        twin_id: Mapped[int | None] = mapped_column(ForeignKey("main.user.id"))
        other: Mapped[int | None] = mapped_column(ForeignKey(elsewhere.c.id))

    class Task(plain):
        __tablename__ = "task"
        id: Mapped[int] = mapped_column(ForeignKey("user.id", name="fk_1"), primary_key=True)
        same: Mapped[int | None] = mapped_column(ForeignKey(User.__table__.c.id))
        user: Mapped[User] = relationship(foreign_keys="Task.id")

    class Note(plain):
        __tablename__ = "note"
        id: Mapped[int] = mapped_column(ForeignKey("user"), primary_key=True)  # the column of the same name

    check_tables(plain.metadata)
    plain.registry.configure()
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    async with database.engine.begin() as connection:
        await connection.run_sync(elsewhere.create)
    await database.create_all(plain.metadata)
    await database.close()


def test_a_class_that_is_called_like_its_table_in_a_schema(plain: type[DeclarativeBase]):
    class user(plain):
        __tablename__ = "user"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Task(plain):
        __tablename__ = "task"
        id: Mapped[int] = mapped_column(ForeignKey("user.id"), primary_key=True)
        user = relationship("user")

    plain.registry.configure()


async def test_tables_that_are_there_need_no_foreign_key_to_resolve(tmp_path):
    metadata = MetaData()
    Table("task", metadata, Column("id", Integer), Column("user_id", Integer, ForeignKey("User.id")))
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    async with database.engine.begin() as connection:
        await connection.exec_driver_sql("CREATE TABLE task (id INTEGER, user_id INTEGER)")
    await database.create_all(metadata)
    await database.close()


def test_registries_that_share_the_names_of_their_classes():
    names: dict[str, type] = {}

    class One(DeclarativeBase):
        registry = registry(class_registry=names)

    class Two(DeclarativeBase):
        registry = registry(class_registry=names, metadata=One.metadata)

    class Shared(One):
        __tablename__ = "shared"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Task(Two):
        __tablename__ = "task"
        id: Mapped[int] = mapped_column(ForeignKey("shared.id"), primary_key=True)
        shared = relationship("Shared")

    Two.registry.configure(cascade=True)
    assert Task(shared=Shared()).shared
    One.registry.dispose(cascade=True)


def test_another_link_makes_a_broken_foreign_key_harmless(plain: type[DeclarativeBase]):
    class User(plain):
        __tablename__ = "user"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Task(plain):
        __tablename__ = "task"
        id: Mapped[int] = mapped_column(ForeignKey("user.id"), primary_key=True)
        old: Mapped[int | None] = mapped_column(ForeignKey("User.id"))
        user: Mapped[User] = relationship()

    plain.registry.configure()
    with pytest.raises(ModelError, match=r"task\.old refers to 'main\.User\.id'.*write 'main\.user\.id'"):
        check_tables(plain.metadata)
