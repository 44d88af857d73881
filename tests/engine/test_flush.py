"""A flush is SQLAlchemy's, and is sent by us: what goes natively, and in how many round trips."""

from datetime import datetime
from itertools import count
from typing import Any

import pytest
from sqlalchemy import JSON, Connection, String, TypeDecorator, event, func, inspect, literal, text
from sqlalchemy.exc import IntegrityError, InvalidRequestError, SAWarning, StatementError
from sqlalchemy.orm import Mapped, Mapper, declarative_base, mapped_column
from sqlalchemy.orm.exc import FlushError, StaleDataError
from sqlmodel import col, select
from sqlmodel.sql.sqltypes import UTCDateTime

from catalysis import Database, Session, UncommittedChanges, watch_queries
from tests.models import Job, Label, Person

Base: Any = declarative_base()


class Counter(Base):
    """A key and a default of the server's, and a version."""

    __tablename__ = "counter"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    hits: Mapped[int] = mapped_column(server_default=text("7"))
    version: Mapped[int] = mapped_column()
    __mapper_args__ = {"version_id_col": version, "eager_defaults": True}


def told(queries: Any) -> list[tuple[str, bool, str | None]]:
    return [(each.sql.split()[0], each.native, each.reason) for each in queries]


async def test_statements_of_a_flush_go_natively(database: Database):
    async with database.session() as session:
        with watch_queries() as queries:
            person = Person(name="ada", jobs=[Job(title="one"), Job(title="two")])  # pyright: ignore[reportCallIssue]
            session.add_all([person, Label(name="a")])
            await session.commit()
            person.name = "eve"
            await session.delete(person.jobs[0])
            await session.commit()
        assert {each.native for each in queries} == {True}
        assert sorted(each.entity or "" for each in queries if each.sql.startswith("INSERT")) == [
            "Job",
            "Label",
            "Person",
        ]
    async with database.session() as session:
        assert [each.title for each in (await session.exec(select(Job))).all()] == ["two"]


async def test_what_the_server_makes_comes_back_in_the_order_of_the_instances(backend_url: str):
    database = Database(backend_url)
    await database.create_all(Base.metadata)
    async with database.session() as session:
        counters = [Counter(name=f"counter {n}") for n in range(40)]
        session.add_all(counters)
        with watch_queries() as queries:
            await session.flush()
        assert len(queries) == 1
        assert [each.id for each in counters] == list(range(1, 41))
        assert {(each.hits, each.version) for each in counters} == {(7, 1)}
        for each in counters[:3]:
            each.hits += each.id
        await session.commit()
        assert {each.version for each in counters[:3]} == {2}
    async with database.session() as session:
        found = (await session.scalars(select(Counter).order_by(col(Counter.id)))).all()
        assert [(each.name, each.hits) for each in found[:4]] == [
            ("counter 0", 8),
            ("counter 1", 9),
            ("counter 2", 10),
            ("counter 3", 7),
        ]
    await database.close()


counted_defaults = count()


# --- A row that commits by itself -----------------------------------------------------------------


async def test_a_flush_that_is_not_the_last_of_its_transaction_can_be_rolled_back(database: Database):
    async with database.session() as session:
        session.add(Label(name="a"))
        await session.flush()
        assert database.pool_figures().lent == 1
        await session.rollback()
        session.add(Label(name="b"))
        async with session.begin_nested():
            pass  # whose beginning flushes
        await session.rollback()
    async with database.session() as session:
        assert (await session.exec(select(Label))).all() == []


async def test_a_listener_to_what_follows_keeps_the_transaction(database: Database):
    async with database.session() as session:

        def refuse(session: Any, context: Any) -> None:
            raise RuntimeError("not this one")

        event.listen(session.sync_session, "after_flush", refuse)
        session.add(Label(name="a"))
        with pytest.raises(RuntimeError):
            await session.commit()
        await session.rollback()
    async with database.session() as session:
        assert (await session.exec(select(Label))).all() == []


class Suspicious(TypeDecorator[str]):
    """A type that refuses what comes back."""

    impl = String
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        raise ValueError("refused")


class Returned(Base):
    __tablename__ = "returned"
    id: Mapped[int] = mapped_column(primary_key=True)
    made: Mapped[str] = mapped_column(Suspicious, server_default="made")
    __mapper_args__ = {"eager_defaults": True}


class Nameless(Base):
    """SQLite lets NULL into a key like this one; the unit of work does not."""

    __tablename__ = "nameless"
    name: Mapped[str] = mapped_column(primary_key=True)
    other: Mapped[int]


