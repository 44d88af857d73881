"""Users, as others see them and as those who look after them do."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from catalysis import DTO
from catalysis.starter.app.dtos.fields import Email, Password, ShortText, Username, left_out
from catalysis.starter.app.dtos.pages import Paging
from catalysis.starter.app.dtos.roles import RoleDetailsDTO, RoleDTO

UserOrder = Literal["username", "-username", "created_at", "-created_at"]


class UserRefDTO(DTO):
    """Who it is, for use inside other answers."""

    id: UUID
    username: str
    full_name: str


class UserDTO(UserRefDTO):
    """A user with the role's name."""

    email: str
    is_active: bool
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    role: RoleDTO


class UserDetailsDTO(UserDTO):
    """A user with the role and what it permits."""

    role: RoleDetailsDTO  # pyright: ignore[reportIncompatibleVariableOverride] - narrower, and nobody assigns


class CreateUserDTO(DTO):
    """A new user; the role is `member` until somebody who may gives another."""

    username: Username
    email: Email
    full_name: ShortText = ""
    password: Password


class UpdateUserDTO(DTO):
    """What is left out stays as it is."""

    username: Username = left_out()
    email: Email = left_out()
    full_name: ShortText = left_out()
    is_active: bool = left_out()


class UserQuery(Paging):
    """Which users, in which order."""

    search: ShortText | None = None
    is_active: bool | None = None
    role_id: UUID | None = None
    include_deleted: bool = False
    order: UserOrder = "username"
