"""Roles and permissions."""

from uuid import UUID

from catalysis import DTO
from catalysis.starter.app.dtos.fields import Name, ShortText, left_out
from catalysis.starter.app.permissions import PermissionName


class PermissionDTO(DTO):
    """Something that can be allowed."""

    id: UUID
    name: str
    description: str


class RoleDTO(DTO):
    """A role without its permissions."""

    id: UUID
    name: str
    description: str


class RoleDetailsDTO(RoleDTO):
    """A role with its permissions."""

    permissions: list[PermissionDTO]


class CreateRoleDTO(DTO):
    """A new role."""

    name: Name
    description: ShortText = ""
    permissions: set[PermissionName] = set()


class UpdateRoleDTO(DTO):
    """What is left out stays as it is; `permissions` replaces all of them."""

    name: Name = left_out()
    description: ShortText = left_out()
    permissions: set[PermissionName] = left_out()


class SetRoleDTO(DTO):
    """The role a user is to have."""

    role_id: UUID
