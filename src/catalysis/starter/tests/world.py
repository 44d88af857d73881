"""What most tests find in the database: eight or more of everything, so that a query for each would be seen."""

from dataclasses import dataclass, field
from uuid import UUID

from sqlmodel import select

from catalysis import Session, bulk_insert
from catalysis.starter.app.models import Category, Group, Membership, Role, Task, TaskStatus, User
from catalysis.starter.app.permissions import ADMIN, MEMBER
from catalysis.starter.app.seed import install_roles

PASSWORD = "correct horse battery staple"
MANY = 8


@dataclass
class World:
    """Who and what there is, by name."""

    users: dict[str, User] = field(default_factory=dict)
    roles: dict[str, Role] = field(default_factory=dict)
    ids: dict[str, UUID] = field(default_factory=dict)
    """For paths and bodies: `ann`, `ann_task`, `category`, `group`…"""


async def make_world(db: Session, password_hash: str) -> World:
    """`admin`, `manager`, `ann`, `bob` and more members; Ann is in every group, everybody in the first."""
    world = World()
    await install_roles(db)
    for number in range(MANY):
        db.add(Role(name=f"role{number}"))
    await db.flush()
    world.roles = {role.name: role for role in (await db.exec(select(Role))).all()}
    for name in ("admin", "manager", "ann", "bob", *(f"member{n}" for n in range(MANY))):
        role = world.roles[name if name in (ADMIN, "manager") else MEMBER]
        user = User(username=name, email=f"{name}@example.org", password_hash=password_hash, role_id=role.id)
        db.add(user)
        world.users[name] = user
    categories = [Category(name=f"category{n}") for n in range(MANY)]
    groups = [Group(name=f"group{n}") for n in range(MANY)]
    db.add_all([*categories, *groups])
    await db.flush()
    users = world.users
    members = {(groups[0].id, user.id) for user in users.values()} | {
        (each.id, users["ann"].id) for each in groups
    }
    await bulk_insert(db, Membership, [{"group_id": group, "user_id": user} for group, user in members])
    tasks = _tasks(users, categories)
    gone = _to_be_deleted(users, world.roles[MEMBER], password_hash)
    db.add_all([*tasks.values(), *gone.values()])
    await db.flush()
    for each in gone.values():
        await db.delete(each)
    await db.commit()
    world.ids = {
        **{name: user.id for name, user in users.items()},
        **{name: each.id for name, each in {**tasks, **gone}.items()},
        "category": categories[1].id,
        "group": groups[0].id,
        "role": world.roles[MEMBER].id,
        "spare_role": world.roles["role0"].id,
    }
    return world


def _tasks(users: dict[str, User], categories: list[Category]) -> dict[str, Task]:
    """Of Ann and of Bob, the first without a category."""
    return {
        f"{owner}_task{n or ''}": Task(
            title=f"{owner}'s task {n}",
            status=TaskStatus.done if n % 4 == 3 else TaskStatus.todo,
            completed=n % 4 == 3,
            user_id=users[owner].id,
            category_id=categories[n].id if n else None,
        )
        for owner in ("ann", "bob")
        for n in range(MANY)
    }


def _to_be_deleted(
    users: dict[str, User], role: Role, password_hash: str
) -> dict[str, Category | Group | Task | User]:
    """One of each kind that can be."""
    return {
        "deleted_task": Task(title="deleted", user_id=users["ann"].id),
        "deleted_category": Category(name="deleted"),
        "deleted_group": Group(name="deleted"),
        "deleted_user": User(
            username="deleted",
            email="deleted@example.org",
            password_hash=password_hash,
            role_id=role.id,
        ),
    }
