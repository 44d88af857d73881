"""What a new database starts with."""

from collections.abc import Sequence

from sqlalchemy import func
from sqlmodel import SQLModel, select

from catalysis import Database
from catalysis.starter.app.models import Category, Group, Membership, Permission, Role, Task, User
from catalysis.starter.app.permissions import PERMISSIONS
from catalysis.starter.app.seed import DEMO_LOGINS, DEMO_PASSWORD, install_demo, install_roles
from catalysis.starter.app.services.users import authenticate

TABLES: Sequence[type[SQLModel]] = (User, Role, Permission, Group, Membership, Category, Task)


async def seed(database: Database) -> bool:
    async with database.session() as db:
        await install_roles(db)
        return await install_demo(db)


async def counts(database: Database) -> list[int]:
    async with database.session() as db:
        return [(await db.exec(select(func.count()).select_from(table))).one() for table in TABLES]


async def titles(database: Database) -> list[str]:
    async with database.session() as db:
        return sorted((await db.exec(select(Task.title))).all())


async def test_once_is_enough(database: Database):
    assert await seed(database)
    first = await counts(database)
    assert first == [20, 3, len(PERMISSIONS), 4, 24, 10, 300]
    assert not await seed(database)
    assert await counts(database) == first


async def test_it_is_the_same_every_time(database: Database):
    await seed(database)
    first = await titles(database)
    async with database.engine.begin() as connection:
        for table in reversed(SQLModel.metadata.sorted_tables):
            await connection.execute(table.delete())
    await seed(database)
    assert await titles(database) == first


async def test_the_demo_logins_work(database: Database):
    await seed(database)
    async with database.session() as db:
        for name in DEMO_LOGINS:
            assert await authenticate(db, name, DEMO_PASSWORD)


async def test_roles_that_were_changed_stay_changed_but_the_administrators(database: Database):
    await seed(database)
    async with database.session() as db:
        for role in await db.exec(select(Role)):
            await db.refresh(role, ["permissions"])
            role.permissions = []
        await db.commit()
        await install_roles(db)
    async with database.session() as db:
        roles = {role.name: role for role in await db.exec(select(Role))}
        for role in roles.values():
            await db.refresh(role, ["permissions"])
        assert len(roles["admin"].permissions) == len(PERMISSIONS)
        assert roles["member"].permissions == []
