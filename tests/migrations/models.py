"""A backend's models, as rich as the starter's: the tables that the tests migrate to."""

from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, Column, Index, MetaData, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import registry
from sqlmodel import Field, Relationship

from catalysis.models import NAMING_CONVENTION, ModelWithIdAndTimestamps
from catalysis.soft_delete import SoftDelete


class Base(
    ModelWithIdAndTimestamps, registry=registry(metadata=MetaData(naming_convention=NAMING_CONVENTION))
):
    """Apart from SQLModel.metadata, which other tests fill."""


class Status(Enum):
    TODO = "todo"
    DOING = "doing"
    DONE = "done"


class Priority(Enum):
    LOW = 1
    HIGH = 2


class GroupMember(Base, table=True):
    user_id: UUID = Field(foreign_key="user.id", ondelete="CASCADE", index=True)
    group_id: UUID = Field(foreign_key="group.id", ondelete="CASCADE")
    __table_args__ = (UniqueConstraint("user_id", "group_id"),)


class RolePermission(Base, table=True):
    role_id: UUID = Field(foreign_key="role.id", primary_key=True)
    permission_id: UUID = Field(foreign_key="permission.id", primary_key=True)


class Permission(Base, table=True):
    name: str = Field(max_length=50, unique=True)


class Role(SoftDelete, Base, table=True):
    name: str = Field(max_length=50, unique=True)


class User(SoftDelete, Base, table=True):
    email: str = Field(max_length=255, unique=True)
    name: str = Field(max_length=100, index=True)
    active: bool = Field(default=True, sa_column_kwargs={"server_default": text("true")})
    role_id: UUID | None = Field(default=None, foreign_key="role.id")
    tasks: list["Task"] = Relationship(back_populates="user")
    __table_args__ = (Index("ix_user_lower_email", func.lower(text("email"))),)


class Group(SoftDelete, Base, table=True):
    name: str = Field(index=True, unique=True)


class Category(Base, table=True):
    name: str
    parent_id: UUID | None = Field(default=None, foreign_key="category.id", ondelete="SET NULL")


class Task(SoftDelete, Base, table=True):
    title: str = Field(max_length=200)
    text: str | None = None
    status: Status = Field(default=Status.TODO, index=True)
    was: Status | None = None
    priority: Priority = Field(default=Priority.LOW, sa_column_kwargs={"server_default": "LOW"})
    price: Decimal = Field(default=0, max_digits=10, decimal_places=2)
    hours: float = 0
    due: datetime | None = None
    data: dict[str, Any] = Field(
        default_factory=dict, sa_column=Column(JSON().with_variant(JSONB(), "postgresql"), nullable=False)
    )
    blob: bytes | None = None
    user_id: UUID = Field(foreign_key="user.id", ondelete="CASCADE")
    category_id: UUID | None = Field(default=None, foreign_key="category.id")
    user: User = Relationship(back_populates="tasks")


tasks: Any = Task.__table__  # type: ignore[attr-defined] - SQLModel does not declare it
Index("ix_task_user_status_due", tasks.c.user_id, tasks.c.status, tasks.c.due.desc())
Index("ix_task_data", tasks.c.data, postgresql_using="gin")
Index("ix_task_created", tasks.c.created_at, postgresql_using="brin", postgresql_with={"pages_per_range": 32})
Index("ix_task_title_lower", func.lower(tasks.c.title), postgresql_ops={"lower": "text_pattern_ops"})
Index(
    "ix_task_open",
    tasks.c.due,
    postgresql_where=tasks.c.status != Status.DONE,
    sqlite_where=tasks.c.status != Status.DONE,
    postgresql_include=["title"],
)
Index(
    "uq_task_user_title",
    tasks.c.user_id,
    func.coalesce(tasks.c.text, "none"),
    unique=True,
    postgresql_where=tasks.c.deleted_at.is_(None),
    sqlite_where=tasks.c.deleted_at.is_(None),
)
METADATA = Base.metadata
