"""COPY in the place of an INSERT: the same rows, the same errors, the same transaction; and where it is not used."""

import asyncio
import enum
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import (
    ARRAY,
    JSON,
    REAL,
    BigInteger,
    CheckConstraint,
    Computed,
    Date,
    DateTime,
    Enum,
    ForeignKey,
    Identity,
    Interval,
    LargeBinary,
    Numeric,
    PickleType,
    SmallInteger,
    String,
    Time,
    TypeDecorator,
    Uuid,
    event,
    func,
    null,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import INT4RANGE, JSONB, Range
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlmodel.sql.sqltypes import UTCDateTime

from catalysis import Database, Session, bulk_insert, watch_queries
from catalysis.tools import copying
from tests.models import Person


class Base(DeclarativeBase):
    pass


class Colour(enum.Enum):
    RED = "r"
    GREEN = "g"


class Shouted(TypeDecorator[str]):
    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return value if value is None else value.upper()


class Everything(Base):
    """A column of each type that COPY takes, names that have to be quoted, and each kind of default."""

    __tablename__ = "Every Thing"
    __table_args__ = {"schema": "Other"}

    id: Mapped[int] = mapped_column(primary_key=True)
    user: Mapped[str] = mapped_column("select")
    mixed: Mapped[str | None] = mapped_column('Mixed "Case"', String(20))
    small: Mapped[int | None] = mapped_column(SmallInteger)
    big: Mapped[int | None] = mapped_column(BigInteger)
    money: Mapped[Decimal | None] = mapped_column(Numeric(10, 2))
    ratio: Mapped[float | None]
    yes: Mapped[bool | None]
    day: Mapped[date | None] = mapped_column(Date)
    naive: Mapped[datetime | None] = mapped_column(DateTime)
    moment: Mapped[datetime | None] = mapped_column(UTCDateTime)
    hour: Mapped[time | None] = mapped_column(Time)
    span: Mapped[timedelta | None] = mapped_column(Interval)
    uid: Mapped[UUID | None]
    hexed: Mapped[UUID | None] = mapped_column(Uuid(native_uuid=False))
    raw: Mapped[bytes | None] = mapped_column(LargeBinary)
    pickled: Mapped[Any] = mapped_column(PickleType, nullable=True)
    plain: Mapped[Any] = mapped_column(JSON, nullable=True)
    nulling: Mapped[Any] = mapped_column(JSONB(none_as_null=True), nullable=True)
    colour: Mapped[Colour | None] = mapped_column(Enum(Colour, schema="Other"))
    shade: Mapped[Colour | None] = mapped_column(Enum(Colour, native_enum=False))
    numbers: Mapped[list[int] | None] = mapped_column(ARRAY(BigInteger))
    colours: Mapped[list[Colour] | None] = mapped_column(ARRAY(Enum(Colour, schema="Other")))
    loud: Mapped[str | None] = mapped_column(Shouted)
    made: Mapped[str] = mapped_column(default=lambda: "made")
    loud_default: Mapped[str] = mapped_column(Shouted, default=lambda: "loud")
    fixed: Mapped[int] = mapped_column(default=7)
    stamped: Mapped[int] = mapped_column(server_default="3")


def everything(i: int) -> dict[str, Any]:
    return {
        "user": f"user {i}\t\\N",
        "mixed": "é" * (i % 20),
        "small": -i,
        "big": 2**62 + i,
        "money": Decimal(i) / 8,
        "ratio": i / 7,
        "yes": bool(i % 2),
        "day": date(2024, 1, 1) + timedelta(days=i),
        "naive": datetime(2024, 1, 1, 12, i % 60),
        "moment": datetime(2024, 1, 1, i % 24, tzinfo=UTC),
        "hour": time(i % 24, 5, 6, 7),
        "span": timedelta(days=i, seconds=5),
        "uid": UUID(int=i),
        "hexed": UUID(int=i),
        "raw": bytes([i % 256, 0]),
        "pickled": {"i": i},
        "plain": {"i": [i, None]},
        "nulling": [i],
        "colour": Colour.RED,
        "shade": Colour.GREEN,
        "numbers": [i, i + 1],
        "colours": [Colour.GREEN],
        "loud": "abc",
    }


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """COPY from one row on."""
    monkeypatch.setattr(copying, "FEWEST", 1)


@pytest.fixture
async def postgres(postgres_url: str) -> AsyncIterator[Database]:
    database = Database(postgres_url)
    yield database
    await database.close()


async def tables(database: Database, base: type[DeclarativeBase], *sql: str) -> None:
    async with database.engine.begin() as connection:
        for each in sql:
            await connection.execute(text(each))
    await database.create_all(base.metadata)


async def stored(session: AsyncSession, model: Any) -> list[tuple[Any, ...]]:
    columns = [column for column in model.__table__.columns if column.name != "id"]
    rows = await session.execute(select(*columns).order_by(model.__table__.c.id))
    return [tuple(row) for row in rows]


def copies(queries: Any) -> int:
    return sum(query.sql.startswith("COPY") for query in queries)


async def both_ways(
    session: Session, model: Any, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, Any, int]:
    """What is stored by COPY, what is stored by INSERT, and the number of COPY statements."""
    with watch_queries() as queries:
        await bulk_insert(session, model, rows)
    by_copy = await stored(session, model)
    await session.rollback()
    with monkeypatch.context() as patch:
        patch.setattr(copying, "FEWEST", 10**9)
        await bulk_insert(session, model, rows)
    by_insert = await stored(session, model)
    await session.rollback()
    return by_copy, by_insert, copies(queries)


# --- The same rows --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows",
    [
        [everything(i) for i in range(50)],
        [{"user": "u"}],
        [{"user": "u", **dict.fromkeys(list(everything(0))[1:])}],
        [{"user": "u", "plain": None}, {"user": "u"}, {"user": "u", "nulling": None, "plain": [None]}],
        [everything(1), {"user": "u", "made": "given", "fixed": 2}, {"user": "u", "loud_default": None}],
        [{"user": "u", "stamped": 4}, {"user": "u", "stamped": 5}],
        [{"user": "u", "plain": null()}, {"user": "u", "plain": None}],
    ],
)
async def test_a_row_is_stored_as_by_an_insert(
    postgres: Database, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
):
    await tables(postgres, Base, 'DROP SCHEMA IF EXISTS "Other" CASCADE', 'CREATE SCHEMA "Other"')
    async with postgres.session() as session:
        by_copy, by_insert, count = await both_ways(session, Everything, rows, monkeypatch)
    assert by_copy == by_insert
    assert len(by_copy) == len(rows)
    assert count == 1


