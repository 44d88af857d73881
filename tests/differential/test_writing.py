"""Whatever a program writes through stock `AsyncSession` it writes through `Session`, and fails alike on the way."""

import asyncio
import gc
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import dependency, identity, unitofwork
from sqlalchemy.orm import session as sessions
from sqlalchemy.util import OrderedSet, topological

from catalysis import Session
from catalysis.engine.alchemy import flushing, settling
from tests.conftest import fresh_postgres_url
from tests.differential.programs import Step
from tests.differential.running import OnPostgres, OnSqlite, Subject, check, compare, one_by_one
from tests.differential.writing_models import Base, counted, rows
from tests.differential.writing_programs import Writer, programs


class InOrder(OrderedSet[Any]):
    """States as they were added, the rest as they came: what `keep_order` keeps, without the chance in it."""

    def __iter__(self) -> Iterator[Any]:
        return iter(sorted(super().__iter__(), key=lambda state: state.insert_order or 0))


generate_actions: Any = unitofwork.UOWTransaction._generate_actions


def actions_in_order(flush: Any) -> list[Any]:
    found = generate_actions(flush)
    return [each for each in flush.postsort_actions.values() if each in found]


@contextmanager
def determined() -> Iterator[None]:
    """One order of flushing, and instances that go when they do on the other side.

    SQLAlchemy walks sets of what it flushes; its own tests replace those too (`--reversetop`).  Which statement
    of a flush fails first, and what has been written until then, is chance otherwise.
    """
    with ExitStack() as replaced:
        for module in (sessions, unitofwork, identity, dependency, topological, flushing, settling):
            replaced.enter_context(mock.patch.object(module, "set", OrderedSet, create=True))
        replaced.enter_context(
            mock.patch.object(unitofwork.UOWTransaction, "_generate_actions", actions_in_order)
        )
        replaced.enter_context(mock.patch("catalysis.engine.alchemy.sessions._InInsertOrder", InOrder))
        replaced.enter_context(counted())
        gc.disable()
        try:
            yield
        finally:
            gc.enable()


def set_up(engine: Any) -> None:
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def connected(connection: Any, record: Any) -> None:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA synchronous = OFF")


WRITING = Subject(Base, rows, Writer, determined, set_up)
run_on_sqlite = OnSqlite(WRITING, "writing")

FOUND: list[list[Step]] = [
    # A key that reads back otherwise than it was given: the row is the refreshed instance's all the same.
    [("about", 0, 15), ("find_all", 1), ("set", 2, 4, 10), ("refresh_all", 0)],
    # A commit of one row, which a listener or a value that comes back refuses after it was sent.
    [("about", 0, -1), ("make", 0, 0, 4, 0), ("listen", 1, 7), ("commit",), ("rollback",)],
    [("about", 1, -1), ("find_all", 3), ("set", 0, 1, 5), ("commit",), ("rollback",)],
    # An expression whose comparison has no truth, in a session that is left.
    [("about", 5, -1), ("find_all", 6), ("set_all", 0, 4, 7)],
    # The order in which a rollback tells of what a flush made persistent: as it was added, and not as a set has it.
    [("about", 6, -1), ("make_many", 7, 80, 13, 2), ("flush",), ("listen", 6, 7), ("rollback",)],
    # A refresh that has expired and flushed before it is left to SQLAlchemy: what the flush loaded stays loaded.
    [
        ("about", 16, -1),
        ("make", 6, 15, 10, 2),
        ("find", 8, 0),
        ("forget", 1),
        ("relate", 7, 2, 0, 2),
        ("refresh_all", 6),
    ],
]
"""Programs on which the two once differed."""


@pytest.mark.parametrize("number", range(len(FOUND)))
@pytest.mark.parametrize("expire", [True, False])
def test_differences_that_were_found(number: int, expire: bool):
    stock = run_on_sqlite("stock", AsyncSession, FOUND[number], expire)
    compare(FOUND[number], stock, run_on_sqlite("ours", one_by_one, FOUND[number], expire))


quick = settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],  # shrinking would take hours
)
long = settings(
    quick,
    derandomize=False,
    max_examples=int(os.environ.get("CATALYSIS_PROGRAMS", "5000")),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


@quick
@given(programs, st.booleans())
def test_programs_on_sqlite(program: list[Step], expire: bool):
    check(run_on_sqlite, program, expire)


@pytest.mark.long
@long
@given(programs, st.booleans())
def test_many_programs_on_sqlite(program: list[Step], expire: bool):
    check(run_on_sqlite, program, expire)


@pytest.mark.long
def test_many_programs_on_postgres():
    run = OnPostgres(WRITING, asyncio.run(fresh_postgres_url()))

    @long
    @given(programs, st.booleans())
    def programs_on_postgres(program: list[Step], expire: bool):
        check(run, program, expire)

    programs_on_postgres()


def test_a_difference_is_seen():
    """A session that sends nothing at a flush is found out, and one that is late with what the database made."""

    class Mute(Session):
        async def flush(self, objects: Any = None) -> None:
            pass

    program: list[Step] = [("about", 0, -1), ("make", 0, 0, 4, 0), ("flush",), ("rollback",)]
    stock = run_on_sqlite("stock", AsyncSession, program, False)
    assert run_on_sqlite("ours", one_by_one, program, False) == stock
    assert run_on_sqlite("ours", Mute, program, False) != stock
