"""A deleted row is seen by nothing, unless asked for."""

import warnings
from datetime import datetime

import pytest
from sqlalchemy import UniqueConstraint, bindparam, case, delete, exists, inspect, lambda_stmt, update
from sqlalchemy import select as sqlalchemy_select
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    aliased,
    joinedload,
    load_only,
    mapped_column,
    registry,
    selectinload,
    subqueryload,
    with_loader_criteria,
)
from sqlalchemy.orm import Session as SQLAlchemySession
from sqlmodel import SQLModel, func, select

from catalysis import (
    Database,
    ModelError,
    Session,
    SoftDelete,
    UncommittedChanges,
    UnsupportedStatement,
    hard_delete,
    include_deleted,
    watch_queries,
)
from tests.models import Job, Label, Person, Team


@pytest.fixture
async def world(database: Database) -> Database:
    """Two people, one deleted; each in the same two teams, one deleted; each with a live and a deleted job."""
    async with database.session() as session:
        live, gone = Team(name="live team"), Team(name="gone team")
        for name in ("ada", "gone"):
            person = Person(name=name, teams=[live, gone])
            person.jobs = [Job(title="live"), Job(title="gone")]
            session.add(person)
        await session.commit()
        for model, column in ((Team, Team.name), (Person, Person.name), (Job, Job.title)):
            await session.exec(delete(model).where(column.like("gone%")))
        await session.commit()
    return database


async def ada(session: Session, *options) -> Person:
    return (await session.exec(select(Person).where(Person.name == "ada").options(*options))).one()


async def test_select_join_and_aliases(world: Database):
    async with world.session() as session:
        assert [p.name for p in (await session.exec(select(Person))).all()] == ["ada"]
        assert (await session.exec(select(Person.name))).all() == ["ada"]
        joined = select(Person.name, Job.title).join(Job)
        assert (await session.exec(joined)).all() == [("ada", "live")]
        outer = select(Person.name, Team.name).outerjoin(Person.teams)
        assert (await session.exec(outer)).all() == [("ada", "live team")]
        other = aliased(Person)
        assert (await session.exec(select(other.name))).all() == ["ada"]
        assert (await session.execute(select(Person).union(select(Person)))).all().__len__() == 1


async def test_any_has_exists_subqueries_and_ctes(world: Database):
    async with world.session() as session:
        assert (
            await session.exec(select(Person).where(Person.teams.any(Team.name == "gone team")))
        ).all() == []
        assert len((await session.exec(select(Person).where(Person.teams.any()))).all()) == 1
        assert len((await session.exec(select(Job).where(Job.person.has(Person.name == "gone")))).all()) == 0
        assert not (await session.exec(select(exists().where(Person.name == "gone")))).one()
        inside = select(Job).where(Job.person_id.in_(select(Person.id)))
        assert [j.title for j in (await session.exec(inside)).all()] == ["live"]
        cte = select(Person.id).cte()
        assert (await session.exec(select(func.count()).select_from(cte))).one() == 1


async def test_counts(world: Database):
    async with world.session() as session:
        assert (await session.exec(select(func.count(Person.id)))).one() == 1
        assert (await session.exec(select(func.count()).select_from(Job))).one() == 2
        assert (await session.exec(select(func.count()).select_from(select(Person).subquery()))).one() == 1


@pytest.mark.parametrize("eager", [joinedload, selectinload, subqueryload])
async def test_eager_loads(world: Database, eager):
    async with world.session() as session:
        person = await ada(session, eager(Person.teams), eager(Person.jobs))
        assert [t.name for t in person.teams] == ["live team"]
        assert [j.title for j in person.jobs] == ["live"]
        person = await ada(session, include_deleted(), eager(Person.teams).options(), eager(Person.jobs))
    async with world.session() as session:
        person = await ada(session, include_deleted(), eager(Person.teams), eager(Person.jobs))
        assert {t.name for t in person.teams} == {"live team", "gone team"}
        assert {j.title for j in person.jobs} == {"live", "gone"}


async def test_lazy_loads(world: Database):
    async with world.session() as session:
        person = await ada(session)
        with watch_queries() as queries:
            assert [t.name for t in await session.run_sync(lambda _: person.teams)] == ["live team"]
        assert queries[0].sql.count("deleted_at IS NULL") == 1
        await session.refresh(person, ["jobs"])
        assert [j.title for j in person.jobs] == ["live"]
    async with world.session() as session:
        person = await ada(session, include_deleted())
        assert len(await session.run_sync(lambda _: person.jobs)) == 2


