"""`examine`: the models, their comparison with the database, and the database as it is.  The one module that waits.

Each check of a live database has a transaction of its own that reads and a time that it may take, so that one that
fails says so and leaves the others alone.  Nothing is changed.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic.config import Config
from sqlalchemy import MetaData, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import SQLModel

from catalysis.database import Database
from catalysis.doctor import models as of_models
from catalysis.doctor import numbers, schema, server, sqlite, tables
from catalysis.doctor.complaint import Complaint, Diagnosis, Ignored, Rule, Skipped, in_order
from catalysis.doctor.live import Case, Limits, LiveCheck, all_rules
from catalysis.doctor.models import Models
from catalysis.errors import ExaminationError, MigrationError
from catalysis.migrations.environment import differences_of
from catalysis.migrations.failures import unreachable
from catalysis.migrations.runner import compare
from catalysis.tools.rejections import why

Said = Complaint | Skipped


@dataclass(frozen=True, slots=True)
class _Dialect:
    """How one database is examined."""

    checks: tuple[LiveCheck, ...]
    before: tuple[str, ...] = ()
    """Sent at the start of each check's transaction."""
    sees_all: str | None = None
    """Whether the role sees what others do; None: there are no roles."""
    has_replicas: bool = False


_DIALECTS = {
    "postgresql": _Dialect(
        server.CHECKS + tables.CHECKS + numbers.CHECKS,
        (
            "SET TRANSACTION READ ONLY",
            "SET LOCAL statement_timeout = '10s'",
            "SET LOCAL lock_timeout = '1s'",
        ),
        "SELECT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')",
        has_replicas=True,
    ),
    "sqlite": _Dialect(sqlite.CHECKS),
}

RULES: tuple[Rule, ...] = (
    *(rule for rule, _ in of_models.CHECKS),
    *schema.RULES,
    *dict.fromkeys((*all_rules(server.CHECKS), server.UNREACHABLE)),
    *all_rules(tables.CHECKS + numbers.CHECKS),
    *(rule for rule in all_rules(sqlite.CHECKS) if rule is not tables.NO_KEY),
)
"""All that the doctor looks at."""


async def examine(
    database: Database,
    models: MetaData | Sequence[MetaData] | None = None,
    *,
    config: Config | None = None,
    limits: Limits | None = None,
    ignore: Iterable[str] = (),
) -> Diagnosis:
    """Compare models and live database with each other and with good practice; nothing is changed.

    `models` is one metadata or several, by default SQLModel's; `()` leaves models out.  `config` is that of the
    project's migrations: without it there are none, and the tables are compared all the same.  `ignore` names rules:
    `D101`, `foreign-key-without-index`, or `D101:task.user_id` for one subject.

    Raises:
        ExaminationError: the database cannot be reached, or the connection was lost.
        MigrationError: the migrations cannot be read.
        ModelError: a model cannot be mapped.
        SettingsError: `ignore` names no rule.
    """
    ignored = Ignored.parse(ignore, RULES)
    metadata = [SQLModel.metadata] if models is None else [models] if isinstance(models, MetaData) else models
    case = _case(database, Models.of(metadata), limits or Limits())
    said: list[Said] = [*of_models.examine_models(case.models)]
    _refuse_missing_file(database)
    try:
        async with database.engine.connect() as connection:
            system = connection.dialect.name
            await connection.execute(text("SELECT 1"))
    except Exception as failure:
        raise ExaminationError(str(unreachable(database, failure))) from failure
    try:
        said += await _compared(database, case.models, config, system)
        async with database.engine.connect() as connection:
            said += [each async for each in _live(connection, case)]
        if _DIALECTS.get(system, _Dialect(())).has_replicas:
            said += [each async for each in _replicas(database, case.limits)]
    except (DBAPIError, OSError) as failure:
        raise ExaminationError(f"The examination was broken off: {why(failure)}") from failure
    told = [each for each in said if not ignored.hides(each)]
    return Diagnosis(
        system,
        make_url(database.settings.url).database,
        in_order(each for each in told if isinstance(each, Complaint)),
        tuple(dict.fromkeys(each for each in told if isinstance(each, Skipped))),
    )


def _case(database: Database, models: Models, limits: Limits) -> Case:
    figures = database.pool_figures()
    return Case(models, limits, figures.limit, database.settings.pooler is not None)


def _refuse_missing_file(database: Database) -> None:
    """SQLite would make it."""
    url = make_url(database.settings.url)
    name = url.database or ""
    if url.get_backend_name() != "sqlite" or name in ("", ":memory:") or name.startswith("file:"):
        return
    if not Path(name).is_file():
        raise ExaminationError(
            f"There is no file {name}.  Make the database, with catalysis migrate upgrade, or correct DATABASE_URL (or "
            "--url)."
        )