@pytest.mark.filterwarnings("ignore:Column .nameless.name. is marked")
@pytest.mark.parametrize("case", ["a type refuses", "a listener refuses", "no key"])
async def test_what_may_fail_after_its_statement_has_a_transaction(backend_url: str, case: str):
    database = Database(backend_url)
    await database.create_all(Base.metadata)
    rows: dict[str, Any] = {"a type refuses": Returned(), "no key": Nameless(other=1)}
    row = rows.get(case) or Parcel(key="a")

    def refuse(session: Any, instance: Any) -> None:
        raise ValueError("refused")

    async with database.session() as session:
        if case == "a listener refuses":
            event.listen(session.sync_session, "pending_to_persistent", refuse)
        session.add(row)
        with pytest.raises((ValueError, FlushError, IntegrityError)):
            await session.commit()
        await session.rollback()
    async with database.engine.connect() as connection:
        table = inspect(type(row)).local_table
        assert (await connection.execute(select(func.count()).select_from(table))).scalar_one() == 0
    await database.close()


@pytest.mark.parametrize("of_engine", [False, True])
async def test_a_listener_that_comes_to_a_connection_is_heard(database: Database, of_engine: bool):
    heard = list[str]()

    def before(conn: Any, cursor: Any, sql: str, parameters: Any, context: Any, many: bool) -> None:
        heard.append(sql.split()[0])

    async with database.session() as session:
        connection = (await session.connection()).sync_connection
        event.listen(connection.engine if of_engine else connection, "before_cursor_execute", before)
        session.add(Label(name="a"))
        await session.flush()
        await session.exec(select(Label))
        async with Session(await session.connection()) as other:
            await other.exec(select(Label))
        await session.rollback()
    assert heard == ["INSERT", "SELECT", "SELECT"]


async def test_an_expression_left_unflushed_is_reported(database: Database):
    session = database.session()
    label = Label(name="a")
    session.add(label)
    await session.commit()
    label.name = func.upper("b")  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.warns(UncommittedChanges, match="Label"):
        await session.close()


async def test_a_refused_row_leaves_the_session_as_sqlalchemy_does(database: Database):
    async with database.session() as session:
        session.add(Job(title="nobody's", person_id=None))  # pyright: ignore[reportArgumentType]
        with pytest.raises(IntegrityError):
            await session.commit()
        assert database.pool_figures().lent == 0
        with pytest.raises(InvalidRequestError, match="rolled back"):
            await session.exec(select(Label))
        await session.rollback()
        session.add(Label(name="a"))
        await session.commit()


async def test_a_stale_row_is_noticed_without_a_transaction(database: Database):
    async with database.session() as session:
        label = Label(name="a")
        session.add(label)
        await session.commit()
        async with database.session() as other:
            await other.delete(await other.get_one(Label, label.id), hard=True)
            await other.commit()
        label.name = "b"
        with pytest.raises(StaleDataError):
            await session.commit()
        await session.rollback()


async def test_rows_of_many_are_counted(database: Database):
    async with database.session() as session:
        labels = [Label(name=f"label {n}") for n in range(3)]
        session.add_all(labels)
        await session.commit()
        async with database.session() as other:
            await other.delete(await other.get_one(Label, labels[1].id), hard=True)
            await other.commit()
        for each in labels:
            each.name += "!"
        with pytest.raises(StaleDataError, match="expected to update 3 row"):
            await session.commit()
        await session.rollback()


# --- What falls back ------------------------------------------------------------------------------


async def test_a_listener_to_rows_gets_sqlalchemys_connection(database: Database):
    given = list[Any]()

    def before_insert(mapper: Mapper[Any], connection: Any, target: Any) -> None:
        given.append(connection)
        connection.execute(text("SELECT 1"))

    event.listen(Label, "before_insert", before_insert)
    try:
        async with database.session() as session:
            session.add(Label(name="a"))
            with watch_queries() as queries:
                await session.commit()
            with watch_queries() as after:
                await session.execute(text("SELECT 1"))
                await session.run_sync(lambda sync: sync.scalars(select(Label)).all())
    finally:
        event.remove(Label, "before_insert", before_insert)
    assert told(after) == [("SELECT", False, "not a SELECT"), ("SELECT", True, None)]
    assert isinstance(given[0], Connection)
    assert told(queries) == [
        ("SELECT", False, "a listener to before_insert"),
        ("INSERT", False, "a listener to before_insert"),
    ]


async def test_a_value_that_cannot_be_bound_is_sqlalchemys_to_refuse(database: Database):
    async with database.session() as session:
        session.add(Label(name="a", created_at=datetime(2000, 1, 1)))
        with pytest.raises(StatementError):
            await session.commit()
        await session.rollback()


