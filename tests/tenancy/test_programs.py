"""Crossing tenants is impossible: whatever a program does as tenant a, it learns and changes nothing of the others.

It is played twice as tenant a: in a world where the others have rows, and in one where they have hardly any, and say
other things.  What it was told must be the same, counts and errors included, and the others' rows must be as before.
A rehearsal as another tenant goes before, on the same engine, so that every plan is first made for somebody else.

Seen to fail, each with one protection taken away: the session's value in a cached plan (`with_own_values`), the check
of what the criterion does not reach (`check_plan`, `check_statement`), the claim of instances (`about_to_flush` and
`about_to_save`), the tenant in the flush's WHERE (`owned_rows`, `owner_attribute`), keys looked for before an UPDATE by
keys (`update_own_rows`), the tenant of an INSERT (`filled_insert`) and of an UPDATE (`check_set`).  And with two that
stand in for each other: the criterion (`of_tenant`) and the check, which refuses everything then; options kept with a
plan (`own_options`) and those replaced on each statement (`with_criterion`).  The others are seen to fail one by one in
`test_tenancy.py`.
"""

import asyncio
import os
import shutil
import warnings
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from sqlalchemy import text

from catalysis import Database, DatabaseSettings
from catalysis.engine.alchemy.owning import LocalSetting
from catalysis.migrations import tenant_policies
from catalysis.tenancy.models import OF_ALL
from catalysis.unit_of_work import UnitOfWork
from tests.conftest import fresh_postgres_url
from tests.tenancy.models import MAKE_ROLE, ROLE, Model, fill, tenant
from tests.tenancy.programs import Player, Step, programs

FOLDER = TemporaryDirectory(prefix="catalysis-tenancy-")
OTHERS = f"'{tenant('b')}', '{tenant('c')}'"


async def others_rows(database: Database) -> Any:
    """All that belongs to the others, and all that belongs to everybody."""
    uuids = OTHERS if database.engine.dialect.name == "postgresql" else OTHERS.replace("-", "")
    queries = [
        *(f"SELECT * FROM {name} WHERE organisation_id IN ({uuids})" for name in ("task", "tag", "project")),
        f"SELECT * FROM task_tag WHERE task_id IN (SELECT id FROM task WHERE organisation_id IN ({uuids}))",
        "SELECT * FROM organisation",
        "SELECT * FROM category",
    ]
    async with database.engine.connect() as connection:
        return [
            sorted(map(repr, (await connection.execute(text(query.replace(":", "\\:")))).all()))
            for query in queries
        ]


async def play(database: Database, admin: Database, program: list[Step], **options: Any) -> list[Any]:
    """The trace of a program as tenant a, after a rehearsal as another; the others' rows stay as they are."""
    fills = "sync_session_class" not in options
    before = await others_rows(admin)
    for who in "ca":
        if not fills:
            options["sync_session_class"] = guarded_by_policies(who)
        session = database.session(**options) if not fills else database.session(tenant=tenant(who))
        async with session:
            trace = await Player(session, who, rehearses=who == "c", fills=fills).play(program)
    assert await others_rows(admin) == before, program
    return trace


def compare(program: list[Step], one: list[Any], two: list[Any], *, claims: bool = True) -> None:
    """`claims`: whether the session refuses what a program says of an instance that it made up itself."""
    for here, there in zip(one, two, strict=True):
        assert here == there, program
        assert not claims or "'of': False" not in str(here), program
        assert "b task" not in str(here), program
        assert "c task" not in str(here), program


# --- SQLite ---------------------------------------------------------------------------------------


@cache
def template(alone: bool) -> Path:
    path = Path(FOLDER.name) / f"template-{alone}.db"

    async def make() -> None:
        database = Database(f"sqlite:///{path}")
        await fill(database, alone=alone)
        await database.close()

    asyncio.run(make())
    return path


async def play_on_sqlite(program: list[Step]) -> None:
    traces: list[list[Any]] = []
    for alone in (False, True):
        path = Path(FOLDER.name) / f"{os.getpid()}.db"
        shutil.copyfile(template(alone), path)
        database = Database(f"sqlite:///{path}")
        try:
            traces.append(await play(database, database, program))
        finally:
            await database.close()
    compare(program, *traces)