async def test_lazy_load_after_a_flush_is_filtered_too(world: Database):
    """An object that came from no query carries no option; its relationships are filtered all the same."""
    async with world.session() as session:
        new = Person(name="new")
        new.jobs = [Job(title="one"), Job(title="two")]
        session.add(new)
        await session.commit()
        await session.exec(delete(Job).where(Job.title == "one", Job.person_id == new.id))
        session.expire(new, ["jobs"])
        jobs = await session.run_sync(lambda _: new.jobs)
        assert [j.title for j in jobs] == ["two"]
        await session.rollback()


async def test_get(world: Database):
    async with world.session() as session:
        gone = (
            await session.exec(select(Person).where(Person.name == "gone").options(include_deleted()))
        ).one()
        assert await session.get(Person, gone.id) is None, "found in the identity map"
        assert await session.get(Person, gone.id, options=[include_deleted()]) is gone
        await session.refresh(gone)
        assert gone.deleted_at is not None
        key = gone.id
    async with world.session() as session:
        assert await session.get(Person, key) is None
        with pytest.raises(InvalidRequestError):
            await session.get_one(Person, key)


async def test_a_many_to_one_to_a_deleted_row_is_none(world: Database):
    async with world.session() as session:
        everything = select(Job).options(include_deleted())
        jobs = (await session.exec(everything.join(Person).where(Person.name == "gone"))).all()
        assert len(jobs) == 2
        key = jobs[0].id
        people = (await session.exec(select(Person).options(include_deleted()))).all()
        assert len(people) == 2, "the deleted person is in the identity map"
        session.expunge(jobs[0])
        await session.exec(
            update(Job).where(Job.id == key).values(deleted_at=None).options(include_deleted())
        )
        job = (await session.exec(select(Job).where(Job.id == key))).one()
        assert await session.run_sync(lambda _: job.person) is None
        await session.rollback()


async def test_bulk_statements_skip_deleted_rows(world: Database):
    async with world.session() as session:
        assert (await session.exec(update(Job).values(done=True))).rowcount == 2
        assert (await session.exec(update(Job).values(done=True).options(include_deleted()))).rowcount == 4
        marked = (await session.exec(select(Job).options(include_deleted()))).all()
        assert all(job.updated_at > job.created_at for job in marked), "a set-based update keeps updated_at"
        await session.rollback()


async def test_a_deleting_statement_marks(world: Database):
    async with world.session() as session:
        job = (await session.exec(select(Job).join(Person))).one()
        with watch_queries() as queries:
            titles = (await session.exec(delete(Job).where(Job.done.is_(False)).returning(Job.title))).all()
        assert titles == [("live",), ("live",)]
        assert [q.sql.split()[0] for q in queries] == ["UPDATE"]
        assert job.deleted_at is not None, "the object in the session follows"
        assert (await session.exec(select(Job))).all() == []
        assert (await session.exec(delete(Job).options(hard_delete()))).rowcount == 4
        await session.rollback()


async def test_models_that_did_not_opt_in_are_deleted(database: Database):
    async with database.session() as session:
        label = Label(name="x")
        session.add(label)
        await session.flush()
        await session.delete(label)
        await session.flush()
        session.add(Label(name="x"))
        await session.flush()
        assert (await session.exec(delete(Label))).rowcount == 1
        await session.commit()


async def test_delete_cascades_restore_and_hard_delete(database: Database):
    async with database.session() as session:
        person = Person(name="ada")
        person.jobs = [Job(title="one"), Job(title="two")]
        session.add(person)
        await session.commit()
        await session.delete(person)
        await session.commit()
        assert (await session.exec(select(func.count()).select_from(Job))).one() == 0
        assert await session.get(Person, person.id) is None

        await session.restore(person)
        await session.commit()
        assert await session.get(Person, person.id) is person
        assert (await session.exec(select(func.count()).select_from(Job))).one() == 0, (
            "said so in the docstring"
        )

        await session.delete(person, hard=True)
        await session.commit()
        everything = select(func.count()).select_from(Person).options(include_deleted())
        assert (await session.exec(everything)).one() == 0
        with pytest.raises(InvalidRequestError):
            await session.delete(Person(name="never saved"))


async def test_a_deleted_row_does_not_block_its_key(database: Database):
    async with database.session() as session:
        first = Person(name="ada", jobs=[Job(title="x")])
        session.add(first)
        await session.commit()
        await session.delete(first)
        await session.commit()
        session.add(Person(name="ada", jobs=[Job(title="x")]))
        await session.commit()
        session.add(Person(name="ada"))
        with pytest.raises(IntegrityError):
            await session.commit()
        await session.rollback()
        await session.restore(first)
        with pytest.raises(IntegrityError):
            await session.commit()
        await session.rollback()


