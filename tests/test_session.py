"""`Session` is SQLModel's `AsyncSession` and removes its traps."""

import inspect
import pickle
import re
import warnings

import pytest
from pydantic import ValidationError
from sqlalchemy import insert, text, update
from sqlalchemy.exc import IntegrityError, InvalidRequestError, MissingGreenlet
from sqlalchemy.ext.asyncio import AsyncConnection, async_sessionmaker, create_async_engine
from sqlalchemy.ext.asyncio import AsyncSession as SQLAlchemyAsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, defer, joinedload, mapped_column, raiseload
from sqlalchemy.orm import Session as SQLAlchemySyncSession
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

import catalysis
from catalysis import (
    AttributeNotLoaded,
    Database,
    RelationshipNotLoaded,
    Session,
    UncommittedChanges,
    watch_queries,
)
from tests.models import Job, Label, Person


@pytest.fixture
async def ada(database: Database) -> Database:
    async with database.session() as session:
        session.add(Person(name="ada", jobs=[Job(title=f"job {i}") for i in range(3)]))
        await session.commit()
    return database


def test_it_is_sqlmodels_session_with_its_constructor():
    assert issubclass(Session, AsyncSession)
    stock = inspect.signature(SQLAlchemyAsyncSession.__init__)
    assert inspect.signature(AsyncSession.__init__) == stock, "SQLModel adds nothing; else look at ours again"
    engine = create_async_engine("sqlite+aiosqlite://")
    session = Session(engine, expire_on_commit=False, autoflush=False)
    assert session.bind is engine
    assert session.autoflush is False
    assert Session(engine).sync_session.expire_on_commit is True, "SQLAlchemy's default, in the drop-in form"
    made = async_sessionmaker(engine, class_=Session, expire_on_commit=False)()
    assert isinstance(made, Session)
    assert made.sync_session.expire_on_commit is False
    assert Database("sqlite://").settings.url.startswith("sqlite+aiosqlite")


async def test_sessions_of_a_database_expire_nothing(ada: Database):
    async with ada.session() as session:
        person = (await session.exec(select(Person))).one()
        person.name = "lovelace"
        await session.commit()
        assert person.name == "lovelace"


async def test_execute_is_as_welcome_as_exec(ada: Database):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with ada.session() as session:
            assert (await session.execute(select(Person))).scalar_one().name == "ada"
            assert (await session.exec(select(Person))).one().name == "ada"
            assert (await session.scalars(select(Person))).one().name == "ada"
            assert await session.scalar(select(Person.name)) == "ada"


async def test_joined_collections_need_no_unique(ada: Database):
    joined = select(Person).options(joinedload(Person.jobs))
    async with ada.session() as session:
        assert len((await session.exec(joined)).all()) == 1
        assert len((await session.exec(joined)).unique().all()) == 1
        assert len((await session.execute(joined)).all()) == 1
        assert len((await session.execute(joined)).scalars().all()) == 1
        assert len((await session.scalars(joined)).all()) == 1
        assert (await session.execute(joined)).scalar_one().name == "ada"
        assert len((await session.exec(joined)).one().jobs) == 3
    async with SQLAlchemyAsyncSession(ada.engine) as stock:
        with pytest.raises(InvalidRequestError, match="unique"):
            (await stock.scalars(joined)).all()


async def test_rows_of_columns_keep_their_duplicates(ada: Database):
    async with ada.session() as session:
        assert (await session.exec(select(Person.name).join(Job))).all() == ["ada"] * 3
        assert len((await session.exec(select(Person).join(Job))).all()) == 3, "as in SQLAlchemy"


async def test_an_unloaded_relationship_names_itself_and_the_mend(ada: Database):
    async with ada.session() as session:
        person = (await session.exec(select(Person))).one()
        with pytest.raises(
            RelationshipNotLoaded, match=r"Person\.jobs .* \.options\(selectinload\(Person\.jobs\)\)"
        ):
            _ = person.jobs
        job = (await session.exec(select(Job))).first()
        session.expunge(person)
        with pytest.raises(RelationshipNotLoaded, match=r"joinedload\(Job\.person\)") as caught:
            _ = job.person
        assert isinstance(caught.value, MissingGreenlet), "existing handlers still match"
        session.add(Label(name="pending"))
        with pytest.raises(RelationshipNotLoaded):
            _ = job.person  # and not a half-done autoflush
        await session.rollback()


async def test_an_expired_or_deferred_column_names_itself(ada: Database):
    async with ada.session() as session:
        person = (await session.exec(select(Person).options(defer(Person.name)))).one()
        with pytest.raises(
            AttributeNotLoaded, match=r"Person\.name .* session\.refresh\(person, \['name'\]\)"
        ):
            _ = person.name
        session.expire(person)
        with pytest.raises(AttributeNotLoaded, match=r"Person\."):
            _ = person.name
        await session.refresh(person, ["name"])
        assert person.name == "ada"


async def test_raiseload_stays_sqlalchemys(ada: Database):
    async with ada.session() as session:
        person = (await session.exec(select(Person).options(raiseload("*")))).one()
        with pytest.raises(InvalidRequestError, match="raise"):
            _ = person.jobs


