"""`watch_queries` hears the statements of its own task, names the user's line, and finds queries in loops."""

import asyncio
import contextvars
import re
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import selectinload
from sqlmodel import Field, func, select, update

from catalysis import Database, QueryEvent, Session, load, managed, subscribe, watch_queries
from catalysis.events import CallSite, is_heard
from catalysis.tools.watch import QueryLog
from tests.models import Job, Label, Model, Person


async def test_every_statement_with_its_line(database: Database):
    async with database.session() as session:
        with watch_queries() as queries:
            session.add_all([Label(name="a"), Label(name="b")])
            await session.commit()
            labels = (await session.exec(select(Label))).all()
        assert len(labels) == 2
        await session.exec(select(Label))
    assert [q.sql.split()[0] for q in queries] == ["INSERT", "SELECT"]
    assert [q.site.function for q in queries] == ["test_every_statement_with_its_line"] * 2
    assert all(q.file == __file__ for q in queries)
    assert queries[1].line == queries[0].line + 1
    assert all(0 < q.seconds < 5 and q.error is None for q in queries)
    assert queries[0].native
    assert queries[0].reason is None
    assert len(queries[:1]) == 1


async def test_what_is_not_native_says_why(database: Database):
    async with database.session() as session:
        with watch_queries() as queries:
            await session.execute(text("SELECT 1"))
    assert not queries[0].native
    assert queries[0].reason == "not a SELECT"


async def test_a_failed_statement_is_heard(database: Database):
    async with database.session() as session:
        with watch_queries() as queries, pytest.raises(DBAPIError):
            await session.execute(text("SELECT * FROM nowhere"))
        await session.rollback()
    assert queries[0].error


async def test_a_query_in_a_loop_is_found(database: Database):
    async with database.session() as session:
        session.add_all([Person(name=f"p{i}") for i in range(5)])
        await session.commit()
        with watch_queries() as queries:
            people = (await session.exec(select(Person))).all()
            for person in people:
                await session.exec(select(Label).where(Label.name == person.name))
            await session.exec(select(Label))
            await session.exec(select(Label))
    (finding,) = queries.repeated()
    assert finding.count == 5
    assert finding.file == __file__
    assert "FROM label" in finding.sql
    assert str(finding).startswith("5 times from ")
    assert queries.repeated(at_least=6) == []


async def test_a_task_of_our_own_is_not_blamed_on_whoever_runs_the_loop(database: Database):
    async with database.session() as one, database.session() as two, database.session() as three:
        with watch_queries() as queries:
            await asyncio.gather(*[session.exec(select(Label)) for session in (one, two, three)])
            await asyncio.wait_for(one.exec(select(Label)), 5)
            await asyncio.create_task(two.exec(select(Label)))
    assert len(queries) == 5
    assert {q.file for q in queries} <= {None, __file__}, "nor on a library"
    assert [q.site for q in queries][:3] == [None] * 3
    assert queries.repeated() == []


async def test_a_watch_may_end_in_another_context(database: Database):
    def watching():
        with watch_queries() as queries:
            yield queries

    started_in, generator = contextvars.copy_context(), watching()
    queries = started_in.run(next, generator)
    assert next(generator, "ended") == "ended"
    with watch_queries():
        async with database.session() as session:
            await asyncio.create_task(session.exec(select(Label)), context=started_in)
    assert len(queries) == 0
    assert not is_heard()


async def test_each_task_hears_its_own(database: Database):
    async def ask(times: int) -> int:
        with watch_queries() as queries:
            async with database.session() as session:
                for _ in range(times):
                    await session.exec(select(Label))
                    await asyncio.sleep(0)
        return len(queries)

    with watch_queries() as everything:
        assert await asyncio.gather(ask(2), ask(5)) == [2, 5]
    assert len(everything) == 7


async def test_subscribers_hear_the_process_until_they_leave(database: Database):
    heard: list[QueryEvent] = []
    leave, leave_too = subscribe(heard.append), subscribe(heard.append)
    async with database.session() as session:
        await session.exec(select(Label))
        leave()
        leave()
        await session.exec(select(Label))
        assert len(heard) == 2 + 1, "who left twice took nobody else along"
        leave_too()
        await session.exec(select(Label))
    assert len(heard) == 3


async def test_nobody_watching_costs_nothing(database: Database):
    async with database.session() as session:
        await session.exec(select(Label))
        with watch_queries() as queries:
            pass
        assert not is_heard(), "what tells of statements is not even asked to"
        await session.exec(select(Label))
        assert len(queries) == 0


def test_a_log_is_bounded():
    log = QueryLog(limit=2)
    for number in range(5):
        log.hear(QueryEvent(str(number), 0.1, None, False, None, None, CallSite("f", 1, "g")))
    assert [q.sql for q in log] == ["0", "1"]
    assert log.dropped == 3


