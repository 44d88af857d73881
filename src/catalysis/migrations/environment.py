"""Alembic's environment: what a project's `env.py` calls, whoever runs it (`catalysis migrate`, `alembic`, a test).

Synchronous, because Alembic is; it is run inside `AsyncConnection.run_sync`.
"""

import asyncio
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from alembic import context
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.runtime.plugins import Plugin
from alembic.script import Script
from sqlalchemy import Connection, MetaData
from sqlmodel import SQLModel

from catalysis.database import Database
from catalysis.errors import MigrationError
from catalysis.migrations import distribution, enums, indexes, portable
from catalysis.migrations.turns import turn_for

RUN = "catalysis"
"""The key of the `Run` among `Config.attributes`."""

for module in (indexes, portable, distribution, enums):  # in this order: each goes around what came before
    Plugin.setup_plugin_from_module(module, module.__name__)


@dataclass(frozen=True, slots=True)
class Step:
    """A revision that was applied, or taken back."""

    revision: str
    message: str
    up: bool


@dataclass(frozen=True, slots=True)
class Run:
    """What an Alembic command is run with."""

    connection: Connection
    writes: bool = True
    """Whether the command may change the database; if not, it waits for nobody."""
    on_step: Callable[[Step], None] | None = None


def run_environment(*models: str | MetaData, **options: Any) -> None:
    """Run the Alembic command at hand: the whole of an `env.py`.

    `models` names where the tables are: a module, whose import adds them to `SQLModel.metadata` (`"app.models"`),
    a metadata in a module (`"app.models:Base.metadata"`), or a metadata.  Other options go to Alembic's
    `context.configure()` (`include_object`, `version_table_schema`, `include_schemas`…).

    Raises:
        MigrationError: the models cannot be found.
    """
    config = context.config
    metadata = [_metadata(each) for each in models] or [SQLModel.metadata]
    settings = {**_options(list(dict.fromkeys(metadata))), **options}
    run: Run | None = config.attributes.get(RUN)
    if context.is_offline_mode():
        _run_offline(settings)
    elif run is not None:
        _run_online(run, settings)
    else:  # `alembic` itself is running
        asyncio.run(_run_alone(settings))


def differences_of(connection: Connection, metadata: Sequence[MetaData]) -> list[Any]:
    """Alembic's differences between the database and the models, as an env.py of ours would have them found."""
    schemas = {table.schema for each in metadata for table in each.tables.values()}

    def is_ours(name: str | None, kind: str, parents: Any) -> bool:
        return kind != "schema" or name in schemas

    settings = {**_options(list(metadata)), "include_schemas": schemas != {None}, "include_name": is_ours}
    return compared(MigrationContext.configure(connection, opts=settings))


def compared(found: MigrationContext) -> list[Any]:
    """Alembic's differences, in a context that knows the models."""
    with warnings.catch_warnings():
        # SQLAlchemy does not reflect them, `indexes` does
        warnings.filterwarnings("ignore", "Skipped unsupported reflection of expression-based index")
        return compare_metadata(found, found.opts["target_metadata"])


def _metadata(models: str | MetaData) -> MetaData:
    if isinstance(models, MetaData):
        return models
    module_name, _, path = models.partition(":")
    try:
        found: Any = import_module(module_name)
    except ModuleNotFoundError as missing:
        if missing.name is None or not f"{module_name}.".startswith(f"{missing.name}."):
            raise  # the module is there, what it imports is not
        raise MigrationError(
            f"env.py names the models {models!r}, but there is no module {missing.name!r}.  Correct the name, or "
            "add the module's folder to prepend_sys_path in [tool.alembic]."
        ) from None
    for name in path.split(".") if path else ():
        found = getattr(found, name, None)
    if path and not isinstance(found, MetaData):
        raise MigrationError(
            f"env.py names the models {models!r}, but {path} is not a MetaData of {module_name}."
        )
    return found if path else SQLModel.metadata


def _options(metadata: list[MetaData]) -> dict[str, Any]:
    return {
        "target_metadata": metadata if len(metadata) > 1 else metadata[0],
        "render_as_batch": True,  # plain ALTERs, but where SQLite must rebuild the table
        "render_item": portable.render_item,
        "compare_server_default": True,
        "autogenerate_plugins": [
            "alembic.autogenerate.*",
            "alembic.ext.checkconstraint_byname",
            "catalysis.*",
        ],
    }


def _run_online(run: Run, settings: dict[str, Any]) -> None:
    turn = turn_for(run.connection.dialect.name)
    with turn.around(run.connection) if run.writes else nullcontext():
        context.configure(
            connection=run.connection,
            transaction_per_migration=turn.transaction_per_revision,
            on_version_apply=_reporter(run),
            dont_mutate=not run.writes,
            **settings,
        )
        within = turn.within(run.connection) if run.writes else nullcontext()
        with context.begin_transaction(), within, warnings.catch_warnings():
            # SQLAlchemy does not reflect them, `indexes` does
            warnings.filterwarnings("ignore", "Skipped unsupported reflection of expression-based index")
            context.run_migrations()


def _reporter(run: Run) -> Callable[[MigrationContext, MigrationInfo, Any, Any], None]:
    def report(ctx: MigrationContext, step: MigrationInfo, heads: Any, run_args: Any) -> None:
        script = step.up_revision
        if run.on_step is not None and isinstance(script, Script):
            run.on_step(Step(script.revision, script.doc, step.is_upgrade))

    return report


async def _run_alone(settings: dict[str, Any]) -> None:
    url = context.get_x_argument(as_dictionary=True).get("url")
    database = Database(url)
    try:
        async with database.engine.connect() as connection:
            await connection.run_sync(lambda sync: _run_online(Run(sync), settings))
    finally:
        await database.close()


def _run_offline(settings: dict[str, Any]) -> None:
    url = context.get_x_argument(as_dictionary=True).get("url")
    context.configure(
        url=Database(url).settings.url, literal_binds=True, dialect_opts={"paramstyle": "named"}, **settings
    )
    with context.begin_transaction():
        context.run_migrations()
