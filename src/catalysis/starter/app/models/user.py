"""The people who log in."""

from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy.orm import Mapped
from sqlmodel import Field, Relationship

from catalysis import SoftDelete
from catalysis.starter.app.models.base import Model
from catalysis.starter.app.models.role import Role
from catalysis.starter.app.permissions import PermissionName

if TYPE_CHECKING:
    from catalysis.starter.app.models.group import Membership
    from catalysis.starter.app.models.task import Task


class User(SoftDelete, Model, table=True):
    """Somebody with a name, a password and a role."""

    username: str = Field(max_length=50, unique=True)
    email: str = Field(max_length=254, unique=True)
    full_name: str = Field(default="", max_length=200)
    # repr=False keeps the hash out of logs and tracebacks.
    password_hash: str = Field(max_length=255, repr=False)
    token_generation: int = Field(default=0)
    """Tokens of an earlier generation are refused: raising it logs the user out everywhere."""
    is_active: bool = Field(default=True)
    role_id: UUID = Field(foreign_key="role.id", ondelete="RESTRICT", index=True)

    role: Mapped[Role] = Relationship(back_populates="users")
    tasks: Mapped[list["Task"]] = Relationship(back_populates="user", passive_deletes="all")
    memberships: Mapped[list["Membership"]] = Relationship(back_populates="user", passive_deletes="all")

    def may(self, permission: PermissionName) -> bool:
        """Whether the user's role allows it; the role and its permissions must be loaded."""
        return any(each.name == permission for each in self.role.permissions)