def test_unique_constraints_become_partial_indexes():
    table = Job.__table__
    assert not [c for c in table.constraints if isinstance(c, UniqueConstraint)]
    (unique,) = [index for index in table.indexes if index.unique]
    assert unique.name == "uq_job_person_id_title"
    assert str(unique.dialect_options["postgresql"]["where"]) == "job.deleted_at IS NULL"


async def test_plain_declarative_models_opt_in_too(backend_url: str):
    class Base(DeclarativeBase):
        pass

    class Page(SoftDelete, Base):
        __tablename__ = "page"
        id: Mapped[int] = mapped_column(primary_key=True)
        slug: Mapped[str] = mapped_column(unique=True)
        deleted_at: Mapped[datetime | None]  # naive here: the mark is naive UTC then

    database = Database(backend_url)
    await database.create_all(Base.metadata)
    async with database.session() as session:
        page = Page(slug="a")
        session.add(page)
        await session.commit()
        await session.delete(page)
        session.add(Page(slug="a"))
        await session.commit()
        assert (await session.scalars(select(func.count()).select_from(Page))).one() == 1
        assert page.deleted_at is not None
    await database.close()


def test_opting_in_without_the_column_is_explained():
    class Base(DeclarativeBase):
        pass

    with pytest.raises(ModelError, match=r"Page inherits SoftDelete but has no column 'deleted_at'"):

        class Page(SoftDelete, Base):
            __tablename__ = "page"
            id: Mapped[int] = mapped_column(primary_key=True)


async def test_a_stock_session_sees_all_rows(world: Database):
    """The marks are a matter of `Session`; SQLAlchemy's own stays as it is."""
    from sqlalchemy.ext.asyncio import AsyncSession

    async with AsyncSession(world.engine) as session:
        assert len((await session.scalars(select(Person))).all()) == 2


async def test_leaving_after_a_mark_without_commit_is_reported(world: Database):
    with pytest.warns(UncommittedChanges, match="Person"):
        async with world.session() as session:
            await session.delete(await ada(session))


async def test_flush_of_the_mark_is_one_update(world: Database):
    async with world.session() as session:
        person = await ada(session, selectinload(Person.jobs))
        with watch_queries() as queries:
            await session.delete(person)
            await session.flush()
        assert [q.sql.split()[0] for q in queries] == ["UPDATE", "UPDATE"], "person and job"
        assert inspect(person).persistent
        await session.rollback()


# --- Deleting by every door marks -----------------------------------------------------------------


async def remaining(session: Session, model) -> int:
    return (await session.exec(select(func.count()).select_from(model).options(include_deleted()))).one()


async def test_delete_all_marks(world: Database):
    async with world.session() as session:
        await session.delete_all((await session.exec(select(Job))).all())
        await session.flush()
        assert (await session.exec(select(Job))).all() == []
        assert await remaining(session, Job) == 4
        await session.rollback()


async def test_a_delete_keeps_the_users_own_options_and_parameters(world: Database):
    async with world.session() as session:
        narrowed = delete(Person).options(with_loader_criteria(Person, Person.name == "nobody"))
        assert (await session.execute(narrowed)).rowcount == 0
        assert (
            await session.execute(delete(Person).where(Person.name == bindparam("name")), {"name": "ada"})
        ).rowcount
        assert await remaining(session, Person) == 2
        await session.rollback()


async def test_a_delete_returns_what_it_was_asked_for(world: Database):
    async with world.session() as session:
        deleting = delete(Job).where(Job.title == "live")
        assert len((await session.execute(deleting.returning(Job))).scalars().all()) == 2
        await session.rollback()
        labelled = deleting.returning(Job.title.label("x"), func.upper(Job.title))
        assert (await session.execute(labelled)).all() == [("live", "LIVE")] * 2
        await session.rollback()


async def test_a_delete_that_cannot_mark_is_refused(world: Database):
    async with world.session() as session:
        for statement in (
            delete(aliased(Job)),
            delete(Job).prefix_with("/* hint */"),
            delete(Job).add_cte(select(Label.id).cte()),
            lambda_stmt(lambda: delete(Job).where(Job.title == "live")),
        ):
            with pytest.raises(UnsupportedStatement, match=r"delete\(\) of Job cannot .*hard_delete"):
                await session.execute(statement)
        with pytest.raises(UnsupportedStatement):
            await session.execute(delete(Job).where(Job.title == bindparam("t")), [{"t": "a"}, {"t": "b"}])
        assert await remaining(session, Job) == 4