def check_on_sqlite(program: list[Step]) -> None:
    template(False), template(True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rows that a DELETE did not find, and of work left uncommitted
        asyncio.run(play_on_sqlite(program))


quick = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
long = settings(
    quick,
    max_examples=int(os.environ.get("CATALYSIS_PROGRAMS", "2000")),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


@quick
@given(programs)
def test_programs_on_sqlite(program: list[Step]):
    check_on_sqlite(program)


@pytest.mark.long
@long
@given(programs)
def test_many_programs_on_sqlite(program: list[Step]):
    check_on_sqlite(program)


def every_step() -> list[list[Step]]:
    """Each step in all its forms, after one that brings instances; a step that fails rolls back what was before it."""
    bring = [("query", 0, 6), ("query", 5, 1), ("query", 21, 0), ("get", 1, 0)]
    made: list[list[Step]] = []
    for name in ("get", "forge", "merge", "bulk_update", "upsert", "add", "bulk_insert", "change", "relate"):
        forms = [(name, n, whose) for n in range(12) for whose in range(3)]
        made.append(
            [step for form in forms for step in (*bring[: 1 + form[1] % 4], form, ("flush",), ("commit",))]
        )
    for name, forms in (("sets", 17), ("where", 4)):
        made.append(
            [step for n in range(forms) for step in (*bring[:2], (name, n, 1), ("commit",), ("query", 0, 0))]
        )
    made += [
        [step for n in range(8) for step in (*bring, (name, n), ("touch",), ("expunge_all",))]
        for name in ("refresh", "delete", "stream", "page", "savepoint", "expire")
    ]
    queries = [(n, m) for n in (0, 4, 5, 8, 17, 22) for m in range(10)] + [(n, n % 10) for n in range(34)]
    made += [
        [step for n, m in each for step in (("query", n, m), ("touch",), ("expunge_all",))]
        for each in (queries[::2], queries[1::2])
    ]
    return [*made, [*bring, ("load",), ("touch",), ("expire_all",), ("touch",), ("load",)]]


@pytest.mark.parametrize("part", range(4))
def test_every_step_on_sqlite(part: int):
    for program in every_step()[part::4]:
        check_on_sqlite(program)


# --- PostgreSQL -----------------------------------------------------------------------------------


@cache
def guarded_by_policies(who: str) -> type[UnitOfWork]:
    """A session whose database alone knows of tenants."""

    class GuardedByPolicies(UnitOfWork):
        tenancy = OF_ALL

        @property
        def local_setting(self) -> LocalSetting:
            return LocalSetting("catalysis.tenant", str(tenant(who)))

    return GuardedByPolicies


class OnPostgres:
    """Two worlds, a schema each, filled anew from copies before each program."""

    def __init__(self) -> None:
        self.url = asyncio.run(fresh_postgres_url())
        self.tables = [table.name for table in Model.metadata.sorted_tables]
        asyncio.run(self.prepare())

    def database(self, world: str, user: str = "postgres") -> Database:
        url = self.url.replace("postgres@", f"{user}@")
        return Database(
            DatabaseSettings(url=url, tenant_setting="catalysis.tenant"),
            connect_args={"server_settings": {"search_path": world}},
        )

    async def prepare(self) -> None:
        admin = await asyncpg.connect(self.url.replace("+asyncpg", ""))
        await admin.execute(MAKE_ROLE)
        for world in ("crowded", "alone"):
            await admin.execute(f"DROP SCHEMA IF EXISTS {world} CASCADE; CREATE SCHEMA {world}")
            database = self.database(world)
            await fill(database, alone=world == "alone")
            await database.close()
            await admin.execute(f"SET search_path = {world}")
            for table in self.tables:
                await admin.execute(f"CREATE TABLE copy_{table} AS SELECT * FROM {table}")
            for policy in tenant_policies(Model.registry):
                await admin.execute("; ".join(policy.enable()))
            await admin.execute(f"GRANT USAGE ON SCHEMA {world} TO {ROLE}")
            for table in self.tables:
                await admin.execute(f"GRANT ALL ON {table} TO {ROLE}")
        await admin.close()

    async def play(self, program: list[Step], user: str, **options: Any) -> None:
        traces: list[list[Any]] = []
        for world in ("crowded", "alone"):
            raw = await asyncpg.connect(self.url.replace("+asyncpg", ""))
            await raw.execute(
                f"SET search_path = {world}; SET session_replication_role = replica; "
                f"TRUNCATE {', '.join(self.tables)} CASCADE;"
                + "".join(f"INSERT INTO {each} SELECT * FROM copy_{each};" for each in self.tables)
            )
            await raw.close()
            database, admin = self.database(world, user), self.database(world)
            try:
                traces.append(await play(database, admin, program, **options))
            finally:
                await database.close()
                await admin.close()
        compare(program, *traces, claims=not options)

    def check(self, program: list[Step], user: str = "postgres", **options: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            asyncio.run(self.play(program, user, **options))


@pytest.mark.long
def test_many_programs_on_postgres():
    worlds = OnPostgres()
    for program in every_step():
        worlds.check(program)

    @long
    @given(programs)
    def on_postgres(program: list[Step]):
        worlds.check(program)

    on_postgres()


@pytest.mark.long
def test_many_programs_guarded_by_policies_alone():
    """No criterion, no check, no claim: the session is one for all tenants, of a role that may not bypass security.

    Seen to fail where the policies are not enabled.  Without its setting a read finds nothing at all, in both worlds:
    that is seen in `test_policies.py`.
    """
    worlds = OnPostgres()
    for program in every_step():
        worlds.check(program, ROLE, sync_session_class=None)

    @long
    @given(programs)
    def with_policies(program: list[Step]):
        worlds.check(program, ROLE, sync_session_class=None)

    with_policies()
