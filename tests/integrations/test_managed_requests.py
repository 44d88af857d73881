"""A page of users, touched four levels deep in plain attribute access: one statement a relationship."""

import asyncio
import warnings
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI, WebSocket
from fastapi.testclient import TestClient
from sqlalchemy import Column, ForeignKey, Table
from sqlalchemy.orm import registry
from sqlmodel import Field, Relationship, SQLModel, select

from catalysis import (
    DTO,
    Database,
    DatabaseDep,
    DatabaseSettings,
    ModelWithIdAndTimestamps,
    RelationshipNotLoaded,
    RepeatedQuery,
    activity,
    managed,
    watch_queries,
)
from catalysis.integrations.fastapi import lifespan


class Base(ModelWithIdAndTimestamps, registry=registry()):
    pass


grants = Table(
    "grants",
    Base.metadata,
    Column("role_id", ForeignKey("role.id"), primary_key=True),
    Column("permission_id", ForeignKey("permission.id"), primary_key=True),
)


class Permission(Base, table=True):
    name: str


class Role(Base, table=True):
    name: str
    permissions: list[Permission] = Relationship(sa_relationship_kwargs={"secondary": grants})


class Group(Base, table=True):
    name: str
    memberships: list["Membership"] = Relationship(back_populates="group")


class Membership(Base, table=True):
    user_id: UUID = Field(foreign_key="user.id")
    group_id: UUID = Field(foreign_key="group.id")
    user: "User" = Relationship(back_populates="memberships")
    group: Group = Relationship(back_populates="memberships")


class User(Base, table=True):
    name: str
    role_id: UUID = Field(foreign_key="role.id")
    role: Role = Relationship()
    memberships: list[Membership] = Relationship(back_populates="user")


class PermissionOut(SQLModel):
    name: str


class RoleOut(SQLModel):
    name: str
    permissions: list[PermissionOut]


class GroupOut(SQLModel):
    name: str


class MembershipOut(SQLModel):
    group: GroupOut


class UserOut(SQLModel):
    name: str
    role: RoleOut
    memberships: list[MembershipOut]


class UserDTO(DTO):
    name: str
    role: RoleOut


USERS = 50


@pytest.fixture
async def database(backend_url: str) -> AsyncIterator[Database]:
    database = Database(backend_url)
    await database.create_all(Base.metadata)
    async with database.session() as session:
        permissions = [Permission(name=f"permission {n}") for n in range(5)]
        roles = [Role(name=f"role {n}", permissions=permissions[: n + 1]) for n in range(4)]
        groups = [Group(name=f"group {n}") for n in range(6)]
        session.add_all([*roles, *groups])
        await session.flush()
        for n in range(USERS):
            user = User(name=f"user {n:02}", role_id=roles[n % 4].id)
            user.memberships = [Membership(group_id=groups[(n + i) % 6].id) for i in range(n % 4)]
            session.add(user)
        await session.commit()
    yield database
    await database.close()


async def test_plain_attribute_access(database: Database) -> None:
    async def work(limit: int) -> None:
        async with database.session() as session:
            users = (await session.scalars(select(User).order_by(User.name).limit(limit))).all()
            for n, user in enumerate(users):
                assert len(user.role.permissions) == n % 4 + 1
                for membership in user.memberships:
                    assert membership.user is user
                    assert membership in membership.group.memberships
                    assert {each.user.role.name[:4] for each in membership.group.memberships} == {"role"}

    for limit in (USERS, 9):
        with watch_queries() as queries:
            await managed(work(limit))
        # users; roles, permissions, memberships, groups; all the groups' memberships.  With 9 of them there are
        # strangers among the groups' members: their users, and the roles are known.
        queries.assert_statements(6 if limit == USERS else 7)


