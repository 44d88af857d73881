"""Who may do what: a role is a set of permissions."""

from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy.orm import Mapped
from sqlmodel import Field, Relationship, SQLModel

from catalysis.starter.app.models.base import Model

if TYPE_CHECKING:
    from catalysis.starter.app.models.user import User


class RolePermission(SQLModel, table=True):
    """One permission of one role."""

    role_id: UUID = Field(primary_key=True, foreign_key="role.id", ondelete="CASCADE")
    permission_id: UUID = Field(primary_key=True, foreign_key="permission.id", ondelete="CASCADE", index=True)


class Permission(Model, table=True):
    """Something that can be allowed, `tasks:write` say; `app.permissions` lists them."""

    name: str = Field(max_length=50, unique=True)
    description: str = Field(max_length=200)

    roles: Mapped[list["Role"]] = Relationship(
        back_populates="permissions", link_model=RolePermission, passive_deletes=True
    )


class Role(Model, table=True):
    """A named set of permissions; a user has one role."""

    name: str = Field(max_length=100, unique=True)
    description: str = Field(default="", max_length=200)

    permissions: Mapped[list[Permission]] = Relationship(
        back_populates="roles", link_model=RolePermission, passive_deletes=True
    )
    users: Mapped[list["User"]] = Relationship(back_populates="role", passive_deletes="all")
