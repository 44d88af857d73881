"""Tables of a cluster: one that is on every node, and some that are divided among shards by their organisation."""

from typing import Any
from uuid import UUID

from sqlalchemy import Column, ForeignKey, ForeignKeyConstraint, Table, Uuid
from sqlalchemy.orm import registry
from sqlmodel import Field, Relationship

from catalysis import ModelWithIdAndTimestamps, TenantScoped
from catalysis.distribution import Distributed, Reference


class Model(ModelWithIdAndTimestamps, registry=registry()):
    pass


class Country(Model, table=True):
    __distribution__ = Reference()

    name: str = Field(unique=True)


class Organisation(Model, table=True):
    """By its own key."""

    __distribution__ = Distributed(by="id")

    name: str
    country_id: UUID | None = Field(default=None, foreign_key="country.id")


class OfOrganisation(Model):
    """Keys of two columns: a row's own, and the organisation's."""

    __distribution__ = Distributed(by="organisation_id")

    organisation_id: UUID = Field(primary_key=True, foreign_key="organisation.id")


class Project(OfOrganisation, table=True):
    name: str
    tasks: list["Task"] = Relationship(back_populates="project")


def of_project(**options: Any) -> ForeignKeyConstraint:
    return ForeignKeyConstraint(
        ["organisation_id", "project_id"], ["project.organisation_id", "project.id"], **options
    )


class Task(OfOrganisation, table=True):
    __table_args__ = (of_project(),)

    title: str
    project_id: UUID | None = None
    category_id: UUID | None = None
    project: Project | None = Relationship(back_populates="tasks")
    # Not what a cluster wants: a task is looked for in all organisations.
    reviews: list["Review"] = Relationship(
        sa_relationship_kwargs={
            "primaryjoin": "Task.id == foreign(Review.task_id)",
            "viewonly": True,
        }
    )


class Review(OfOrganisation, table=True):
    task_id: UUID
    text: str = ""


label = Table(
    "label",
    Model.metadata,
    Column("organisation_id", Uuid, ForeignKey("organisation.id"), primary_key=True),
    Column("name", primary_key=True, type_=Uuid),
    info={"distribution": Distributed(by="organisation_id", colocate_with="organisation")},
)


class Note(TenantScoped, OfOrganisation, table=True):
    """Of a tenant, by whom it is distributed."""

    __tenant__ = "organisation_id"

    text: str