def application(database: Database) -> FastAPI:
    app = FastAPI(lifespan=lifespan(database))

    @app.get("/users", response_model=list[UserOut])
    async def users(db: DatabaseDep) -> Any:
        return (await db.scalars(select(User).order_by(User.name))).all()

    @app.get("/dtos")
    async def dtos(db: DatabaseDep) -> list[UserDTO]:
        return [UserDTO.model_validate(user) for user in (await db.scalars(select(User))).all()]

    @app.get("/loop")
    async def loop(db: DatabaseDep) -> int:
        keys = (await db.scalars(select(User.role_id))).all()
        return len([(await db.execute(select(Role).where(Role.id == key))).scalar_one() for key in keys])

    @app.get("/thread")
    def thread() -> str:
        async def work() -> str:
            async with database.session() as session:
                user = (await session.scalars(select(User).limit(1))).one()
                with pytest.raises(RelationshipNotLoaded):
                    _ = user.role
            await database.close()
            return "outside"

        return asyncio.run(work())

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> None:
        async def after() -> None:
            async with database.session() as session:
                user = (await session.scalars(select(User).limit(1))).one()
                app.state.role = user.role.name

        tasks.add_task(after)

    @app.websocket("/socket")
    async def socket(websocket: WebSocket, db: DatabaseDep) -> None:
        await websocket.accept()
        user = (await db.scalars(select(User).order_by(User.name))).first()
        assert user is not None
        await websocket.send_text(user.role.name)
        await websocket.close()

    @app.middleware("http")  # starts a task of its own for what is inside
    async def between(request: Any, go_on: Any) -> Any:
        return await go_on(request)

    return app


async def get(database: Database, path: str) -> Any:
    app = application(database)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            with watch_queries() as queries:
                answer = await client.get(path)
            assert answer.status_code == 200, answer.text
            return app, answer.json(), queries


async def test_through_response_model(database: Database) -> None:
    _, users, queries = await get(database, "/users")
    assert len(users) == USERS
    assert [len(user["memberships"]) for user in users] == [n % 4 for n in range(USERS)]
    assert users[3]["memberships"][0]["group"]["name"] == "group 3"
    assert [len(user["role"]["permissions"]) for user in users] == [n % 4 + 1 for n in range(USERS)]
    queries.assert_statements(5)
    assert [each.file for each in queries] == [__file__] + [None] * 4, "no line of ours renders the response"


async def test_dtos_read_what_is_not_loaded(database: Database) -> None:
    _, users, queries = await get(database, "/dtos")
    assert len(users) == USERS
    queries.assert_statements(3)
    assert {each.file for each in queries} == {__file__}, "not pydantic's, which reads the attributes"


async def test_threads_background_tasks(database: Database) -> None:
    assert (await get(database, "/thread"))[1] == "outside"
    app, *_ = await get(database, "/background")
    assert app.state.role.startswith("role")


def test_websockets(tmp_path: Any) -> None:
    async def fill() -> None:
        database = Database(f"sqlite+aiosqlite:///{tmp_path / 'socket.db'}")
        await database.create_all(Base.metadata)
        async with database.session() as session:
            role = Role(name="one")
            session.add(role)
            await session.flush()
            session.add(User(name="a", role_id=role.id))
            await session.commit()
        await database.close()

    asyncio.run(fill())
    with (
        TestClient(application(Database(f"sqlite+aiosqlite:///{tmp_path / 'socket.db'}"))) as client,
        client.websocket_connect("/socket") as socket,
    ):
        assert socket.receive_text() == "one"


async def test_a_query_in_a_loop_is_reported_in_development(database: Database) -> None:
    settings = DatabaseSettings.load(url=database.settings.url, warn_repeated=5)
    told = Database(settings)
    said = rf"(?s)GET /loop: {USERS} times from .*select\(Role\).where\(Role.id.in_"
    with pytest.warns(RepeatedQuery, match=said) as caught:
        _, found, _ = await get(told, "/loop")
    assert found == USERS
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error", RepeatedQuery)
        await get(Database(settings), "/users")
        await get(Database(database.settings.url), "/loop")


async def test_an_activity_is_inside(database: Database) -> None:
    @activity(name="names")
    async def names(prefix: str) -> list[str]:
        """What it says."""
        async with database.session() as session:
            users = (await session.scalars(select(User).where(User.name.startswith(prefix)))).all()
            return [user.role.name for user in users]

    with watch_queries() as queries:
        assert len(await names("user 0")) == 10
    queries.assert_statements(2)
    assert names.__name__ == "names"
    assert names.__doc__ == "What it says."