@pytest.mark.parametrize(
    "rows",
    [
        [{"user": "u", "stamped": 4}, {"user": "u"}],
        [{"user": "u"}, {"user": "u", "stamped": 4}, {"user": "u", "stamped": None}],
        [{"user": "u", "id": 1000}, {"user": "u"}],
    ],
)
async def test_what_the_server_makes_for_some_rows_only_is_inserted(
    postgres: Database, rows: list[dict[str, Any]]
):
    await tables(postgres, Base, 'DROP SCHEMA IF EXISTS "Other" CASCADE', 'CREATE SCHEMA "Other"')
    async with postgres.session() as session:
        with watch_queries() as queries:
            assert await bulk_insert(session, Everything, rows) == len(rows)
        assert copies(queries) == 0
        assert len(await stored(session, Everything)) == len(rows)
        await session.rollback()


# --- Where COPY is not used -----------------------------------------------------------------------


async def test_defaults_that_only_an_insert_computes(postgres: Database):
    class OwnBase(DeclarativeBase):
        pass

    class Odd(OwnBase):
        __tablename__ = "odd"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]
        lower: Mapped[str] = mapped_column(default=func.lower("ABC"))
        copied: Mapped[str] = mapped_column(default=lambda context: context.get_current_parameters()["name"])

    await tables(postgres, OwnBase)
    async with postgres.session() as session:
        with watch_queries() as queries:
            await bulk_insert(session, Odd, [{"name": "a"}, {"name": "b"}])
        assert copies(queries) == 0
        assert await stored(session, Odd) == [("a", "abc", "a"), ("b", "abc", "b")]
        with watch_queries() as queries:
            await bulk_insert(session, Odd, [{"name": "c", "lower": "given", "copied": "too"}])
        assert copies(queries) == 1
        await session.rollback()


