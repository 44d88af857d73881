"""Groups and their members."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from catalysis import DatabaseDep, Page, paginate
from catalysis.starter.app.dependencies import CurrentUser, require_permission
from catalysis.starter.app.dtos.groups import (
    CreateGroupDTO,
    GroupDTO,
    GroupQuery,
    MemberDTO,
    SetMembershipDTO,
    UpdateGroupDTO,
)
from catalysis.starter.app.dtos.pages import Paging
from catalysis.starter.app.models import User
from catalysis.starter.app.services import groups

router = APIRouter(prefix="/groups", tags=["groups"])

Writer = Annotated[User, Depends(require_permission("groups:write"))]


@router.get("", summary="List groups")
async def list_groups(
    db: DatabaseDep, viewer: CurrentUser, query: Annotated[GroupQuery, Query()]
) -> Page[GroupDTO]:
    """One's own, or all for those who may see them."""
    page = await paginate(db, groups.list_groups(viewer, query), page=query.page, size=query.size)
    return page.map(GroupDTO.model_validate)


@router.post("", status_code=201, summary="Create a group")
async def create_group(db: DatabaseDep, writer: Writer, new: CreateGroupDTO) -> GroupDTO:
    """Without members."""
    return GroupDTO.model_validate(await groups.create_group(db, new))


@router.get("/{group_id}", summary="Get a group")
async def get_group(db: DatabaseDep, viewer: CurrentUser, group_id: UUID) -> GroupDTO:
    """One that one is in, or any for those who may see them."""
    return GroupDTO.model_validate(await groups.get_group(db, viewer, group_id))


@router.patch("/{group_id}", summary="Change a group")
async def update_group(db: DatabaseDep, writer: Writer, group_id: UUID, changes: UpdateGroupDTO) -> GroupDTO:
    """What is left out stays as it is."""
    return GroupDTO.model_validate(await groups.update_group(db, group_id, changes))


@router.delete("/{group_id}", status_code=204, summary="Delete a group")
async def delete_group(db: DatabaseDep, writer: Writer, group_id: UUID) -> None:
    """It can be restored, members and all."""
    await groups.delete_group(db, group_id)


@router.post("/{group_id}/restore", summary="Restore a group")
async def restore_group(db: DatabaseDep, writer: Writer, group_id: UUID) -> GroupDTO:
    """With its members; a 409 if its name was taken meanwhile."""
    return GroupDTO.model_validate(await groups.restore_group(db, group_id))


@router.get("/{group_id}/members", summary="List a group's members")
async def list_members(
    db: DatabaseDep, viewer: CurrentUser, group_id: UUID, query: Annotated[Paging, Query()]
) -> Page[MemberDTO]:
    """By name, with what each is in the group."""
    statement = await groups.list_members(db, viewer, group_id)
    page = await paginate(db, statement, page=query.page, size=query.size)
    return page.map(MemberDTO.model_validate)


@router.put("/{group_id}/members/{user_id}", summary="Add or change a member")
async def set_member(
    db: DatabaseDep, writer: Writer, group_id: UUID, user_id: UUID, wanted: SetMembershipDTO
) -> MemberDTO:
    """Doing it twice is doing it once."""
    return MemberDTO.model_validate(await groups.set_member(db, group_id, user_id, wanted))


@router.delete("/{group_id}/members/{user_id}", status_code=204, summary="Remove a member")
async def remove_member(db: DatabaseDep, writer: Writer, group_id: UUID, user_id: UUID) -> None:
    """A 404 if the user is not in the group."""
    await groups.remove_member(db, group_id, user_id)
