"""Roles and permissions."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from catalysis import DatabaseDep, Page, paginate
from catalysis.starter.app.dependencies import require_permission
from catalysis.starter.app.dtos.pages import Paging
from catalysis.starter.app.dtos.roles import CreateRoleDTO, PermissionDTO, RoleDetailsDTO, UpdateRoleDTO
from catalysis.starter.app.dtos.users import UserDTO
from catalysis.starter.app.models import User
from catalysis.starter.app.services import roles

router = APIRouter(tags=["roles"])

Reader = Annotated[User, Depends(require_permission("roles:read"))]
Writer = Annotated[User, Depends(require_permission("roles:write"))]


@router.get("/permissions", summary="List permissions")
async def list_permissions(
    db: DatabaseDep, viewer: Reader, query: Annotated[Paging, Query()]
) -> Page[PermissionDTO]:
    """All that can be allowed."""
    page = await paginate(db, roles.list_permissions(), page=query.page, size=query.size)
    return page.map(PermissionDTO.model_validate)


@router.get("/roles", summary="List roles")
async def list_roles(
    db: DatabaseDep, viewer: Reader, query: Annotated[Paging, Query()]
) -> Page[RoleDetailsDTO]:
    """With their permissions, which come by one statement for the whole page."""
    page = await paginate(db, roles.list_roles(), page=query.page, size=query.size)
    return page.map(RoleDetailsDTO.model_validate)


@router.post("/roles", status_code=201, summary="Create a role")
async def create_role(db: DatabaseDep, writer: Writer, new: CreateRoleDTO) -> RoleDetailsDTO:
    """With the permissions named."""
    return RoleDetailsDTO.model_validate(await roles.create_role(db, new))


@router.get("/roles/{role_id}", summary="Get a role")
async def get_role(db: DatabaseDep, viewer: Reader, role_id: UUID) -> RoleDetailsDTO:
    """With its permissions."""
    return RoleDetailsDTO.model_validate(await roles.get_role(db, role_id))


@router.patch("/roles/{role_id}", summary="Change a role")
async def update_role(
    db: DatabaseDep, writer: Writer, role_id: UUID, changes: UpdateRoleDTO
) -> RoleDetailsDTO:
    """What is left out stays as it is; `permissions` replaces all of them."""
    return RoleDetailsDTO.model_validate(await roles.update_role(db, role_id, changes))


@router.delete("/roles/{role_id}", status_code=204, summary="Delete a role")
async def delete_role(db: DatabaseDep, writer: Writer, role_id: UUID) -> None:
    """A role that somebody has stays: 409."""
    await roles.delete_role(db, role_id)


@router.get("/roles/{role_id}/users", summary="List a role's users")
async def list_role_users(
    db: DatabaseDep, viewer: Reader, role_id: UUID, query: Annotated[Paging, Query()]
) -> Page[UserDTO]:
    """By name."""
    page = await paginate(db, await roles.list_role_users(db, role_id), page=query.page, size=query.size)
    return page.map(UserDTO.model_validate)