async def test_types_that_are_not_known(postgres: Database):
    class OwnBase(DeclarativeBase):
        pass

    class Doubled(TypeDecorator[int]):
        impl = BigInteger
        cache_ok = True

        def bind_expression(self, bindvalue: Any) -> Any:
            return bindvalue * 2

    class Ranged(OwnBase):
        __tablename__ = "ranged"
        id: Mapped[int] = mapped_column(primary_key=True)
        span: Mapped[Any] = mapped_column(INT4RANGE, nullable=True)

    class Twice(OwnBase):
        __tablename__ = "twice"
        id: Mapped[int] = mapped_column(primary_key=True)
        number: Mapped[int] = mapped_column(Doubled)

    await tables(postgres, OwnBase)
    async with postgres.session() as session:
        with watch_queries() as queries:
            await bulk_insert(session, Ranged, [{"span": Range(1, 3)}])
            await bulk_insert(session, Twice, [{"number": 4}])
        assert copies(queries) == 0
        assert await session.scalar(select(Twice.number)) == 8
        await session.rollback()


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE thing ALTER name TYPE citext",
        "ALTER TABLE thing ALTER name TYPE char(10)",
        "ALTER TABLE thing ALTER size TYPE bigint",
        "CREATE RULE r AS ON INSERT TO thing WHERE NEW.size = 99 DO INSTEAD NOTHING",
        "ALTER TABLE thing RENAME TO t; CREATE VIEW thing AS SELECT * FROM t",
        "ALTER TABLE thing ENABLE ROW LEVEL SECURITY; ALTER TABLE thing FORCE ROW LEVEL SECURITY; "
        "CREATE POLICY p ON thing USING (true); CREATE ROLE plain_role; GRANT ALL ON thing TO plain_role; "
        "GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO plain_role; GRANT USAGE ON SCHEMA public TO plain_role",
    ],
)
async def test_tables_that_are_not_as_their_models(postgres: Database, change: str):
    class OwnBase(DeclarativeBase):
        pass

    class Thing(OwnBase):
        __tablename__ = "thing"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]
        size: Mapped[int]

    await tables(postgres, OwnBase)
    async with postgres.session() as session:
        if "citext" in change:
            try:
                await session.execute(text("CREATE EXTENSION citext"))
            except DBAPIError:
                pytest.skip("this server has no citext")
        await session.execute(text("DROP ROLE IF EXISTS plain_role"))
        for each in change.split(";"):
            await session.execute(text(each))
        if "plain_role" in change:
            await session.execute(text("SET LOCAL ROLE plain_role"))
        with watch_queries() as queries:
            await bulk_insert(session, Thing, [{"name": "a", "size": 1}, {"name": "b", "size": 99}])
        assert copies(queries) == 0
        assert await session.scalar(text("SELECT count(*) FROM thing")) == (1 if "RULE" in change else 2)
        await session.rollback()


async def test_a_role_that_may_not_read_inserts(postgres: Database):
    await tables(postgres, Base, 'DROP SCHEMA IF EXISTS "Other" CASCADE', 'CREATE SCHEMA "Other"')
    async with postgres.session() as session:
        for each in (
            "DROP ROLE IF EXISTS writer",
            "CREATE ROLE writer",
            'GRANT USAGE ON SCHEMA "Other" TO writer',
            'GRANT INSERT ON "Other"."Every Thing" TO writer',
            'GRANT ALL ON ALL SEQUENCES IN SCHEMA "Other" TO writer',
            "SET LOCAL ROLE writer",
        ):
            await session.execute(text(each))
        with watch_queries() as queries:
            await bulk_insert(session, Everything, [{"user": "u"}, {"user": "v"}])
        assert copies(queries) == 0
        await session.rollback()


async def test_keys_and_columns_that_the_database_insists_on_making(postgres: Database):
    class OwnBase(DeclarativeBase):
        pass

    class Made(OwnBase):
        __tablename__ = "made"
        id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
        size: Mapped[int]
        double: Mapped[int] = mapped_column(Computed("size * 2"))

    await tables(postgres, OwnBase)
    async with postgres.session() as session:
        with watch_queries() as queries:
            await bulk_insert(session, Made, [{"size": 3}])
        assert copies(queries) == 1
        assert await session.scalar(select(Made.double)) == 6
        for row in ({"size": 3, "id": 9}, {"size": 3, "double": 9}):
            with pytest.raises(DBAPIError, match="non-DEFAULT value"):
                async with session.begin_nested():
                    await bulk_insert(session, Made, [row])
        await session.rollback()