async def test_run_sync_may_load_lazily(ada: Database):
    async with ada.session() as session:
        person = (await session.exec(select(Person))).one()
        assert len(await session.run_sync(lambda _: person.jobs)) == 3
        assert len(await person.awaitable_attrs.jobs) == 3 if hasattr(person, "awaitable_attrs") else True


class JobDTO(catalysis.DTO):
    title: str


class PersonDTO(catalysis.DTO):
    name: str
    jobs: list[JobDTO]


class JobWithPersonDTO(catalysis.DTO):
    title: str
    person: PersonDTO


async def test_a_dto_never_loads_and_says_which_relationship(ada: Database):
    async with ada.session() as session:
        person = (await session.exec(select(Person))).one()
        with (
            watch_queries() as queries,
            pytest.raises(RelationshipNotLoaded, match=r"Person\.jobs .*PersonDTO"),
        ):
            PersonDTO.model_validate(person)
        nested = (await session.exec(select(Job).options(joinedload(Job.person)))).first()
        with pytest.raises(RelationshipNotLoaded, match=r"Person\.jobs"):
            JobWithPersonDTO.model_validate(nested)
        assert len(queries) == 0
        loaded = (await session.exec(select(Person).options(joinedload(Person.jobs)))).one()
        assert len(PersonDTO.model_validate(loaded).jobs) == 3
    async with ada.session() as session:
        detached = (await session.exec(select(Job))).first()
    with pytest.raises(RelationshipNotLoaded, match=r"Job\.person"):
        JobWithPersonDTO.model_validate(detached)


def test_a_dto_refuses_unknown_keys():
    with pytest.raises(ValidationError, match="is_admin"):
        JobDTO.model_validate({"title": "x", "is_admin": True})
    with pytest.raises(ValidationError, match="is_admin"):
        JobDTO(title="x", is_admin=True)
    assert JobDTO.model_validate(Job(title="x")).title == "x", "an instance that was never saved"


# --- UncommittedChanges ---------------------------------------------------------------------------


async def leaving(database: Database, work) -> None:
    async with database.session() as session:
        await work(session)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("INSERT INTO label (id, name) VALUES ('0', 'x')", "INSERT by textual SQL"),
        ("  -- a comment\n  update label set name = 'y'", "UPDATE by textual SQL"),
        ("WITH one AS (SELECT 1) DELETE FROM label", "DELETE by textual SQL"),
    ],
)
async def test_textual_writes_are_reported(tmp_path, sql, said):
    from tests.models import made

    async with made(f"sqlite:///{tmp_path / 't.db'}") as database:
        async with database.session() as session:
            session.add(Label(name="there"))
            await session.commit()
        with pytest.warns(UncommittedChanges, match=said):
            await leaving(database, lambda session: session.execute(text(sql)))


async def test_what_was_left_and_where_is_said(database: Database):
    async def pending(session):
        session.add(Person(name="x"))

    async def flushed(session):
        session.add_all([Person(name=f"p{i}") for i in range(7)])
        await session.flush()

    async def changed(session):
        person = (await session.exec(select(Person))).one()
        person.name = "changed"

    with pytest.warns(
        UncommittedChanges, match=r"test_session\.py:\d+ was left .*Person .*\(new\)"
    ) as caught:
        await leaving(database, pending)
    assert caught[0].filename == __file__
    with pytest.warns(UncommittedChanges, match=r"and 2 more"):
        await leaving(database, flushed)
    async with database.session() as session:
        session.add(Person(name="kept"))
        await session.commit()
    with pytest.warns(UncommittedChanges, match=r"Person .* \(changed\)"):
        await leaving(database, changed)
    async with database.session() as session:
        assert (await session.exec(select(Person.name))).all() == ["kept"]


async def test_what_is_no_loss_is_not_reported(database: Database):
    async def committed(session):
        session.add(Person(name="kept"))
        await session.commit()

    async def rolled_back(session):
        session.add(Person(name="x"))
        await session.flush()
        await session.rollback()

    async def read_only(session):
        person = (await session.exec(select(Person))).one()
        person.name = person.name

    async def savepoint_given_up(session):
        async with session.begin_nested() as savepoint:
            session.add(Person(name="x"))
            await session.flush()
            await savepoint.rollback()

    async def failed(session):
        session.add(Person(name="x"))
        await session.flush()
        raise LookupError

    for work in (committed, rolled_back, read_only, savepoint_given_up):
        await leaving(database, work)  # the warning is an error in this suite
    with pytest.raises(LookupError):
        await leaving(database, failed)
    async with database.session() as session, session.begin():
        session.add(Person(name="by begin"))
    async with database.session() as session:
        assert len((await session.exec(select(Person))).all()) == 2


async def sent_and_unsent(connection: AsyncConnection) -> None:
    async with Session(connection) as session:
        session.add(Person(name="sent too"))
        await session.flush()
        session.add(Person(name="unsent"))