async def test_no_parameter_is_in_an_event(database: Database):
    with watch_queries() as queries:
        async with database.session() as session:
            await session.exec(select(Label).where(Label.name == "hunter2"))
    assert "hunter2" not in repr(list(queries))


async def test_asserting_statements_shows_them(database: Database):
    async with database.session() as session:
        with watch_queries() as queries:
            await session.exec(select(Label))
            await session.execute(text("SELECT 1"))
    queries.assert_statements(2)
    with pytest.raises(
        AssertionError, match=r"(?s)2 statements.* 1 are expected.*\[native\].*FROM label.*not a SELECT"
    ):
        queries.assert_statements(1)


async def test_a_lookup_in_a_loop_is_told_its_replacement(database: Database):
    async with database.session() as session:
        with watch_queries() as queries:
            for name in "abc":
                await session.exec(select(Label).where(Label.name == name))
            for _ in range(4):
                await session.execute(text("SELECT count(*) FROM label WHERE name <> ''"))
    counted, looked_up = queries.repeated()
    assert "select(Label).where(Label.name.in_(values))" in looked_up.replacement
    assert looked_up.entity == "Label"
    assert "load(objects, count(" in counted.replacement
    assert "4 times from" in str(counted)


async def test_the_line_of_what_waits_in_a_greenlet_or_task_of_its_own(database: Database):
    def line(of: Any, number: int) -> str:
        return f"{__file__}:{of.__code__.co_firstlineno + number}"

    async def touching(session: Session) -> None:
        job = (await session.exec(select(Job))).first()
        assert [
            job.person.name,
            [each.title for each in job.person.jobs],
        ]
        session.add(Label(name="new"))
        assert job.person.teams == []

    def working(session: Any) -> None:
        session.add(Label(name="new"))
        session.flush()
        session.scalars(select(Person)).all()

    async with database.session() as session:
        session.add(Person(name="p", jobs=[Job(title="a"), Job(title="b")]))
        await session.commit()
        session.expunge_all()
        with watch_queries() as queries:
            await managed(touching(session))
        assert [str(q.site) for q in queries] == [line(touching, n) for n in (1, 3, 4, 7, 7)]
        await session.rollback()
        with watch_queries() as queries:
            await session.run_sync(working)
        assert [str(q.site) for q in queries] == [line(working, n) for n in (2, 3)]
        await session.rollback()
        session.expunge_all()
        both = [selectinload(Person.jobs), selectinload(Person.teams)]
        with watch_queries() as queries:
            people = (await session.exec(select(Person).options(*both))).all()
            session.expire_all()
            await load(people, Person.jobs, Person.teams)
        first, second = queries[0].line, queries[-1].line
        assert second == first + 2
        assert [q.line for q in queries] == [first] * 3 + [second] * 2
        await session.rollback()


class Renamed(Model, table=True):
    label: str = Field(sa_column_kwargs={"name": "label_text"})


async def test_what_is_to_be_written_instead_works_when_pasted(database: Database):
    def looked_up(number: int) -> dict[str, Any]:
        id_, text_ = UUID(int=number), str(number)
        jobs = select(Job).where(Job.person_id == id_)
        return {
            "select(Person).where(Person.id.in_(values))": select(Person).where(Person.id == id_),
            "select(Job).where(Job.person_id.in_(values))": jobs,
            "load(objects, top(": jobs.order_by(Job.title).limit(2),
            "select(Renamed).where(Renamed.label.in_(values))": select(Renamed).where(Renamed.label == text_),
            "select(Job.person_id, func.count()).where(Job.person_id.in_(values)).group_by(Job.person_id)": select(
                func.count()
            )
            .select_from(Job)
            .where(Job.person_id == id_),
            "select(Renamed.id, func.max(Renamed.label)).where(Renamed.id.in_(values)).group_by(Renamed.id)": (
                select(func.max(Renamed.label)).where(Renamed.id == id_)
            ),
            "for counts, sums": select(func.sum(func.length(Job.title))).where(Job.person_id == id_),
            "one statement with IN (…)": select(Label.__table__).where(Label.__table__.c.name == text_),
        }

    async with database.session() as session:
        for wanted in looked_up(0):
            with watch_queries() as queries:
                for number in range(3):
                    await session.execute(looked_up(number)[wanted])
            (found,) = queries.repeated()
            assert wanted in found.replacement
            for pasted in re.findall(r"`(select\(.*?)`", found.replacement):
                await session.execute(eval(pasted, globals() | {"values": []}))
        with watch_queries() as queries:
            for number in range(3):
                session.add(Label(name=str(number)))
                await session.flush()
            for number in range(3):
                await session.execute(update(Label).where(Label.name == str(number)).values(name="x"))
                await session.rollback()
        assert {"bulk_insert(session, Label, rows)" in each.replacement for each in queries.repeated()} == {
            True,
            False,
        }
        assert any("one UPDATE with in_(…)" in each.replacement for each in queries.repeated())
        await session.rollback()