async def test_somebody_who_listens_to_statements_hears_an_insert(postgres: Database):
    await tables(postgres, Person)  # pyright: ignore[reportArgumentType]
    heard: list[str] = []

    def hear(conn: Any, cursor: Any, sql: str, *rest: Any) -> None:
        heard.append(sql.split()[0])

    event.listen(postgres.engine.sync_engine, "before_cursor_execute", hear)
    async with postgres.session() as session:
        await bulk_insert(session, Person, [{"name": "ada"}])
        await session.rollback()
    assert heard == ["INSERT"]
    event.remove(postgres.engine.sync_engine, "before_cursor_execute", hear)
    async with postgres.session() as session:
        event.listen(session.sync_session, "do_orm_execute", lambda executing: heard.append("do_orm_execute"))
        await bulk_insert(session, Person, [{"name": "ada"}])
        await session.rollback()
    assert heard == ["INSERT", "do_orm_execute"]


async def test_a_type_changed_by_another_connection(postgres: Database):
    """The driver remembers a table's types; four bytes of a number are not four bytes of another."""

    class OwnBase(DeclarativeBase):
        pass

    class Measure(OwnBase):
        __tablename__ = "measure"
        id: Mapped[int] = mapped_column(primary_key=True)
        size: Mapped[int]

    class Base2(DeclarativeBase):
        pass

    class Changed(Base2):
        __tablename__ = "measure"
        id: Mapped[int] = mapped_column(primary_key=True)
        size: Mapped[float] = mapped_column(REAL)  # four bytes, as the integer has

    await tables(postgres, OwnBase)
    async with postgres.session() as session:
        await bulk_insert(session, Measure, [{"size": 3}])
        await session.commit()
    other = await asyncpg.connect(str(postgres.settings.url).replace("+asyncpg", ""))
    await other.execute("ALTER TABLE measure ALTER size TYPE real")
    await other.close()
    async with postgres.session() as session:
        await bulk_insert(session, Changed, [{"size": 4.5}])
        assert sorted(await session.scalars(select(Changed.size))) == [3.0, 4.5]
        await session.rollback()


# --- The same transaction, the same errors --------------------------------------------------------


class Parent(Base):
    __tablename__ = "parent"
    id: Mapped[int] = mapped_column(primary_key=True)


