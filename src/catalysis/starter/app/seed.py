"""What a database starts with: permissions and roles always, people and tasks to play with where that is wanted.

Everything here may be run again: what is there already stays.
"""

import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import func
from sqlmodel import select

from catalysis import Session, bulk_insert, upsert
from catalysis.starter.app.models import (
    Category,
    Group,
    Membership,
    Permission,
    Role,
    RolePermission,
    Standing,
    Task,
    TaskStatus,
    User,
)
from catalysis.starter.app.passwords import hash_password
from catalysis.starter.app.permissions import ADMIN, MEMBER, PERMISSIONS, ROLES

DEMO_PASSWORD = "catalysis-demo"  # noqa: S105 - of the demo users only, and printed at every start
DEMO_LOGINS = {"admin": ADMIN, "maria": "manager", "ben": MEMBER}
"""Username and role of the demo users worth knowing."""

_OTHERS = (
    *("amara", "anika", "chen", "clara", "diego", "elif", "farid", "freya", "hana"),
    *("ines", "jonas", "kofi", "lena", "mateo", "nora", "priya", "tomas"),
)
_CATEGORIES = {
    "Home": "#b5651d",
    "Garden": "#3a7d44",
    "Errands": "#c98b26",
    "Finance": "#1f6f8b",
    "Health": "#b23a48",
    "Learning": "#6b4fa0",
    "Travel": "#2a9d8f",
    "Work": "#334e68",
    "Family": "#d1495b",
    "Someday": "#7d7d7d",
}
_GROUPS = ("Allotment", "Book club", "Choir", "House rota")
_VERBS = ("Plan", "Book", "Buy", "Repair", "Call about", "Sort out", "Write up", "Clean", "Compare", "Cancel")
_THINGS = ("the boiler", "train tickets", "the tax return", "seedlings", "the bicycle", "a birthday cake")
TASKS = 300


async def install_roles(db: Session) -> None:
    """Permissions and roles of `app.permissions`, as far as they are missing; a role that is there is left alone.

    Only `admin` is given what it lacks, so that a permission invented later is somebody's.
    """
    there = set((await db.exec(select(Role.name))).all())
    permissions = [{"name": name, "description": text} for name, text in PERMISSIONS.items()]
    ids = await upsert(db, Permission, permissions, key="name", update=["description"], returning=True)
    id_of = dict(zip(PERMISSIONS, ids, strict=True))
    roles = [{"name": name, "description": text} for name, (text, _) in ROLES.items()]
    role_ids = await upsert(db, Role, roles, key="name", update=(), returning=True)
    granted = [
        {"role_id": role_id, "permission_id": id_of[permission]}
        for role_id, (name, (_, names)) in zip(role_ids, ROLES.items(), strict=True)
        if name == ADMIN or name not in there
        for permission in names
    ]
    await upsert(db, RolePermission, granted, update=())
    await db.commit()


async def install_demo(db: Session) -> bool:
    """People, groups, categories and tasks, if there are no users yet; whether there were none.

    The same every time, but for ids and dates: those are around today.
    """
    if (await db.exec(select(func.count()).select_from(User))).one():
        return False
    chance = random.Random(20)  # noqa: S311 - the same data every time is the point
    users = await _users(db)
    groups = await bulk_insert(db, Group, [{"name": name} for name in _GROUPS], returning=True)
    categories = await upsert(
        db,
        Category,
        [{"name": name, "color": color} for name, color in _CATEGORIES.items()],
        key="name",
        returning=True,
    )
    await bulk_insert(
        db,
        Membership,
        [
            Membership(group_id=group, user_id=user, standing=Standing.member if place else Standing.lead)
            for group in groups
            for place, user in enumerate(chance.sample(users, 6))
        ],
    )
    await bulk_insert(db, Task, [_task(chance, users, categories) for _ in range(TASKS)])
    await db.commit()
    return True


async def _users(db: Session) -> list[UUID]:
    password_hash = await hash_password(DEMO_PASSWORD)
    role_ids = dict((await db.exec(select(Role.name, Role.id))).all())
    return await bulk_insert(
        db,
        User,
        [
            {
                "username": name,
                "email": f"{name}@example.org",
                "full_name": name.title(),
                "password_hash": password_hash,
                "role_id": role_ids[DEMO_LOGINS.get(name, MEMBER)],
            }
            for name in (*DEMO_LOGINS, *_OTHERS)
        ],
        returning=True,
    )


def _task(chance: random.Random, users: list[UUID], categories: list[UUID]) -> Task:
    status = chance.choice(list(TaskStatus))
    created = datetime.now(UTC) - timedelta(days=chance.randrange(60), minutes=chance.randrange(1440))
    due = created + timedelta(days=chance.randrange(1, 90)) if chance.random() < 0.7 else None
    return Task(
        title=f"{chance.choice(_VERBS)} {chance.choice(_THINGS)}",
        status=status,
        completed=status is TaskStatus.done,
        priority=chance.randrange(1, 6),
        due=due,
        created_at=created,
        user_id=chance.choice(users),
        category_id=chance.choice([*categories, None]),
    )
