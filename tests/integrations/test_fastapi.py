"""FastAPI: the session's life, the answers to errors, health."""

import asyncio
import warnings
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI
from fastapi.exceptions import DependencyScopeError
from fastapi.responses import StreamingResponse
from pydantic import Field as PydanticField
from sqlalchemy import CheckConstraint, make_url, text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import registry
from sqlmodel import Field, select

import catalysis
from catalysis import (
    DTO,
    Database,
    DatabaseDep,
    DatabaseSettings,
    ModelWithIdAndTimestamps,
    Session,
    UncommittedChanges,
)
from catalysis.integrations.fastapi import add_error_handlers, health_router, lifespan


class Base(ModelWithIdAndTimestamps, registry=registry()):
    pass


Base.metadata.naming_convention = catalysis.NAMING_CONVENTION


class Owner(Base, table=True):
    name: str = Field(max_length=10, unique=True)


class Pet(Base, table=True):
    __table_args__ = (CheckConstraint("age >= 0", name="age_is_positive"),)

    owner_id: UUID = Field(foreign_key="owner.id")
    age: int


class OwnerDTO(DTO):
    id: UUID
    name: str


class NewOwner(DTO):
    name: Annotated[str, PydanticField(max_length=1000)]


def application(database: Database) -> FastAPI:
    app = FastAPI(lifespan=lifespan(database))
    app.state.database = database  # ASGITransport runs no lifespan
    add_error_handlers(app)
    app.include_router(health_router())

    @app.post("/owners", status_code=201)
    async def create(body: NewOwner, db: DatabaseDep) -> OwnerDTO:
        owner = Owner(name=body.name)
        db.add(owner)
        await db.commit()
        return OwnerDTO.model_validate(owner)

    @app.post("/forgotten")
    async def forgotten(body: NewOwner, db: DatabaseDep) -> None:
        db.add(Owner(name=body.name))
        await db.flush()

    @app.post("/failing")
    async def failing(body: NewOwner, db: DatabaseDep) -> None:
        db.add(Owner(name=body.name))
        await db.flush()
        raise LookupError

    @app.get("/owners/{key}")
    async def one(key: UUID, db: DatabaseDep) -> OwnerDTO:
        return OwnerDTO.model_validate((await db.exec(select(Owner).where(Owner.id == key))).one())

    @app.post("/pets")
    async def pet(age: int, db: DatabaseDep, owner: UUID | None = None) -> None:
        db.add(Pet(owner_id=owner, age=age))
        await db.commit()

    @app.get("/invalid")
    async def invalid() -> None:
        NewOwner.model_validate({"nome": "hunter2"})

    @app.get("/stream")
    async def stream(db: DatabaseDep) -> StreamingResponse:
        await db.exec(select(Owner))

        async def body() -> AsyncIterator[str]:
            for _ in range(3):
                yield f"{database.pool_figures().lent} "
                await asyncio.sleep(0.01)

        return StreamingResponse(body())

    return app


@pytest.fixture
async def client(backend_url: str) -> AsyncIterator[httpx.AsyncClient]:
    database = Database(backend_url)
    await database.create_all(Base.metadata)
    transport = httpx.ASGITransport(app=application(database), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client
    await database.close()


async def test_commit_is_explicit_and_forgetting_it_is_reported(client: httpx.AsyncClient):
    made = (await client.post("/owners", json={"name": "ada"})).json()
    assert (await client.get(f"/owners/{made['id']}")).json() == made
    with pytest.warns(UncommittedChanges, match=r"test_fastapi\.py:\d+ was left .*Owner") as caught:
        await client.post("/forgotten", json={"name": "lost"})
    assert caught[0].filename == __file__, "the route's own file"
    assert (await client.post("/owners", json={"name": "lost"})).status_code == 201


async def test_an_error_in_the_route_rolls_back(client: httpx.AsyncClient):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UncommittedChanges)
        assert (await client.post("/failing", json={"name": "x"})).status_code == 500
    assert (await client.post("/owners", json={"name": "x"})).status_code == 201


async def test_a_conflict_names_the_constraint_and_no_sql(client: httpx.AsyncClient):
    await client.post("/owners", json={"name": "hunter2"})
    reply = await client.post("/owners", json={"name": "hunter2"})
    assert (reply.status_code, reply.json()) == (
        409,
        {"detail": "It exists already.", "constraint": "uq_owner_name"},
    )
    owner = (await client.post("/owners", json={"name": "o"})).json()["id"]
    check = await client.post("/pets", params={"age": -1, "owner": owner})
    assert check.status_code == 409
    assert check.json()["constraint"] == "ck_pet_age_is_positive"
    missing = await client.post("/pets", params={"age": 1})
    assert (missing.status_code, missing.json()["constraint"]) == (409, "owner_id")
    foreign = await client.post("/pets", params={"age": 1, "owner": str(uuid4())})
    assert foreign.status_code == 409
    for reply in (check, missing, foreign):
        assert "INSERT" not in reply.text.upper()


async def test_not_found_invalid_and_too_long(client: httpx.AsyncClient, backend_url: str):
    assert (await client.get(f"/owners/{uuid4()}")).status_code == 404
    invalid = await client.get("/invalid")
    assert invalid.status_code == 422
    assert "hunter2" not in invalid.text
    assert (await client.post("/owners", json={"name": "x", "is_admin": True})).status_code == 422
    repeated = await client.post("/owners", json={"nome": "hunter2"})
    assert repeated.status_code == 422
    assert "hunter2" not in repeated.text
    too_long = await client.post("/owners", json={"name": "x" * 100})
    assert too_long.status_code == (422 if backend_url.startswith("postgresql") else 201)
    too_big = await client.post("/pets", params={"age": 2**70, "owner": str(uuid4())})
    assert too_big.status_code == 422