class Parcel(Base):
    """A plain class, whose new rows we bind; every kind of default, and two types with processors."""

    __tablename__ = "parcel"
    key: Mapped[str] = mapped_column("key of it", primary_key=True)
    label: Mapped[str | None]
    weight: Mapped[int] = mapped_column(default=5)
    code: Mapped[str] = mapped_column(default=lambda: "made", server_default="never")
    marks: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))


class Part(Base):
    """Over a subquery, into which nothing can be inserted, and SQLAlchemy says nothing."""

    __table__ = select(Parcel.__table__.c["key of it"].label("key")).subquery()
    __mapper_args__ = {"primary_key": [__table__.c.key]}


class Counted(Base):
    __tablename__ = "counted"
    key: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(UTCDateTime)
    number: Mapped[int] = mapped_column(default=lambda: next(counted_defaults))


class Echo(Base):
    """Defaults that look at the row, and ask the database."""

    __tablename__ = "echo"
    key: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    said: Mapped[str]
    heard: Mapped[str] = mapped_column(
        default=lambda context: context.get_current_parameters()["said"].upper()
    )
    asked: Mapped[int] = mapped_column(default=lambda context: context.connection.scalar(select(literal(7))))


async def test_new_rows_of_every_shape_are_stored(backend_url: str):
    database = Database(backend_url)
    await database.create_all(Base.metadata)
    async with database.session() as session:
        plain = [Parcel(key=f"plain {n}", label="a", marks={"n": n}) for n in range(3)]
        others = [
            Parcel(key="light", weight=1),
            Parcel(key="null", marks=None, code="given"),
            Parcel(key="counted", weight=select(func.count()).select_from(Counter).scalar_subquery()),
        ]
        session.add_all([*plain, *others, Echo(key=1, said="hello")])
        with watch_queries() as queries:
            await session.commit()
        assert {each.entity or each.reason for each in queries} == {
            "Parcel",
            "a default that is given SQLAlchemy's context, and may use its connection",
        }
        assert (plain[0].weight, plain[0].code, others[1].code) == (5, "made", "given")
        assert not inspect(plain[0]).modified
    async with database.session() as session:
        found = {each.key: each for each in (await session.scalars(select(Parcel))).all()}
        shape = {key: (each.label, each.weight, each.code, each.marks) for key, each in found.items()}
        assert shape == {
            "plain 0": ("a", 5, "made", {"n": 0}),
            "plain 1": ("a", 5, "made", {"n": 1}),
            "plain 2": ("a", 5, "made", {"n": 2}),
            "light": (None, 1, "made", None),
            "null": (None, 5, "given", None),
            "counted": (None, 0, "made", None),
        }
        echo = (await session.scalars(select(Echo))).one()
        assert (echo.heard, echo.asked) == ("HELLO", 7)
        session.add(Parcel(key="light"))
        with (
            pytest.warns(SAWarning, match="conflicts with persistent instance"),
            pytest.raises(IntegrityError),
        ):
            await session.commit()
        await session.rollback()
        await session.delete(found["light"])
        session.add(Parcel(key="light", label="again"))
        await session.commit()
    async with database.session() as session:
        assert (await session.get_one(Parcel, "light")).label == "again"
    await database.close()


# --- Out of the ordinary --------------------------------------------------------------------------


async def test_a_class_over_a_subquery_is_flushed_as_sqlalchemy_does(backend_url: str):
    database = Database(backend_url)
    await database.create_all(Base.metadata)
    async with database.session() as session:
        session.add(Part(key="a"))
        await session.commit()
    await database.close()


async def test_a_key_may_be_an_expression(backend_url: str):
    database = Database(backend_url)
    await database.create_all(Base.metadata)
    async with database.session() as session:
        parcel = Parcel(key="a")
        session.add(parcel)
        await session.commit()
        parcel.key = func.upper(Parcel.key)
        await session.commit()
        assert (await session.scalars(select(Parcel.key))).all() == ["A"]
    await database.close()


async def test_defaults_are_called_once_for_rows_that_are_refused(backend_url: str):
    database = Database(backend_url)
    await database.create_all(Base.metadata)
    async with database.session() as session:
        before = next(counted_defaults)
        session.add_all([Counted(key=1, at="no time"), Counted(key=2, at="none")])
        with pytest.raises(StatementError, match=r"Counted|counted|DateTime|datetime"):
            await session.commit()
        assert next(counted_defaults) <= before + 3
        await session.rollback()
    await database.close()
