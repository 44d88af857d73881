"""What a batch must leave to SQLAlchemy: each case gives on a `Session` what it gives on stock, whoever is a peer.

Seen to fail, each with its protection taken away: the histories without `autoflush` in `_is_for_one`, the depths
without `_with_options` in it, what came otherwise without `path`, what is not flushed without `_read_for`, what was
deleted without `key` beside it, NULL in keys without `None in state.key[1]` and `_may_be_partial`, subqueries without
`_brings_subqueries`, the options of an immediate load without `Touch.options`.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from sqlalchemy import Column, ForeignKey, Integer, String, Table, event, insert, inspect, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    defer,
    immediateload,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
    subqueryload,
)
from sqlalchemy.orm import Session as SyncSession

from catalysis import Session


class Base(DeclarativeBase):
    pass


class Owner(Base):
    __tablename__ = "owner"
    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str | None]
    badge: Mapped["Badge | None"] = relationship(back_populates="owner")
    notes: Mapped[list["Note"]] = relationship(
        foreign_keys="Note.owner_id", viewonly=True, order_by="Note.id"
    )
    by_code: Mapped[list["Note"]] = relationship(
        primaryjoin="Owner.code == foreign(Note.code)", viewonly=True, order_by="Note.id"
    )


class Badge(Base):
    __tablename__ = "badge"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("owner.id"))
    owner: Mapped[Owner | None] = relationship(back_populates="badge")


class Note(Base):
    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str | None]
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("owner.id"))
    writer_id: Mapped[int | None] = mapped_column(ForeignKey("owner.id"))
    owner: Mapped[Owner | None] = relationship(foreign_keys=owner_id, active_history=True)
    writer: Mapped[Owner | None] = relationship(
        primaryjoin="and_(Owner.id == Note.writer_id, Owner.id > 0)", foreign_keys=writer_id, viewonly=True
    )


parts = Table(
    "part",
    Base.metadata,
    Column("row", Integer, primary_key=True),
    *[Column(name, Integer) for name in ("first", "second", "of_first", "of_second")],
    Column("name", String(20)),
)


class Part(Base):
    """As of a view: the second half of its key may be NULL."""

    __table__ = parts
    __mapper_args__ = {
        "primary_key": [parts.c.first, parts.c.second],
        "exclude_properties": ["row"],
    }
    whole = relationship(
        "Part",
        primaryjoin="and_(foreign(Part.of_first) == remote(Part.first), "
        "foreign(Part.of_second) == remote(Part.second))",
        viewonly=True,
    )
    pieces = relationship(
        "Part", primaryjoin="Part.first == foreign(remote(Part.of_first))", uselist=True, viewonly=True
    )


class Paper(Base):
    __tablename__ = "paper"
    id: Mapped[int] = mapped_column(primary_key=True)
    note_id: Mapped[int | None] = mapped_column(ForeignKey("note.id"))
    note: Mapped[Note | None] = relationship(lazy="subquery")


class Node(Base):
    __tablename__ = "node"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("node.id"))
    children: Mapped[list["Node"]] = relationship(order_by="Node.id")


OWNERS = (1, 2, 3)


@pytest.fixture
async def engine(backend_url: str) -> AsyncIterator[Any]:
    engine = create_async_engine(backend_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(insert(Owner), [{"id": n, "code": f"code {n}"} for n in OWNERS])
        await connection.execute(insert(Badge), [{"id": n, "owner_id": n} for n in OWNERS])
        notes = [
            {"id": n * 10 + i, "code": f"code {n}", "owner_id": n, "writer_id": n}
            for n in OWNERS
            for i in (0, 1)
        ]
        await connection.execute(insert(Note), notes)
        await connection.execute(insert(Paper), [{"id": n, "note_id": 10} for n in OWNERS])
        rows = [(1, 1, None, None, None), (2, 2, None, 1, None), (3, 3, 3, 2, None), (4, 4, 4, 3, 3)]
        names = ("row", "first", "second", "of_first", "of_second")
        await connection.execute(
            insert(parts),
            [{**dict(zip(names, each, strict=True)), "name": f"part {each[0]}"} for each in rows],
        )
        nodes = {1: None, 2: None, 11: 1, 12: 1, 21: 2, 111: 11, 112: 11, 121: 12, 1111: 111}
        await connection.execute(insert(Node), [{"id": key, "parent_id": up} for key, up in nodes.items()])
    yield engine
    await engine.dispose()


def all_of(session: SyncSession, kind: Any, *options: Any) -> list[Any]:
    key = Part.first if kind is Part else kind.id
    return list(session.scalars(select(kind).options(*options).order_by(key)))


def history_of(instance: Any, name: str) -> Any:
    changes = inspect(instance).attrs[name].load_history()
    return [[each and each.id for each in some or ()] for some in changes]


# --- A history is of what was committed -----------------------------------------------------------


def history_of_a_one_to_one(session: SyncSession) -> Any:
    owners = all_of(session, Owner)
    owners[0].badge = Badge(id=9)
    return session.is_modified(owners[0]), history_of(owners[0], "badge")


def history_of_a_one_to_one_that_is_taken_away(session: SyncSession) -> Any:
    owners = all_of(session, Owner)
    owners[0].badge = None
    return session.is_modified(owners[0]), history_of(owners[0], "badge")


def history_where_the_key_was_changed_before(session: SyncSession) -> Any:
    notes = all_of(session, Note)
    with session.no_autoflush:
        notes[0].owner_id = 2
        notes[0].owner = session.get(Owner, 3)
        notes[2].owner_id = None
        notes[2].owner = None
        return history_of(notes[0], "owner"), history_of(notes[2], "owner")


def what_a_change_loads_is_not_loaded_for_peers(session: SyncSession) -> Any:
    notes = all_of(session, Note)
    notes[0].owner = None
    return [sorted(inspect(note).unloaded) for note in notes]


# --- A refresh brings what is eager ---------------------------------------------------------------


def refreshed_with_subqueries(session: SyncSession) -> Any:
    owners = all_of(session, Owner, subqueryload(Owner.notes))
    papers = all_of(session, Paper)
    session.expire_all()
    _ = owners[0].code, papers[0].note_id
    return sorted(owners[0].__dict__), sorted(papers[0].__dict__)


# --- What is not flushed counts -------------------------------------------------------------------


def keys_that_are_not_flushed(session: SyncSession) -> Any:
    notes, owners = all_of(session, Note), all_of(session, Owner)
    with session.no_autoflush:
        notes[0].writer_id, notes[2].writer_id = 2, None
        owners[0].code, owners[2].code = "code 2", None
        owners[1].id = 3
        return (
            [note.writer and note.writer.id for note in notes],
            [[note.id for note in owner.by_code] for owner in owners],
            [[note.id for note in owner.notes] for owner in owners],
        )


def keys_of_peers_that_are_not_flushed(session: SyncSession) -> Any:
    notes, owners = all_of(session, Note), all_of(session, Owner)
    with session.no_autoflush:
        notes[0].writer_id, owners[0].code, owners[0].id = 2, "code 2", 2
        _ = notes[5].writer, owners[2].by_code, owners[2].notes
        return (
            [note.writer and note.writer.id for note in notes],
            [[note.id for note in owner.by_code] for owner in owners],
            [[note.id for note in owner.notes] for owner in owners],
        )


def what_was_deleted_from_a_peer_is_flushed(session: SyncSession) -> Any:
    badges, notes = all_of(session, Badge), all_of(session, Note)
    with session.no_autoflush:
        del badges[0].owner, notes[0].owner
        _ = badges[1].owner, notes[5].owner
    session.flush()
    kept = (Badge.owner_id, Badge.id), (Note.owner_id, Note.id)
    return [session.scalars(select(key).order_by(each)).all() for key, each in kept]


# --- NULL in a key --------------------------------------------------------------------------------


def columns_of_rows_with_null_in_their_key(session: SyncSession) -> Any:
    names = [part.name for part in all_of(session, Part, defer(Part.name))]
    parts = all_of(session, Part)
    session.expire_all()
    return names, [(part.first, part.name) for part in reversed(parts)]


def null_in_a_foreign_key(session: SyncSession) -> Any:
    found = list(session.scalars(select(Part).where(Part.first >= 3).order_by(Part.first)))
    return [part.whole and part.whole.name for part in found]


def null_in_the_foreign_key_of_a_peer(session: SyncSession) -> Any:
    found = list(session.scalars(select(Part).where(Part.first != 2).order_by(Part.first.desc())))
    return [part.whole and part.whole.name for part in found]


def what_rows_with_null_in_their_key_lead_to(session: SyncSession) -> Any:
    parts = all_of(session, Part)
    return [[[piece.first for piece in part.pieces] for part in some] for some in (parts[::-1], parts)]


# --- Eager loads ----------------------------------------------------------------------------------


def tree(node: Node) -> Any:
    children = node.__dict__.get("children")
    return node.id, None if children is None else [tree(each) for each in children]


def to_a_depth(load: Callable[..., Any], depth: int) -> Callable[[SyncSession], Any]:
    def program(session: SyncSession) -> Any:
        option = load(Node.children, recursion_depth=depth)
        statement = select(Node).where(Node.parent_id.is_(None)).options(option).order_by(Node.id)
        return [tree(node) for node in session.scalars(statement)]

    program.__name__ = f"{load.__name__}_to_{depth}"
    return program


def an_immediate_load_of_what_came_otherwise(session: SyncSession) -> Any:
    came_with = joinedload(Badge.owner).lazyload(Owner.notes).joinedload(Note.writer)
    badges = all_of(session, Badge, came_with)
    all_of(session, Owner, immediateload(Owner.notes))
    return [["writer" in note.__dict__ for note in badge.owner.__dict__["notes"]] for badge in badges]


def options_of_an_immediate_load(session: SyncSession) -> Any:
    seen: list[Any] = []

    @event.listens_for(session, "do_orm_execute")
    def executed(state: Any) -> None:
        seen.append(
            (
                state.is_relationship_load,
                state.execution_options.get("ours"),
                "autoflush" in state.execution_options,
            )
        )

    statement = select(Owner).options(immediateload(Owner.notes)).execution_options(ours=1)
    session.scalars(statement).all()
    return sorted(set(seen))


CASES: list[Callable[[SyncSession], Any]] = [
    history_of_a_one_to_one,
    history_of_a_one_to_one_that_is_taken_away,
    history_where_the_key_was_changed_before,
    what_a_change_loads_is_not_loaded_for_peers,
    refreshed_with_subqueries,
    keys_that_are_not_flushed,
    keys_of_peers_that_are_not_flushed,
    what_was_deleted_from_a_peer_is_flushed,
    columns_of_rows_with_null_in_their_key,
    null_in_a_foreign_key,
    null_in_the_foreign_key_of_a_peer,
    what_rows_with_null_in_their_key_lead_to,
    an_immediate_load_of_what_came_otherwise,
    *(to_a_depth(load, depth) for load in (immediateload, selectinload) for depth in (1, 2, -1)),
    options_of_an_immediate_load,
]


@pytest.mark.parametrize("case", CASES, ids=[each.__name__ for each in CASES])
async def test_like_stock(engine: Any, case: Callable[[SyncSession], Any]) -> None:
    found = list[Any]()
    for kind in (AsyncSession, Session):
        async with kind(engine) as session:
            found.append(await session.run_sync(case))
            await session.rollback()
    assert found[0] == found[1]
    assert found[0]
