"""Statistics by SQL functions need no tool of ours: they run through a `Session` as they are, on both databases."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import Integer, case, cast, func
from sqlmodel import select

from catalysis import Database, Session, watch_queries
from tests.models import Job, Person


@pytest.fixture
async def session(database: Database) -> AsyncIterator[Session]:
    """ada has 4 jobs, 3 of them done; bob has 2, none done; eve has none.  One more job of each is deleted."""
    async with database.session() as session:
        for name, jobs, done in (("ada", 4, 3), ("bob", 2, 0), ("eve", 0, 0)):
            person = Person(name=name)
            session.add(person)
            session.add_all([Job(title=f"job {i}", done=i < done, person=person) for i in range(jobs)])
            session.add(deleted := Job(title="deleted", done=True, person=person))
            await session.flush()
            await session.delete(deleted)
        await session.commit()
        yield session


async def test_counts_under_a_condition(session: Session):
    """The guide's `get_task_stats`."""
    ada = (await session.exec(select(Person).where(Person.name == "ada"))).one()
    with watch_queries() as queries:
        total = (await session.exec(select(func.count(Job.id)).where(Job.person_id == ada.id))).one()
        done = (await session.exec(select(func.count(Job.id)).where(Job.person_id == ada.id, Job.done))).one()
    assert (total, done, len(queries)) == (4, 3, 2)


async def test_groups(session: Session):
    """The guide's `get_tasks_by_category`: the inner join leaves out whoever has nothing."""
    statement = (
        select(Person.name, func.count(Job.id).label("jobs")).join(Job).group_by(Person.id, Person.name)
    )
    assert {row[0]: row[1] for row in await session.exec(statement)} == {"ada": 4, "bob": 2}
    outer = select(Person.name, func.count(Job.id)).outerjoin(Job).group_by(Person.name)
    assert dict((await session.exec(outer)).all()) == {"ada": 4, "bob": 2, "eve": 0}


async def test_several_figures_in_one_statement(session: Session):
    done = func.sum(case((Job.done, 1), else_=0))
    share = func.avg(cast(Job.done, Integer))
    figures = (func.count(), done, share, func.min(Job.title), func.max(Job.title))
    with watch_queries() as queries:
        count, finished, average, first, last = (await session.exec(select(*figures).select_from(Job))).one()
    assert (count, finished, float(average), first, last) == (6, 3, 0.5, "job 0", "job 3")
    assert len(queries) == 1


async def test_groups_under_a_condition(session: Session):
    statement = select(Person.name).join(Job).group_by(Person.name).having(func.count(Job.id) > 2)
    assert (await session.exec(statement)).all() == ["ada"]


async def test_nothing_has_no_sum(session: Session):
    of_nothing = select(func.count(Job.id), func.sum(cast(Job.done, Integer))).where(
        Job.title == "no such job"
    )
    assert tuple((await session.exec(of_nothing)).one()) == (0, None)


async def test_a_window_over_groups(session: Session):
    rank = func.rank().over(order_by=func.count(Job.id).desc())
    statement = select(Person.name, rank).outerjoin(Job).group_by(Person.name).order_by(rank)
    assert [tuple(row) for row in await session.exec(statement)] == [("ada", 1), ("bob", 2), ("eve", 3)]
