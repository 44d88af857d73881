"""Users: finding, creating, changing, deleting and restoring them."""

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, or_, update
from sqlalchemy.orm import joinedload, selectinload
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from catalysis import Session, include_deleted
from catalysis.starter.app.dtos.auth import UpdateMeDTO
from catalysis.starter.app.dtos.users import CreateUserDTO, UpdateUserDTO, UserOrder, UserQuery
from catalysis.starter.app.errors import Refused
from catalysis.starter.app.models import Role, Task, User
from catalysis.starter.app.passwords import hash_password, password_matches
from catalysis.starter.app.permissions import MEMBER
from catalysis.starter.app.services.visibility import deleted_too

ORDERS: dict[UserOrder, ColumnElement[Any]] = {
    "username": col(User.username).asc(),
    "-username": col(User.username).desc(),
    "created_at": col(User.created_at).asc(),
    "-created_at": col(User.created_at).desc(),
}
"""What a list may be ordered by; no other name reaches the database."""

WITH_ROLE = joinedload(User.role)
WITH_PERMISSIONS = joinedload(User.role).joinedload(Role.permissions)


async def find_caller(db: Session, user_id: UUID) -> User | None:
    """The user behind a token, with role and permissions: one statement."""
    return await db.get(User, user_id, options=[WITH_PERMISSIONS])


async def authenticate(db: Session, username: str, password: str) -> User | None:
    """The active user with this name and password; takes as long when there is none."""
    statement = select(User).where(User.username == username.lower())
    user = (await db.exec(statement)).one_or_none()
    if not await password_matches(password, user and user.password_hash):
        return None
    return user if user and user.is_active else None


def list_users(viewer: User, query: UserQuery) -> SelectOfScalar[User]:
    """The statement for the users that `query` asks for."""
    statement = select(User).options(WITH_ROLE).order_by(ORDERS[query.order])
    if query.search:
        names = (User.username, User.full_name, User.email)
        statement = statement.where(
            or_(*(col(name).icontains(query.search, autoescape=True) for name in names))
        )
    if query.is_active is not None:
        statement = statement.where(User.is_active == query.is_active)
    if query.role_id is not None:
        statement = statement.where(User.role_id == query.role_id)
    return deleted_too(statement, viewer, "users:write") if query.include_deleted else statement


async def get_user(db: Session, user_id: UUID) -> User:
    """The user with role and permissions."""
    return await db.get_one(User, user_id, options=[WITH_PERMISSIONS])


async def create_user(db: Session, new: CreateUserDTO, *, role: str = MEMBER) -> User:
    """A new user with the role of that name."""
    password_hash = await hash_password(new.password)  # first: a connection should not wait for it
    given = (await db.exec(select(Role).where(Role.name == role))).one()
    user = User(
        **new.model_dump(exclude={"password"}), password_hash=password_hash, role_id=given.id, role=given
    )
    db.add(user)
    await db.commit()
    return user


async def update_user(db: Session, user_id: UUID, changes: UpdateUserDTO) -> User:
    """Change what `changes` gives; a user who is switched off is logged out at once."""
    user = await get_user(db, user_id)
    user.sqlmodel_update(changes.model_dump(exclude_unset=True))
    await db.commit()
    return user


async def update_me(db: Session, me: User, changes: UpdateMeDTO) -> User:
    """Change what users may change about themselves."""
    me.sqlmodel_update(changes.model_dump(exclude_unset=True))
    await db.commit()
    return me


async def change_password(db: Session, me: User, current: str, new: str) -> User:
    """Set the password; every token issued so far is worthless afterwards."""
    if not await password_matches(current, me.password_hash):
        raise Refused("The current password is wrong.")
    me.password_hash = await hash_password(new)
    me.token_generation += 1
    await db.commit()
    return me


async def set_role(db: Session, user_id: UUID, role_id: UUID) -> User:
    """Give the user another role."""
    user = await get_user(db, user_id)
    user.role = await db.get_one(Role, role_id, options=[selectinload(Role.permissions)])
    await db.commit()
    return user


async def delete_user(db: Session, user_id: UUID, *, by: User) -> None:
    """Mark the user as deleted, and the user's tasks at the same moment, which is how `restore_user` knows them."""
    if user_id == by.id:
        raise Refused("You cannot delete yourself.")
    user = await db.get_one(User, user_id)
    await db.delete(user)
    await db.exec(update(Task).where(col(Task.user_id) == user_id).values(deleted_at=user.deleted_at))
    await db.commit()


async def restore_user(db: Session, user_id: UUID) -> User:
    """Take back a deletion, together with the tasks that went with it."""
    user = await db.get_one(User, user_id, options=[WITH_PERMISSIONS, include_deleted()])
    if user.deleted_at is not None:
        await db.exec(
            update(Task)
            .where(col(Task.user_id) == user_id, col(Task.deleted_at) == user.deleted_at)
            .values(deleted_at=None)
            .options(include_deleted())
        )
        await db.restore(user)
        await db.commit()
    return user
