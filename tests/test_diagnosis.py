"""A broken model is explained with its mend, at the moment SQLAlchemy fails on it."""

from uuid import UUID

import pytest
from sqlalchemy import ForeignKey
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import DeclarativeBase, Mapped, configure_mappers, mapped_column, registry, relationship
from sqlmodel import Field, Relationship, SQLModel, select

from catalysis import Database, ModelError, ModelWithIdAndTimestamps


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