async def test_the_binds_arguments_reach_the_users_routing(world: Database):
    seen = []

    class Routing(SQLAlchemySession):
        def get_bind(self, mapper=None, *, shard=None, **kwargs):
            seen.append(shard)
            return super().get_bind(mapper, **kwargs)

    async with Session(world.engine, sync_session_class=Routing) as session:
        await session.execute(delete(Job), bind_arguments={"shard": 7})
        await session.rollback()
    assert set(seen) == {7}


async def test_hard_delete_reaches_marked_children(world: Database):
    async with world.session() as session:
        await session.delete(await ada(session), hard=True)
        await session.flush()
        assert await remaining(session, Job) == 2, "both jobs of ada are gone, the marked one too"
        await session.rollback()


async def test_deleting_again_keeps_the_first_mark(world: Database):
    async with world.session() as session:
        gone = (
            await session.exec(select(Person).where(Person.name == "gone").options(include_deleted()))
        ).one()
        first = gone.deleted_at
        session.expire(gone)
        await session.delete(gone)
        assert gone.deleted_at == first
        await session.rollback()


async def test_merge_meets_a_deleted_row(world: Database):
    async with world.session() as session:
        key = (
            await session.exec(select(Person.id).where(Person.name == "gone").options(include_deleted()))
        ).one()
    async with world.session() as session:
        merged = await session.merge(Person(id=key, name="again"))
        await session.commit()
        assert merged.name == "again"
        assert await session.run_sync(lambda _: merged.jobs), "and its lazy loads stay filtered"
        assert [job.title for job in merged.jobs] == ["live"]


# --- Statistics and further tables ----------------------------------------------------------------


async def test_expressions_that_hide_their_class_from_sqlalchemy_are_filtered(world: Database):
    async with world.session() as session:
        for expression, expected in (
            (func.count(Person.id).filter(Person.name != ""), [1]),
            (func.count(Person.id).over(), [1]),
            (func.row_number().over(order_by=Person.name), [1]),
            (case((Person.name == "gone", 1), else_=0), [0]),
        ):
            assert (await session.scalars(sqlalchemy_select(expression))).all() == expected, str(expression)
        both = sqlalchemy_select(func.count(Person.id).filter(Person.name != "")).options(include_deleted())
        assert await session.scalar(both) == 2


async def test_an_update_through_a_deleted_row_changes_nothing(world: Database):
    async with world.session() as session:
        session.add(Label(name="gone"))
        await session.flush()
        through = update(Label).where(Label.name == Person.name).values(name="seen")
        assert (await session.execute(through)).rowcount == 0
        await session.rollback()


async def test_get_asks_where_the_mark_was_not_loaded(world: Database):
    async with world.session() as session:
        query = select(Person).where(Person.name == "gone").options(load_only(Person.name), include_deleted())
        gone = (await session.exec(query)).one()
        assert await session.get(Person, gone.id) is None


# --- Models ---------------------------------------------------------------------------------------


def test_opting_in_below_a_class_that_did_not_is_refused():
    class Base(DeclarativeBase):
        pass

    class Vehicle(Base):
        __tablename__ = "vehicle"
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "vehicle"}
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str]
        deleted_at: Mapped[datetime | None]

    with pytest.raises(ModelError, match=r"Car inherits SoftDelete, but .*Vehicle"):

        class Car(SoftDelete, Vehicle):
            __mapper_args__ = {"polymorphic_identity": "car"}

    Base.registry.dispose()


def test_the_column_may_have_another_name_and_constraints_their_options():
    class Base(DeclarativeBase):
        pass

    class Page(SoftDelete, Base):
        __tablename__ = "page"
        __table_args__ = (
            UniqueConstraint("slug", postgresql_nulls_not_distinct=True),
            UniqueConstraint("place", deferrable=True, name="stays"),
        )
        id: Mapped[int] = mapped_column(primary_key=True)
        slug: Mapped[str | None]
        place: Mapped[int]
        deleted_at: Mapped[datetime | None] = mapped_column("removed_at")

    (index,) = Page.__table__.indexes
    assert str(index.dialect_options["postgresql"]["where"]) == "page.removed_at IS NULL"
    assert index.dialect_options["postgresql"]["nulls_not_distinct"] is True
    assert [c.name for c in Page.__table__.constraints if isinstance(c, UniqueConstraint)] == ["stays"]


def test_a_model_may_declare_the_column_itself_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        class Own(SoftDelete, SQLModel, registry=registry()):
            deleted_at: datetime | None = None
