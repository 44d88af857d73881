"""Users, and what belongs to one of them."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from catalysis import DatabaseDep, Page, paginate
from catalysis.starter.app.dependencies import require_permission, somebody
from catalysis.starter.app.dtos.groups import MembershipDTO
from catalysis.starter.app.dtos.pages import Paging
from catalysis.starter.app.dtos.roles import RoleDetailsDTO, SetRoleDTO
from catalysis.starter.app.dtos.tasks import StatisticsDTO, TaskDetailsDTO, TaskQuery
from catalysis.starter.app.dtos.users import CreateUserDTO, UpdateUserDTO, UserDetailsDTO, UserDTO, UserQuery
from catalysis.starter.app.models import User
from catalysis.starter.app.services import groups, statistics, tasks, users

router = APIRouter(prefix="/users", tags=["users"])

Reader = Annotated[User, Depends(require_permission("users:read"))]
Writer = Annotated[User, Depends(require_permission("users:write"))]
RoleWriter = Annotated[User, Depends(require_permission("roles:write"))]
Somebody = Annotated[User, Depends(somebody("users:read"))]
TaskOwner = Annotated[User, Depends(somebody("tasks:admin"))]


@router.get("", summary="List users")
async def list_users(db: DatabaseDep, viewer: Reader, query: Annotated[UserQuery, Query()]) -> Page[UserDTO]:
    """Filtered, ordered, with their roles."""
    page = await paginate(db, users.list_users(viewer, query), page=query.page, size=query.size)
    return page.map(UserDTO.model_validate)


@router.post("", status_code=201, summary="Create a user")
async def create_user(db: DatabaseDep, writer: Writer, new: CreateUserDTO) -> UserDTO:
    """The role is `member`, until `PUT /users/{user_id}/role` gives another."""
    return UserDTO.model_validate(await users.create_user(db, new))


@router.get("/{user_id}", summary="Get a user")
async def get_user(user: Somebody) -> UserDetailsDTO:
    """Oneself, or anybody for those who may see users."""
    return UserDetailsDTO.model_validate(user)


@router.patch("/{user_id}", summary="Change a user")
async def update_user(
    db: DatabaseDep, writer: Writer, user_id: UUID, changes: UpdateUserDTO
) -> UserDetailsDTO:
    """What is left out stays as it is."""
    return UserDetailsDTO.model_validate(await users.update_user(db, user_id, changes))


@router.delete("/{user_id}", status_code=204, summary="Delete a user")
async def delete_user(db: DatabaseDep, writer: Writer, user_id: UUID) -> None:
    """The tasks go along; both can be restored."""
    await users.delete_user(db, user_id, by=writer)


@router.post("/{user_id}/restore", summary="Restore a user")
async def restore_user(db: DatabaseDep, writer: Writer, user_id: UUID) -> UserDetailsDTO:
    """With the tasks that went along; a 409 if the name was taken meanwhile."""
    return UserDetailsDTO.model_validate(await users.restore_user(db, user_id))


@router.get("/{user_id}/role", summary="Get a user's role")
async def get_user_role(user: Somebody) -> RoleDetailsDTO:
    """With its permissions: user, role and permissions come by one statement."""
    return RoleDetailsDTO.model_validate(user.role)


@router.put("/{user_id}/role", summary="Give a user another role")
async def set_user_role(
    db: DatabaseDep, writer: RoleWriter, user_id: UUID, wanted: SetRoleDTO
) -> UserDetailsDTO:
    """It counts from the user's next request on."""
    return UserDetailsDTO.model_validate(await users.set_role(db, user_id, wanted.role_id))


@router.get("/{user_id}/groups", summary="List a user's groups")
async def list_user_groups(
    db: DatabaseDep, user: Somebody, query: Annotated[Paging, Query()]
) -> Page[MembershipDTO]:
    """By name, with what the user is in each."""
    page = await paginate(db, groups.list_groups_of(user.id), page=query.page, size=query.size)
    return page.map(MembershipDTO.model_validate)


@router.get("/{user_id}/tasks", summary="List a user's tasks")
async def list_user_tasks(
    db: DatabaseDep, owner: TaskOwner, query: Annotated[Paging, Query()]
) -> Page[TaskDetailsDTO]:
    """The newest first; `/tasks?user_id=…` filters and orders them."""
    wanted = TaskQuery(user_id=owner.id)
    statement = tasks.list_tasks(owner, wanted, wanted.order)
    page = await paginate(db, statement, page=query.page, size=query.size)
    return page.map(TaskDetailsDTO.model_validate)


@router.get("/{user_id}/statistics", summary="Count a user's tasks")
async def get_user_statistics(db: DatabaseDep, owner: TaskOwner) -> StatisticsDTO:
    """As `/tasks/statistics`."""
    return await statistics.count_tasks(db, owner.id)
