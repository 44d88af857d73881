"""Whatever a program does on stock `AsyncSession` it does on `Session`: same results, states, errors and rows."""

import asyncio
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncSession

from catalysis import Session
from catalysis.engine import instances
from tests.conftest import fresh_postgres_url
from tests.differential.models import Base, rows
from tests.differential.programs import Player, Step, programs
from tests.differential.running import OnPostgres, OnSqlite, Subject, check, compare, one_by_one

READING = Subject(Base, rows, Player)
run_on_sqlite = OnSqlite(READING, "reading")

FOUND: list[list[Step]] = [
    # A lazy load names its parameter, anonymously, and two loaders of one relationship name it differently.
    [
        ("stream", 36, 5, 1),
        ("delete", 6),
        ("nested", 4),
        ("merge", 3, 2),
        ("query", 56, 3, 4, 1),
        ("delete", 6),
    ],
    # A flush that loads takes the transaction's connection in the turn that it has already.
    [
        *[("query", 13, 7, 6, 5), ("query", 76, 6, 4, 6), ("expire", 5, 7), ("expire_all",), ("forget", 0)],
        *[
            ("set", 2, 0, 7),
            ("relate", 1, 2, 3),
            ("query", 7, 6, 7, 4),
            ("set", 0, 4, 9),
            ("stream", 33, 0, 5),
        ],
    ],
    # A composite is not loaded to find out whether its columns changed.
    [
        ("get", 5, 3, 1),
        ("get", 2, 0, 4),
        ("expire", 5, 7),
        ("set", 0, 0, 5),
        ("set", 5, 0, 7),
        ("merge", 4, 2),
    ],
    # What does not compile has begun a transaction all the same.
    [("get", 5, 2, 5), ("expire_all",), ("rollback",), ("refresh", 6, 9), ("get", 5, 8, 2)],
]
"""Programs on which the two once differed."""


@pytest.mark.parametrize("number", range(len(FOUND)))
@pytest.mark.parametrize("expire", [True, False])
def test_differences_that_were_found(number: int, expire: bool):
    stock = run_on_sqlite("stock", AsyncSession, FOUND[number], expire)
    compare(FOUND[number], stock, run_on_sqlite("ours", one_by_one, FOUND[number], expire))


quick = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
long = settings(
    quick,
    max_examples=int(os.environ.get("CATALYSIS_PROGRAMS", "5000")),
    phases=[
        Phase.explicit,
        Phase.reuse,
        Phase.generate,
    ],  # shrinking would take hours; the trace is short enough
)


@quick
@given(programs, st.booleans())
def test_programs_on_sqlite(program: list[Step], expire: bool):
    check(run_on_sqlite, program, expire)


@quick
@given(programs, st.booleans())
def test_programs_by_what_is_compiled(program: list[Step], expire: bool):
    """As if each result were of many rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(instances, "MANY", 0)
        check(run_on_sqlite, program, expire)


@pytest.mark.long
@long
@given(programs, st.booleans())
def test_many_programs_on_sqlite(program: list[Step], expire: bool):
    check(run_on_sqlite, program, expire)


@pytest.mark.long
def test_many_programs_on_postgres():
    run = OnPostgres(READING, asyncio.run(fresh_postgres_url()))

    @long
    @given(programs, st.booleans())
    def programs_on_postgres(program: list[Step], expire: bool):
        check(run, program, expire)

    programs_on_postgres()


def test_a_difference_is_seen():
    """The oracle is no oracle if it cannot tell: a session that forgets an attribute is found out."""

    class Forgetful(Session):
        async def execute(self, *args: Any, **options: Any) -> Any:
            result = await super().execute(*args, **options)
            for instance in self.sync_session.identity_map.values():
                self.expire(instance, ["name"])
            return result

    program = [("query", 0, 0, 0, 0)]
    stock = run_on_sqlite("stock", AsyncSession, program, False)
    assert run_on_sqlite("ours", one_by_one, program, False) == stock
    assert run_on_sqlite("ours", Forgetful, program, False) != stock