class Child(Base):
    __tablename__ = "child"
    __table_args__ = (CheckConstraint("size < 100", name="small"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey(Parent.id))
    name: Mapped[str | None] = mapped_column(String(5), unique=True)
    size: Mapped[int] = mapped_column(default=0)
    moment: Mapped[datetime | None] = mapped_column(UTCDateTime)


@pytest.fixture
async def session(postgres: Database) -> AsyncIterator[Session]:
    await tables(postgres, Base, 'DROP SCHEMA IF EXISTS "Other" CASCADE', 'CREATE SCHEMA "Other"')
    async with postgres.session() as session:
        yield session
        await session.rollback()


async def test_pending_objects_are_flushed_before(session: Session):
    session.add(Parent(id=5))
    with watch_queries() as queries:
        await bulk_insert(session, Child, [{"parent_id": 5}])
    assert copies(queries) == 1
    assert await session.scalar(select(Child.parent_id)) == 5


async def test_autoflush_may_be_off(session: Session):
    session.add(Parent(id=5))
    with session.no_autoflush, pytest.raises(IntegrityError, match="foreign key"):
        await bulk_insert(session, Child, [{"parent_id": 5}])


async def test_it_is_in_the_sessions_transaction(session: Session, postgres: Database):
    await bulk_insert(session, Child, [{"name": "a"}])
    assert session.sync_session.unsaved.count == 1, "leaving now would warn"
    async with postgres.session() as other:
        assert await other.scalar(select(func.count()).select_from(Child)) == 0
    async with session.begin_nested() as savepoint:
        await bulk_insert(session, Child, [{"name": "b"}])
        await savepoint.rollback()
    assert list(await session.scalars(select(Child.name))) == ["a"]
    await session.commit()
    async with postgres.session() as other:
        assert list(await other.scalars(select(Child.name))) == ["a"]


async def test_any_async_session_will_do(postgres: Database, session: Session):
    async with AsyncSession(postgres.engine) as stock:
        stock.add(Parent(id=5))
        with watch_queries() as queries:
            assert await bulk_insert(stock, Child, [{"parent_id": 5}]) == 1
        assert copies(queries) == 1
        await stock.commit()
    assert await session.scalar(select(func.count()).select_from(Child)) == 1


@pytest.mark.parametrize(
    ("bad", "says", "column"),
    [
        ({"name": "n7"}, "UniqueViolation", ", column 'name'"),
        ({"name": "secret"}, "too long", ", column 'name'"),
        ({"size": 100}, "CheckViolation", ""),
        ({"size": 2**40}, "a value cannot be sent", ""),
        ({"size": "secret"}, "a value cannot be sent", ""),
    ],
)
async def test_the_row_that_is_refused_is_named(
    session: Session, bad: dict[str, Any], says: str, column: str
):
    rows: list[dict[str, Any]] = [{"name": f"n{i}"} for i in range(30)]
    rows[17] = {"name": "x", **bad}
    await bulk_insert(session, Child, [{"name": "kept"}])
    with pytest.raises(DBAPIError, match=says) as caught:
        async with session.begin_nested():
            await bulk_insert(session, Child, rows, chunk_size=10)
    assert f"bulk_insert Child: in row 18{column})" in str(caught.value)
    assert "secret" not in str(caught.value).replace("'secret'", "")
    assert list(await session.scalars(select(Child.name))) == ["kept"]
    assert await bulk_insert(session, Child, rows[:5]) == 5


async def test_a_value_that_cannot_be_bound_fails_as_in_an_insert(session: Session):
    await bulk_insert(session, Child, [{"name": "kept"}])
    with pytest.raises(StatementError, match="must have timezone information"):
        await bulk_insert(session, Child, [{"moment": datetime(2024, 1, 1)}])
    assert list(await session.scalars(select(Child.name))) == ["kept"], "nothing was sent"


async def test_a_broken_foreign_key_names_the_rows(session: Session):
    with pytest.raises(IntegrityError, match="in rows 1 to 2"):
        await bulk_insert(session, Child, [{}, {"parent_id": 1}])


async def test_cancelled_in_the_middle(postgres: Database, session: Session):
    other = await asyncpg.connect(str(postgres.settings.url).replace("+asyncpg", ""))
    await other.execute("BEGIN; LOCK TABLE child")
    task = asyncio.ensure_future(bulk_insert(session, Child, [{"name": f"{i}"} for i in range(500)]))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await other.execute("ROLLBACK")
    await other.close()
    await session.rollback()
    assert await session.scalar(select(func.count()).select_from(Child)) == 0
    assert postgres.pool_figures().lent <= 1


async def test_the_backend_is_ended_in_the_middle(postgres: Database, session: Session):
    pid = await session.scalar(select(func.pg_backend_pid()))
    await bulk_insert(session, Child, [{"name": "a"}])
    pid = await session.scalar(text("SELECT pg_backend_pid()"))
    other = await asyncpg.connect(str(postgres.settings.url).replace("+asyncpg", ""))

    async def ending(count: int) -> AsyncIterator[dict[str, Any]]:
        for i in range(count):
            if i == 15:
                await other.execute("SELECT pg_terminate_backend($1)", pid)
                await asyncio.sleep(0.1)
            yield {"name": f"n{i}"}

    with pytest.raises(DBAPIError) as caught:
        await bulk_insert(session, Child, ending(100), chunk_size=10)
    assert caught.value.connection_invalidated
    await other.close()
    await session.rollback()
    assert await session.scalar(select(func.count()).select_from(Child)) == 0


async def test_many_rows_one_copy_a_chunk(session: Session):
    with watch_queries() as queries:
        assert await bulk_insert(session, Child, ({"name": f"{i}"} for i in range(2500))) == 2500
    assert copies(queries) == 3
    assert [query.rows for query in queries if query.sql.startswith("COPY")] == [1000, 1000, 500]
