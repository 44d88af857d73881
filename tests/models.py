"""The models the tests share, in a registry of their own so that their tables meet no others."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from sqlalchemy import Column, ForeignKey, Table, UniqueConstraint
from sqlalchemy.orm import registry
from sqlmodel import Field, Relationship

from catalysis import Database, DatabaseSettings, ModelWithIdAndTimestamps, SoftDelete


class Model(ModelWithIdAndTimestamps, registry=registry()):
    pass


person_team = Table(
    "person_team",
    Model.metadata,
    Column("person_id", ForeignKey("person.id"), primary_key=True),
    Column("team_id", ForeignKey("team.id"), primary_key=True),
)


class Team(SoftDelete, Model, table=True):
    name: str = Field(max_length=50, unique=True)
    people: list["Person"] = Relationship(
        back_populates="teams", sa_relationship_kwargs={"secondary": person_team}
    )


class Person(SoftDelete, Model, table=True):
    name: str = Field(max_length=50, unique=True)
    teams: list[Team] = Relationship(
        back_populates="people", sa_relationship_kwargs={"secondary": person_team}
    )
    jobs: list["Job"] = Relationship(back_populates="person", cascade_delete=True)


class Job(SoftDelete, Model, table=True):
    __table_args__ = (UniqueConstraint("person_id", "title"),)

    title: str = Field(max_length=200)
    done: bool = False
    person_id: UUID = Field(foreign_key="person.id", index=True)
    person: Person = Relationship(back_populates="jobs")


class Label(Model, table=True):
    """Has `deleted_at` like every model, but does not opt in to soft delete."""

    name: str = Field(unique=True)


@asynccontextmanager
async def made(url: str | DatabaseSettings) -> AsyncIterator[Database]:
    """A database with the tables, closed afterwards."""
    database = Database(url)
    await database.create_all(Model.metadata)
    try:
        yield database
    finally:
        await database.close()
