"""Tripwires: SQLAlchemy's private names mean what `engine/alchemy/` takes them for."""

import inspect
import re
from pathlib import Path

import sqlalchemy
from sqlalchemy.orm import Session as SQLAlchemySession
from sqlalchemy.orm import joinedload, selectinload
from sqlmodel import select

import catalysis
from catalysis import Database
from catalysis.engine.alchemy.sessions import HookedSession
from tests.models import Job, Person

PRIVATE = re.compile(r"(?<!self)(?<!cls)\.(_(?!_)(?!sa_registry)\w+)")


def test_the_version_is_the_one_looked_at():
    assert sqlalchemy.__version__.startswith("2.1."), "read engine/alchemy/ against the new version first"


def test_overridden_methods_exist():
    for name in ("_execute_internal", "_identity_lookup"):
        assert name in vars(HookedSession)
        assert inspect.isfunction(getattr(SQLAlchemySession, name))


def test_every_execution_passes_the_hook():
    """`execute`, `scalars` and `scalar` all call `_execute_internal`, or uniquing would depend on the door."""
    for name in ("execute", "scalar", "scalars"):
        assert "_execute_internal" in inspect.getsource(getattr(SQLAlchemySession, name))


async def test_requires_uniquing_is_told_by_the_result(database: Database):
    async with database.session() as session:
        joined = await session.run_sync(
            lambda sync: SQLAlchemySession.execute(sync, select(Person).options(joinedload(Person.jobs)))
        )
        assert joined.context.requires_uniquing is True
        plain = await session.run_sync(
            lambda sync: SQLAlchemySession.execute(sync, select(Person).options(selectinload(Person.jobs)))
        )
        assert plain.context.requires_uniquing is False


def test_options_of_a_statement_are_where_we_look():
    option = joinedload(Job.person)
    assert option in select(Job).options(option)._with_options


def test_private_names_are_touched_in_one_package_alone():
    root = Path(catalysis.__file__).parent
    for path in root.rglob("*.py"):
        if "alchemy" not in path.parts and "starter" not in path.parts:
            found = [m[1] for m in PRIVATE.finditer(path.read_text()) if m[1] not in OWN]
            assert not found, f"{path.relative_to(root)} touches {found}"


OWN = {"_autogen", "_repr_type", "_conn", "_tx"}
"""Private names of others: Alembic's, for comparing indexes and rendering types; aiosqlite's, for its thread."""
