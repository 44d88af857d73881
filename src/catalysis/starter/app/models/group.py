"""Groups of users.  A membership is a row of its own, since it has something to say: the standing, since when."""

from datetime import UTC, datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy.orm import Mapped
from sqlmodel import Field, Relationship, SQLModel

from catalysis import SoftDelete
from catalysis.starter.app.models.base import Model
from catalysis.starter.app.models.user import User


class Standing(StrEnum):
    """What a member is in the group."""

    member = "member"
    lead = "lead"


class Group(SoftDelete, Model, table=True):
    """A team, a project, a club."""

    name: str = Field(max_length=100, unique=True)
    description: str = Field(default="", max_length=5000)

    memberships: Mapped[list["Membership"]] = Relationship(back_populates="group", passive_deletes="all")


class Membership(SQLModel, table=True):
    """One user in one group."""

    group_id: UUID = Field(primary_key=True, foreign_key="group.id", ondelete="CASCADE")
    user_id: UUID = Field(primary_key=True, foreign_key="user.id", ondelete="CASCADE", index=True)
    standing: Standing = Field(default=Standing.member)
    joined_at: datetime = Field(default_factory=lambda: datetime.now(UTC))

    group: Mapped[Group] = Relationship(back_populates="memberships")
    user: Mapped[User] = Relationship(back_populates="memberships")