async def test_in_somebody_elses_transaction_only_the_unsent_is_lost(database: Database):
    async with database.engine.begin() as connection:
        async with Session(connection) as session:
            session.add(Person(name="sent"))
            await session.flush()
        with pytest.warns(UncommittedChanges, match=r"lost: Person [^,]* \(new\)\."):
            await sent_and_unsent(connection)
    async with database.session() as session:
        assert sorted((await session.exec(select(Person.name))).all()) == ["sent", "sent too"]


async def test_a_flushed_change_and_a_flushed_delete_are_reported(database: Database):
    async with database.session() as session:
        session.add_all([Person(name="a"), Label(name="b")])
        await session.commit()

    async def change_and_delete(session):
        (await session.exec(select(Person))).one().name = "changed"
        await session.delete((await session.exec(select(Label))).one())
        await session.flush()

    with pytest.warns(UncommittedChanges, match=r"Person .* \(changed\), Label .* \(deleted\)"):
        await leaving(database, change_and_delete)


async def test_streams_of_joined_collections_need_no_unique_either(ada: Database):
    async with ada.session() as session:
        streamed = await session.stream_scalars(select(Person).options(joinedload(Person.jobs)))
        assert [person.name async for person in streamed] == ["ada"]


async def test_a_savepoint_kept_is_reported(database: Database):
    async def nested(session):
        async with session.begin_nested():
            session.add(Person(name="x"))

    with pytest.warns(UncommittedChanges, match="Person"):
        await leaving(database, nested)


async def test_what_came_to_nothing_is_not_reported(database: Database):
    async def refused_and_caught(session):
        session.add(Label(name="a"))
        await session.commit()
        with pytest.raises(IntegrityError):
            await session.execute(insert(Label).values(name="a"))

    async def of_no_row(session):
        await session.exec(update(Label).where(Label.name == "nobody").values(name="x"))

    await leaving(database, refused_and_caught)
    await leaving(database, of_no_row)


async def test_a_session_that_was_left_by_an_error_reports_again(database: Database):
    session = database.session()
    with pytest.raises(LookupError):
        async with session:
            raise LookupError
    session.add(Person(name="x"))
    with pytest.warns(UncommittedChanges, match="Person"):
        await session.close()


async def test_describing_loads_nothing_and_shows_no_secret(backend_url: str):
    class Base(DeclarativeBase):
        pass

    class Token(Base):
        __tablename__ = "token"
        token: Mapped[str] = mapped_column(primary_key=True)
        number: Mapped[int]

    database = Database(backend_url)
    await database.create_all(Base.metadata)

    async def expire_and_change() -> None:
        async with Session(database.engine) as session:
            session.add(Token(token="hunter2", number=1))
            await session.commit()
            token = (await session.scalars(select(Token))).one()
            await session.commit()  # expires it
            token.number = 2

    with pytest.warns(UncommittedChanges, match=r"lost: Token \(changed\)") as caught:
        await expire_and_change()
    assert "hunter2" not in str(caught[0].message)
    await database.close()


@pytest.mark.parametrize("mode", ["create_savepoint", "control_fully"])
async def test_joining_a_transaction_by_other_modes_keeps_nothing(database: Database, mode):
    async def flush_only(connection: AsyncConnection) -> None:
        async with Session(connection, join_transaction_mode=mode) as session:
            session.add(Person(name="lost"))
            await session.flush()

    async with database.engine.connect() as connection, connection.begin():
        with pytest.warns(UncommittedChanges, match="Person"):
            await flush_only(connection)


async def test_a_session_class_of_ones_own_keeps_all_features(ada: Database):
    class Mine(SQLAlchemySyncSession):
        routed = 0

        def get_bind(self, *args, **kwargs):
            self.routed += 1
            return super().get_bind(*args, **kwargs)

    class Derived(Session):
        sync_session_class = Mine

    for session in (Session(ada.engine, sync_session_class=Mine), Derived(ada.engine)):
        async with session:
            person = (await session.exec(select(Person))).one()
            await session.delete(person)
            assert (await session.exec(select(Person))).all() == []
            assert session.sync_session.routed > 0
            assert isinstance(session.sync_session, Mine)
            await session.rollback()


async def test_instances_and_frozen_results_can_be_pickled(ada: Database):
    async with ada.session() as session:
        job = (await session.exec(select(Job))).first()
        assert pickle.loads(pickle.dumps(job)).title == job.title
        frozen = (await session.execute(select(Person))).freeze()
        assert pickle.loads(pickle.dumps(frozen.data))


def test_no_way_to_write_is_overlooked():
    """A method that a new SQLAlchemy adds must be looked at for soft delete and unsaved work."""
    known = {
        *("add", "add_all", "bulk_insert_mappings", "bulk_save_objects", "bulk_update_mappings"),
        *("delete", "delete_all", "flush", "merge", "merge_all", "commit"),
    }
    writing = re.compile(r"add|bulk|delete(?!d)|flush|merge|commit|insert|update|upsert")
    assert {name for name in dir(SQLAlchemySyncSession) if writing.match(name)} == known


@pytest.mark.parametrize("name", ["strict_loading", "distribution_check"])
def test_choices_that_there_are_not(name: str):
    with pytest.raises(ValueError, match=f"{name}='stop': say one of 'allow', 'warn', 'raise'"):
        Session(**{name: "stop"})
