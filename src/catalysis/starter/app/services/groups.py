"""Groups and who is in them."""

from uuid import UUID

from sqlalchemy.exc import NoResultFound
from sqlalchemy.orm import contains_eager, joinedload
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from catalysis import Session, delete_where, include_deleted, upsert
from catalysis.starter.app.dtos.groups import CreateGroupDTO, GroupQuery, SetMembershipDTO, UpdateGroupDTO
from catalysis.starter.app.models import Group, Membership, User
from catalysis.starter.app.services.visibility import deleted_too


def list_groups(viewer: User, query: GroupQuery) -> SelectOfScalar[Group]:
    """The statement for the groups that `query` asks for, as far as the viewer may see them."""
    statement = _visible(viewer)
    return deleted_too(statement, viewer, "groups:write") if query.include_deleted else statement


def _visible(viewer: User) -> SelectOfScalar[Group]:
    """All groups, or those the viewer is in."""
    statement = select(Group).order_by(Group.name)
    if viewer.may("groups:read"):
        return statement
    return statement.where(Group.memberships.any(col(Membership.user_id) == viewer.id))


async def get_group(db: Session, viewer: User, group_id: UUID) -> Group:
    """The group, if the viewer may see it."""
    return (await db.exec(_visible(viewer).where(Group.id == group_id))).one()


async def list_members(db: Session, viewer: User, group_id: UUID) -> SelectOfScalar[Membership]:
    """The statement for the memberships of a group, with their users."""
    await get_group(db, viewer, group_id)
    return (
        select(Membership)
        .join(Membership.user)
        .where(Membership.group_id == group_id)
        .options(contains_eager(Membership.user))
        .order_by(User.username)
    )


def list_groups_of(user_id: UUID) -> SelectOfScalar[Membership]:
    """The statement for the memberships of a user, with their groups."""
    return (
        select(Membership)
        .join(Membership.group)
        .where(Membership.user_id == user_id)
        .options(contains_eager(Membership.group))
        .order_by(Group.name)
    )


async def create_group(db: Session, new: CreateGroupDTO) -> Group:
    """A new group."""
    group = Group(**new.model_dump())
    db.add(group)
    await db.commit()
    return group


async def update_group(db: Session, group_id: UUID, changes: UpdateGroupDTO) -> Group:
    """Change what `changes` gives."""
    group = await db.get_one(Group, group_id)
    group.sqlmodel_update(changes.model_dump(exclude_unset=True))
    await db.commit()
    return group


async def delete_group(db: Session, group_id: UUID) -> None:
    """Mark the group as deleted; its memberships wait for it to come back."""
    await db.delete(await db.get_one(Group, group_id))
    await db.commit()


async def restore_group(db: Session, group_id: UUID) -> Group:
    """Take back a deletion."""
    group = await db.get_one(Group, group_id, options=[include_deleted()])
    await db.restore(group)
    await db.commit()
    return group


async def set_member(db: Session, group_id: UUID, user_id: UUID, wanted: SetMembershipDTO) -> Membership:
    """Add the user to the group, or change what the user is in it."""
    await db.get_one(Group, group_id)
    await db.get_one(User, user_id)
    row = {"group_id": group_id, "user_id": user_id, "standing": wanted.standing}
    await upsert(db, Membership, [row], update=["standing"])
    await db.commit()
    return await db.get_one(Membership, (group_id, user_id), options=[joinedload(Membership.user)])


async def remove_member(db: Session, group_id: UUID, user_id: UUID) -> None:
    """Take the user out of the group."""
    removed = await delete_where(
        db, Membership, col(Membership.group_id) == group_id, col(Membership.user_id) == user_id
    )
    if not removed:
        raise NoResultFound("no such membership")
    await db.commit()
