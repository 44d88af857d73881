"""29. Extra keys in a body, another user's id, no limit: refused, not found, capped.

The starter's own tests hold the same of all its routes (`test_operations.py`, `test_tasks.py`).

Mutations seen to fail: `DTO` with `extra="ignore"`; `check_size` returns at once.
"""

from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import FastAPI, Header
from sqlalchemy import ForeignKey
from sqlalchemy.orm import registry
from sqlmodel import Field, select

from catalysis import (
    DTO,
    Database,
    DatabaseDep,
    InvalidPage,
    ModelWithIdAndTimestamps,
    paginate,
    paginate_keyset,
)
from catalysis.integrations.fastapi import add_error_handlers

Me = Annotated[UUID, Header()]


class Base(ModelWithIdAndTimestamps, registry=registry()):
    pass


class Account(Base, table=True):
    name: str
    is_admin: bool = False


class Note(Base, table=True):
    account_id: UUID = Field(sa_column_args=[ForeignKey("account.id")])
    words: str


class NewAccount(DTO):
    name: str


class NoteDTO(DTO):
    id: UUID
    words: str


@pytest.fixture
async def client(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    await database.create_all(Base.metadata)
    app = FastAPI()
    app.state.database = database
    add_error_handlers(app)

    @app.post("/accounts", status_code=201)
    async def create(body: NewAccount, db: DatabaseDep) -> UUID:
        account = Account(**body.model_dump())
        db.add(account)
        await db.commit()
        return account.id

    @app.post("/notes", status_code=201)
    async def write(words: str, db: DatabaseDep, me: Me) -> UUID:
        note = Note(account_id=me, words=words)
        db.add(note)
        await db.commit()
        return note.id

    @app.get("/notes/{key}")
    async def read(key: UUID, db: DatabaseDep, me: Me) -> NoteDTO:
        mine = select(Note).where(Note.id == key, Note.account_id == me)
        return NoteDTO.model_validate((await db.exec(mine)).one())

    @app.get("/notes")
    async def listed(db: DatabaseDep, me: Me, size: int = 20, page: int = 1) -> list[NoteDTO]:
        mine = select(Note).where(Note.account_id == me).order_by(Note.id)
        found = await paginate(db, mine, page=page, size=size)
        return [NoteDTO.model_validate(note) for note in found.items]

    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def account(client: httpx.AsyncClient, name: str) -> dict[str, str]:
    return {"me": (await client.post("/accounts", json={"name": name})).json()}


@pytest.mark.parametrize(
    "extra", [{"is_admin": True}, {"id": str(uuid4())}, {"created_at": "2020-01-01T00:00:00Z"}]
)
async def test_extra_keys_are_refused(client: httpx.AsyncClient, database: Database, extra: dict):
    assert (await client.post("/accounts", json={"name": "eve", **extra})).status_code == 422
    async with database.session() as session:
        assert (await session.exec(select(Account))).all() == []


async def test_what_is_somebody_elses_is_not_there(client: httpx.AsyncClient):
    ann, bob = await account(client, "ann"), await account(client, "bob")
    note = (await client.post("/notes", params={"words": "mine"}, headers=ann)).json()
    assert (await client.get(f"/notes/{note}", headers=ann)).json()["words"] == "mine"
    of_others, of_nobody = [await client.get(f"/notes/{key}", headers=bob) for key in (note, uuid4())]
    assert (of_others.status_code, of_others.json()) == (of_nobody.status_code, of_nobody.json())
    assert of_others.status_code == 404


async def test_what_has_no_limit_is_capped(client: httpx.AsyncClient, database: Database):
    ann = await account(client, "ann")
    async with database.session() as session:
        session.add_all([Note(account_id=UUID(ann["me"]), words=f"{n}") for n in range(150)])
        await session.commit()
    assert len((await client.get("/notes", headers=ann)).json()) == 20
    assert len((await client.get("/notes", params={"size": 100}, headers=ann)).json()) == 100
    for size in (101, 10**9, 0, -1):
        assert (await client.get("/notes", params={"size": size}, headers=ann)).status_code == 422
    async with database.session() as session:
        for size in (101, 10**9):
            with pytest.raises(InvalidPage):
                await paginate_keyset(session, select(Note).order_by(Note.id), size=size)
