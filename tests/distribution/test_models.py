"""What a model says of its distribution, and what a cluster would refuse is refused before."""

from typing import Any

import pytest
from sqlalchemy import (
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, configure_mappers, mapped_column, registry
from sqlmodel import Field

from catalysis import ModelError, ModelWithIdAndTimestamps
from catalysis.distribution import Distributed, Local, Reference
from catalysis.distribution.declared import distribution_of, has_distributed, is_clustered, placed_tables
from catalysis.distribution.rules import check_distribution
from tests.distribution import models


def test_it_is_kept_with_the_table_and_inherited():
    found = {table.name: distribution_of(table) for table in models.Model.metadata.tables.values()}
    by_organisation = Distributed(by="organisation_id")
    assert found == {
        "country": Reference(),
        "organisation": Distributed(by="id"),
        "project": by_organisation,
        "task": by_organisation,
        "review": by_organisation,
        "note": by_organisation,
        "label": Distributed(by="organisation_id", colocate_with="organisation"),
    }
    order = [table.name for table in placed_tables(models.Model.metadata)]
    assert order.index("country") < order.index("organisation") < order.index("project") < order.index("task")
    assert has_distributed()


def test_plain_declarative_classes_and_single_tables():
    class Base(DeclarativeBase):
        pass

    class Account(Base):
        __tablename__ = "account"
        __distribution__ = Distributed(by="id")
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str]
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "plain"}

    class Special(Account):
        __mapper_args__ = {"polymorphic_identity": "special"}

    class Setting(Base):
        __tablename__ = "setting"
        __distribution__ = Local()
        id: Mapped[int] = mapped_column(primary_key=True)

    configure_mappers()
    assert [table.name for table in placed_tables(Base.metadata)] == ["account"]
    assert is_clustered(Base.metadata)


def test_a_word_that_says_nothing():
    class Base(ModelWithIdAndTimestamps, registry=registry()):
        pass

    with pytest.raises(ModelError, match=r"Wrong\.__distribution__ is a str"):

        class Wrong(Base, table=True):
            __distribution__ = "tenant_id"


def test_a_model_whose_key_lacks_the_column_is_refused_each_time():
    """The key of `ModelWithIdAndTimestamps` alone is none for a cluster."""

    class Base(ModelWithIdAndTimestamps, registry=registry()):
        pass

    class Item(Base, table=True):
        __distribution__ = Distributed(by="tenant_id")
        tenant_id: int = Field()

    for _ in range(2):
        with pytest.raises(ModelError, match=r"its primary key \(id\) does not include .* primary_key=True"):
            Item(tenant_id=1)


BY = Distributed(by="t")
REFERS = ["p_t", "p_id"]


def parent(metadata: MetaData, **options: Any) -> None:
    options.setdefault("info", {"distribution": BY})
    columns = [Column("t", Integer, primary_key=True), Column("id", Integer, primary_key=True)]
    Table("parent", metadata, *columns, UniqueConstraint("id", "t"), **options)


def tables(*things: Any, said: Any = BY, of_parent: Any = BY, kind: Any = Integer) -> MetaData:
    """A parent, and a child with these constraints and columns."""
    metadata = MetaData()
    parent(metadata, info={} if of_parent is None else {"distribution": of_parent})
    columns = [
        Column("t", kind, primary_key=True),
        Column("id", Integer, primary_key=True),
        Column("p_id", Integer),
    ]
    info = {} if said is None else {"distribution": said}
    Table("child", metadata, *columns, *things, info=info)
    return metadata


def to_parent(*columns: str, **options: Any) -> ForeignKeyConstraint:
    own, theirs = columns or ("t", "p_id"), ("t", "id") if len(columns) != 1 else ("id",)
    return ForeignKeyConstraint(own, [f"parent.{each}" for each in theirs], **options)


GOOD = {
    "nothing": tables(),
    "a key to a colocated table": tables(to_parent()),
    "with an action": tables(to_parent(ondelete="CASCADE")),
    "that spares the column": tables(to_parent(ondelete="SET NULL (p_id)")),
    "said to lie beside": tables(to_parent(), said=Distributed("t", colocate_with="parent")),
    "to a reference table": tables(to_parent("p_id", ondelete="SET NULL"), of_parent=Reference()),
    "between reference tables": tables(to_parent(), said=Reference(), of_parent=Reference()),
    "from a local table to a reference table": tables(to_parent(), said=None, of_parent=Reference()),
    "between local tables": tables(to_parent(), said=None, of_parent=None),
    "unique with it": tables(UniqueConstraint("p_id", "t")),
    "to itself": tables(ForeignKeyConstraint(["t", "p_id"], ["child.t", "child.id"])),
    "a table that is not there": tables(Column("else_id", Integer, ForeignKey("else.id"))),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_a_cluster_takes(name: str):
    check_distribution(GOOD[name])


BAD = {
    "no such column": (tables(said=Distributed("x")), "distributed by 'x', but has no such column"),
    "a unique constraint": (
        tables(UniqueConstraint("p_id")),
        r"its unique constraint \(p_id\) does not include",
    ),
    "a unique index": (tables(Index("ix", "p_id", unique=True)), r"its unique index 'ix' \(p_id\)"),
    "a key without it": (
        tables(to_parent("p_id")),
        "does not go from child.t to parent.t.  Make it a composite",
    ),
    "a key that crosses": (tables(to_parent("p_id", "t")), "does not go from child.t to parent.t"),
    "apart": (tables(to_parent(), said=Distributed("t", "none")), "do not lie beside each other"),
    "apart, the other": (tables(to_parent(), of_parent=Distributed("t", "none")), "colocate_with='parent'"),
    "another type": (tables(to_parent(), kind=Text), "do not lie beside each other"),
    "beside another type": (
        tables(said=Distributed("t", "parent"), kind=Text),
        "another type: INTEGER, not TEXT",
    ),
    "beside nothing": (tables(said=Distributed("t", "else")), "'else', which is no distributed table"),
    "beside a reference": (
        tables(said=Distributed("t", "parent"), of_parent=Reference()),
        "'parent', which is no distributed table",
    ),
    "reference to distributed": (
        tables(to_parent(), said=Reference()),
        "is a reference table, and 'parent' is",
    ),
    "local to distributed": (tables(to_parent(), said=None), "'child' is local, and 'parent' is distributed"),
    "distributed to local": (
        tables(to_parent(), of_parent=None),
        "and 'parent' is local.  Make that `Reference",
    ),
    "sets null": (
        tables(to_parent(ondelete="set null")),
        r"would change 't'.  Write ondelete='SET NULL \(p_id\)'",
    ),
    "sets null of a reference": (
        tables(to_parent(ondelete="SET DEFAULT"), of_parent=Reference()),
        "ON DELETE SET DEFAULT would change 't'",
    ),
    "updates": (
        tables(to_parent(onupdate="CASCADE")),
        "ON UPDATE CASCADE would change 't'.  Leave onupdate out",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_a_cluster_would_refuse(name: str):
    metadata, message = BAD[name]
    for _ in range(2):
        with pytest.raises(ModelError, match=message):
            check_distribution(metadata)
