"""Roles and permissions: seeing and changing them."""

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy.orm import joinedload, selectinload
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from catalysis import Session
from catalysis.starter.app.dtos.roles import CreateRoleDTO, UpdateRoleDTO
from catalysis.starter.app.errors import Refused
from catalysis.starter.app.models import Permission, Role, User
from catalysis.starter.app.permissions import ADMIN, ROLES
from catalysis.starter.app.services.users import WITH_ROLE


def list_permissions() -> SelectOfScalar[Permission]:
    """The statement for all permissions."""
    return select(Permission).order_by(Permission.name)


def list_roles() -> SelectOfScalar[Role]:
    """The statement for all roles with their permissions."""
    return select(Role).options(selectinload(Role.permissions)).order_by(Role.name)


async def get_role(db: Session, role_id: UUID) -> Role:
    """The role with its permissions."""
    return await db.get_one(Role, role_id, options=[joinedload(Role.permissions)])


async def list_role_users(db: Session, role_id: UUID) -> SelectOfScalar[User]:
    """The statement for the users who have the role."""
    await db.get_one(Role, role_id)
    return select(User).where(User.role_id == role_id).options(WITH_ROLE).order_by(User.username)


async def create_role(db: Session, new: CreateRoleDTO) -> Role:
    """A new role."""
    role = Role(name=new.name, description=new.description)
    role.permissions = await _named(db, new.permissions)
    db.add(role)
    await db.commit()
    return role


async def update_role(db: Session, role_id: UUID, changes: UpdateRoleDTO) -> Role:
    """Change what `changes` gives; who has the role notices at the next request."""
    role = await get_role(db, role_id)
    given = changes.model_fields_set
    if "name" in given and role.name in ROLES and changes.name != role.name:
        raise Refused(f"The code relies on the role {role.name}: it keeps its name.")
    if "permissions" in given and role.name == ADMIN:
        raise Refused(f"The role {ADMIN} keeps its permissions, so that somebody can mend the others.")
    role.sqlmodel_update(changes.model_dump(exclude_unset=True, exclude={"permissions"}))
    if "permissions" in given:
        role.permissions = await _named(db, changes.permissions)
    await db.commit()
    return role


async def delete_role(db: Session, role_id: UUID) -> None:
    """Delete a role that nobody has; the database refuses any other."""
    role = await db.get_one(Role, role_id)
    if role.name in ROLES:
        raise Refused(f"The code relies on the role {role.name}: it stays.")
    await db.delete(role)
    await db.commit()


async def _named(db: Session, names: Iterable[str]) -> list[Permission]:
    statement = list_permissions().where(col(Permission.name).in_(names))
    return list((await db.exec(statement)).all())