async def test_health(client: httpx.AsyncClient):
    assert (await client.get("/health/live")).json() == {"status": "live"}
    ready = await client.get("/health/ready")
    assert ready.status_code == 200
    assert ready.json()["status"] == "ready"
    assert ready.json()["pool"].keys() == {"open", "lent", "limit"}


async def test_not_ready_is_a_503_without_secrets():
    transport = httpx.ASGITransport(app=application(Database("postgresql://u:hunter2@127.0.0.1:1/none")))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        reply = await client.get("/health/ready")
    assert reply.status_code == 503
    assert reply.json()["status"] == "unavailable"
    assert "hunter2" not in reply.text


async def test_an_exhausted_pool_is_a_503_with_retry_after(postgres_url: str):
    settings = DatabaseSettings(url=postgres_url, pool_size=1, max_overflow=0, pool_timeout=0.1)
    database = Database(settings)
    await database.create_all(Base.metadata)
    transport = httpx.ASGITransport(app=application(database), raise_app_exceptions=False)
    async with (
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
        database.session() as other,
    ):
        await other.execute(text("SELECT 1"))
        reply = await client.get(f"/owners/{uuid4()}")
    await database.close()
    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "1")


@pytest.mark.parametrize("hosts", [("127.0.0.1:1",), ("127.0.0.1:1", "127.0.0.1:2")])
async def test_hosts_of_which_none_lets_us_in_are_a_503(postgres_url: str, hosts: tuple[str, ...]):
    database = Database(make_url(postgres_url).set(host=None, port=None, query={"host": hosts}))
    reply = await served(application(database), f"/owners/{uuid4()}")
    await database.close()
    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "1")
    assert "127.0.0.1" not in reply.text


async def test_the_lifespan_makes_tables_if_told_and_closes(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    app = FastAPI()
    async with lifespan(database, create_tables=Base.metadata)(app):
        assert app.state.database is database
        async with database.session() as session:
            assert (await session.exec(select(Owner))).all() == []
    assert database.pool_figures().open == 0


# --- The session after the route, and what it depends on -------------------------------------------


async def served(app: Any, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get(path)


async def test_a_session_is_not_opened_again_after_its_route(database: Database):
    await database.create_all(Base.metadata)
    app, failures = application(database), []

    async def ask(db: Session) -> None:
        try:
            await db.exec(select(Owner))
        except InvalidRequestError as failure:
            failures.append(str(failure))

    @app.get("/background")
    async def background(db: DatabaseDep, tasks: BackgroundTasks) -> None:
        tasks.add_task(ask, db)

    @app.get("/body")
    async def body(db: DatabaseDep) -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            await ask(db)
            yield "x"

        return StreamingResponse(parts())

    for path in ("/background", "/body"):
        assert (await served(app, path)).status_code == 200
    assert len(failures) == 2
    assert all("permanently closed" in failure for failure in failures)
    assert database.pool_figures().lent == 0


async def test_a_dependency_of_ones_own_that_yields(database: Database):
    app, ended = application(database), []

    async def tenant(db: DatabaseDep) -> AsyncIterator[int]:
        yield (await db.execute(text("SELECT 7"))).scalar_one()
        ended.append((await db.execute(text("SELECT 8"))).scalar_one())

    @app.get("/tenant")
    async def route(number: Annotated[int, Depends(tenant, scope="function")]) -> int:
        return number

    assert (await served(app, "/tenant")).json() == 7
    assert ended == [8]


async def test_one_that_would_outlive_the_session_is_refused(database: Database):
    """Mutation seen to fail: `DatabaseDep` without `scope="function"`."""

    async def outlives(db: DatabaseDep) -> AsyncIterator[int]:
        yield 7

    with pytest.raises(DependencyScopeError):
        application(database).add_api_route("/outlives", lambda: None, dependencies=[Depends(outlives)])


async def test_a_mounted_application_uses_the_database_it_is_mounted_in(tmp_path):
    outer, inner, own = FastAPI(), FastAPI(), FastAPI()
    database, another = (Database(f"sqlite:///{tmp_path / name}") for name in ("x.db", "y.db"))
    own.state.database = another

    async def where(db: DatabaseDep) -> str:
        return str(db.bind.url.database)

    for app, path in ((outer, "/here"), (inner, "/here"), (own, "/here")):
        app.get(path)(where)
    outer.mount("/inner", inner)
    outer.mount("/own", own)
    async with lifespan(database)(outer) as state:

        async def as_a_server_calls_it(scope: Any, receive: Any, send: Any) -> None:
            await outer(scope | {"state": dict(state)}, receive, send)

        used = [
            (await served(as_a_server_calls_it, path)).json()[-4:]
            for path in ("/here", "/inner/here", "/own/here")
        ]
    await another.close()
    assert used == ["x.db", "x.db", "y.db"]


async def test_an_object_that_cannot_be_read_is_the_servers_fault(database: Database):
    app = application(database)

    class Broken:
        @property
        def name(self) -> str:
            raise LookupError("hunter2")

    @app.get("/broken")
    async def broken() -> NewOwner:
        return NewOwner.model_validate(Broken())

    reply = await served(app, "/broken")
    assert reply.status_code == 500
    assert "hunter2" not in reply.text
    assert "name" not in reply.text