# --- Against the models ---------------------------------------------------------------------------


async def _compared(database: Database, models: Models, config: Config | None, system: str) -> list[Said]:
    if config is None and not models.tables:
        return [schema.NOT_COMPARED.skip("no models were given")]
    try:
        if config is None:
            async with database.engine.connect() as connection:
                found = await connection.run_sync(differences_of, models.metadata)
            return [*schema.judge_differences(found, system, migrated=False)]
        comparison = await compare(database, config)
    except (MigrationError, SQLAlchemyError) as failure:
        refused = failure if isinstance(failure, DBAPIError) else failure.__cause__
        if not isinstance(refused, DBAPIError) or refused.connection_invalidated:
            raise
        return [schema.NOT_COMPARED.skip(why(refused))]
    said: list[Said] = [*schema.judge_revisions(comparison)]
    if comparison.differences is None:
        return [*said, schema.NOT_COMPARED.skip("the database is not at the newest revision")]
    return [*said, *schema.judge_differences(comparison.differences, system, migrated=True)]


# --- As it is -------------------------------------------------------------------------------------


async def _live(connection: AsyncConnection, case: Case) -> AsyncIterator[Said]:
    dialect = _DIALECTS.get(connection.dialect.name, _Dialect(()))
    sees_all = dialect.sees_all is None or bool(await connection.scalar(text(dialect.sees_all)))
    await connection.rollback()
    for check in dialect.checks:
        if check.needs_statistics and not sees_all:
            yield check.rule.skip("of this role's own sessions only; for the others: GRANT pg_read_all_stats")
        reason = check.skip(case) if check.skip is not None else None
        if reason is not None:
            yield check.rule.skip(reason)
            continue
        try:
            for each in await _checked(connection, check, case, dialect.before):
                yield each
        except DBAPIError as failure:
            if failure.connection_invalidated:
                raise
            meant = check.refused(why(failure)) if check.refused is not None else None
            yield meant or check.rule.skip(why(failure))


async def _checked(
    connection: AsyncConnection, check: LiveCheck, case: Case, before: Iterable[str]
) -> list[Said]:
    async with connection.begin():
        for command in before:
            await connection.execute(text(command))
        rows: Sequence[Any] = (await _execute(connection, check.sql, case)).all()
        if check.then is not None:
            rows = [(row, await _follow(connection, check.then(row))) for row in rows]
    return list(check.read(rows, case))


async def _follow(connection: AsyncConnection, sql: str | None) -> Any:
    return None if sql is None else (await connection.exec_driver_sql(sql)).one()


async def _execute(connection: AsyncConnection, sql: str, case: Case) -> Any:
    statement = text(sql)
    known = {**case.limits.parameters(), "schemas": case.models.schemas}
    return await connection.execute(statement, {name: known[name] for name in statement.compile().params})


async def _replicas(database: Database, limits: Limits) -> AsyncIterator[Said]:
    if not database.settings.replicas:
        return
    async with database.engine.connect() as connection:
        position = await connection.scalar(text(server.POSITION))
    for number, url in enumerate(database.settings.replicas, 1):
        replica = Database(database.settings.model_copy(update={"url": url, "replicas": ()}))
        try:
            for each in await _replica(replica, number, position, limits):
                yield each
        finally:
            await replica.close()


async def _replica(replica: Database, number: int, position: str | None, limits: Limits) -> list[Said]:
    try:
        async with replica.engine.connect() as connection:
            try:
                row = await _replayed(connection, position)
            except DBAPIError as failure:
                if failure.connection_invalidated:
                    raise
                return [server.LAG.skip(f"replica {number}: {why(failure)}")]
    except (SQLAlchemyError, OSError) as failure:  # a TimeoutError is an OSError
        reason = type(getattr(failure, "orig", None) or failure).__name__  # its text may name hosts and users
        return [
            server.UNREACHABLE.complain(
                f"replica {number} of DATABASE_REPLICAS",
                f"It does not answer ({reason}).",
                "start it, or take it out of DATABASE_REPLICAS",
            )
        ]
    return list(server.judge_replica(row, number, limits))


async def _replayed(connection: AsyncConnection, position: str | None) -> Any:
    """How far a replica is; what is only on its way to it, as is always something, has a second to arrive."""
    for tries_left in range(4, -1, -1):
        row = (await connection.execute(text(server.REPLICA), {"position": position})).one()
        if not tries_left or row.bytes is None or row.bytes <= 0:
            return row
        await asyncio.sleep(0.2)
