"""The `catalysis` command.  Commands only: each reads its options, calls the library, and prints.

What a command needs is imported inside it, so that `--help` and `--version` answer at once.
"""

import asyncio
import json
import re
import sys
import threading
from collections.abc import Awaitable, Callable
from enum import StrEnum
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from catalysis.errors import CatalysisError

if TYPE_CHECKING:
    from rich.progress import Progress

    from catalysis.advice import Advice
    from catalysis.database import Database
    from catalysis.migrations import Step
    from catalysis.tools.bulk_load import Loaded

T = TypeVar("T")

EXTRAS = {
    "fastapi": "starter",
    "uvicorn": "starter",
    "pwdlib": "starter",
    "jwt": "starter",
    "sqlparse": "inspector",
    "temporalio": "temporal",
    "pyarrow": "arrow",
    "sqlglot": "advise",
    "opentelemetry": "otel",
    "prometheus_client": "prometheus",
}
"""The extra that installs a module."""

output = Console(soft_wrap=True, highlight=False)
complaints = Console(stderr=True, soft_wrap=True, highlight=False)


class Commands(TyperGroup):
    """The one place where an error of ours becomes a line on stderr and the exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except CatalysisError as failure:
            message = str(failure)
        except ModuleNotFoundError as missing:
            extra = EXTRAS.get((missing.name or "").partition(".")[0])
            if extra is None:
                raise
            message = f"{missing.name} is not installed: pip install 'catalysis[{extra}]'"
        complaints.print(f"error: {message}", markup=False, style="red")
        raise typer.Exit(1)


app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False)
migrate = typer.Typer(no_args_is_help=True, help="Bring the database to the models, with Alembic.")
app.add_typer(migrate, name="migrate")

Url = Annotated[str | None, typer.Option("--url", help="The database; by default the one of DATABASE_URL.")]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="pyproject.toml or alembic.ini; by default of this folder."),
]


class FailOn(StrEnum):
    """See `doctor`."""

    error = "error"
    warning = "warning"


def _print_version(wanted: bool) -> None:
    if wanted:
        output.print(f"catalysis {installed_version('catalysis')}")
        raise typer.Exit()


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Say which version this is."),
    ] = False,
) -> None:
    """An async data layer over SQLAlchemy and SQLModel."""


@app.command()
def version() -> None:
    """Say which version this is."""
    _print_version(True)


@app.command()
def new(name: Annotated[str, typer.Argument(help="Of the project and its folder.")]) -> None:
    """Write a backend to start from: FastAPI, users and permissions, tasks, migrations, tests."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
        raise CatalysisError(
            f"{name!r} cannot name a project.  Begin with a letter, go on with letters, digits, '-' and '_'."
        )
    from catalysis.starter import write_project

    with output.status(f"Writing {name}…"):
        write_project(name, Path(name))
    output.print(
        f"[green]Wrote[/] {name}/  Now:\n\n  cd {name}\n  make run   [dim]# http://127.0.0.1:8000/docs[/]"
    )


@app.command()
def load(
    table: Annotated[str, typer.Argument(help="The table, or the class that is mapped to it.")],
    file: Annotated[Path, typer.Argument(help="CSV with a header in UTF-8, TSV, Parquet, Arrow or Feather.")],
    rejects: Annotated[
        Path | None,
        typer.Option(help="A new file for bad rows, and load the others.  Without it one bad row ends all."),
    ] = None,
    upsert: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="Update rows that have the same KEY: a column (repeat it for several) or index.",
        ),
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(help="The module with the tables, as in app.models; or `models` in [tool.catalysis]."),
    ] = None,
    url: Url = None,
) -> None:
    """Load the rows of a file into a table, in one transaction: all or nothing, or all but the rejects."""
    from catalysis.errors import BulkError
    from catalysis.migrations.project import configured_models
    from catalysis.tools.bulk_load import bulk_load
    from catalysis.tools.file_rows import estimate_rows
    from catalysis.tools.named_model import find_model

    model = find_model(models or configured_models(), table)
    key = None if not upsert else upsert[0] if len(upsert) == 1 else upsert
    with _progress() as progress:
        task = progress.add_task(f"Loading {file.name}", total=estimate_rows(file))

        def work(database: "Database") -> "Awaitable[Loaded]":
            return bulk_load(
                database,
                model,
                file,
                rejects=rejects,
                key=key,
                on_progress=lambda done: progress.update(task, completed=done),
            )

        loaded = _with_database(
            url, lambda database: _or_one_line(work(database), BulkError, "Nothing was loaded.")
        )
    output.print(f"[green]Loaded[/] {loaded.rows:,} rows into {escape(table)}.")
    if rejects is not None:
        output.print(f"{loaded.rejected:,} rows rejected, in {escape(str(rejects))}.")


@app.command()
def advise(
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", help="A file that Workload.write() made; without it pg_stat_statements is asked."
        ),
    ] = None,
    prove_here: Annotated[
        bool,
        typer.Option(
            "--prove-here",
            help="Make the indexes in a transaction that is rolled back; tables are locked, so for development.",
        ),
    ] = False,
    at_least: Annotated[
        float, typer.Option(min=1.5, help="How many times an index must lower a statement's cost.")
    ] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
    message: Annotated[
        str | None, typer.Option("--revision", help="Write the indexes out as a revision with this message.")
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option(help="An index that could go, to be dropped by the revision as well.")
    ] = None,
    url: Url = None,
    config: ConfigFile = None,
) -> None:
    """Indexes to add, proved on this database, and indexes that could go.  Nothing is applied."""
    import json

    from catalysis.advice import Workload, workload_from_statistics
    from catalysis.advice import advise as advice_for
    from catalysis.advice.printing import as_json as plain
    from catalysis.advice.printing import as_tables
    from catalysis.advice.revision import write_revision
    from catalysis.errors import AdviceError
    from catalysis.migrations import load_config

    found = None if message is None else load_config(config)

    async def work(database: "Database") -> "tuple[Advice, Path | None]":
        workload = await workload_from_statistics(database) if source is None else Workload.read(source)
        advice = await advice_for(database, workload, in_transaction=prove_here, at_least=at_least)
        if message is None or not (advice.indexes or drop):
            return advice, None
        return advice, await write_revision(database, advice, message, config=found, drop=drop or ())

    with complaints.status("Trying indexes…"):
        advice, path = _with_database(
            url, lambda database: _or_one_line(work(database), AdviceError, "Nothing is advised.")
        )
    if as_json:
        output.print_json(json.dumps(plain(advice)))
    else:
        output.print(as_tables(advice))
    if path is not None:
        complaints.print(f"[green]Wrote[/] {escape(str(path))}  Read it before you upgrade.")


def _progress() -> "Progress":
    """A bar on stderr; nothing of it stays, and where no one looks there is none."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=complaints, transient=True, disable=not complaints.is_terminal)


async def _or_one_line(work: "Awaitable[T]", kind: type[CatalysisError], outcome: str) -> T:
    """A database that refuses, or cannot be reached, as one line of ours, which shows no password.

    Raises:
        CatalysisError: of that `kind`; its last words are the `outcome`.
    """
    from sqlalchemy.exc import SQLAlchemyError

    from catalysis.tools.rejections import why

    try:
        return await work
    except CatalysisError:
        raise
    except Exception as failure:
        if not isinstance(failure, SQLAlchemyError | OSError) and not hasattr(failure, "sqlstate"):
            raise  # the driver's own errors have one
        raise kind(f"{why(failure)}  {outcome}") from failure


@app.command()
def worker(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="MODULE…",
            help="Modules with activities and workflows, as in app.activities, or module:name.",
        ),
    ],
    address: Annotated[
        str | None, typer.Option(help="Temporal's server as host:port; by default that of TEMPORAL_ADDRESS.")
    ] = None,
    namespace: Annotated[
        str | None, typer.Option(help="By default that of TEMPORAL_NAMESPACE, or 'default'.")
    ] = None,
    queue: Annotated[str, typer.Option(help="The task queue to work on.")] = "default",
    grace: Annotated[
        float,
        typer.Option(min=0, help="Seconds that running activities have at the end until they are cancelled."),
    ] = 30,
    url: Url = None,
) -> None:
    """Run activities and workflows for Temporal, until SIGTERM or Ctrl-C; then finish what runs."""
    from catalysis.database import DatabaseService
    from catalysis.integrations.temporal.serving import Place, find, serve

    if url is not None:
        DatabaseService.configure(url)
    found = find(targets)

    def say() -> None:
        activities, workflows = len(found.activities), len(found.workflows)
        output.print(f"Working on {queue}: {activities} activities, {workflows} workflows.", markup=False)

    async def run() -> None:
        try:
            await serve(found, Place(address, namespace, queue), grace=grace, on_started=say)
        finally:
            _let_sqlite_finish()

    asyncio.run(run())
    output.print("Ended.")


@app.command()
def doctor(
    models: Annotated[
        str | None,
        typer.Option(help="The module with the tables, as in app.models; or `models` in [tool.catalysis]."),
    ] = None,
    no_models: Annotated[bool, typer.Option("--no-models", help="Examine the database alone.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    fail_on: Annotated[
        FailOn, typer.Option(help="The least severity for which the exit code is 1.")
    ] = FailOn.error,
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="CODE", help="D101, its name, or D101:task.user_id; repeat it for several."),
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, help="Processes of the application, each with a pool of its own.")
    ] = 1,
    url: Url = None,
    config: ConfigFile = None,
) -> None:
    """Examine models and database; exit code 1 if there is an error, 2 if they cannot be examined."""
    from catalysis.doctor import Limits, examine
    from catalysis.doctor.report import report
    from catalysis.migrations.project import configured_models, find_config
    from catalysis.tools.named_model import find_metadata

    try:
        found = find_config(config)
        metadata = [] if no_models else find_metadata(models or configured_models())
        with complaints.status("Examining…"):
            diagnosis = _with_database(
                url,
                lambda database: examine(
                    database, metadata, config=found, limits=Limits(processes), ignore=ignore or ()
                ),
            )
    except CatalysisError as failure:
        complaints.print(f"error: {failure}", markup=False, style="red")
        raise typer.Exit(2) from None
    if as_json:
        typer.echo(json.dumps(diagnosis.as_dict(), indent=2, ensure_ascii=False))
    else:
        for each in report(diagnosis):
            output.print(each, soft_wrap=False)
    if diagnosis.at_least(fail_on.value):
        raise typer.Exit(1)


@app.command()
def explain(
    sql: Annotated[
        str, typer.Argument(metavar="SQL", help="One statement, in the database's own words; - reads stdin.")
    ],
    analyze: Annotated[
        bool, typer.Option("--analyze", help="Execute it, for the actual figures, and take back what it did.")
    ] = False,
    buffers: Annotated[bool, typer.Option("--buffers", help="Count blocks too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The plan and its findings as JSON.")] = False,
    url: Url = None,
) -> None:
    """Show how the database runs a statement: its plan as a tree, and what is wrong with it."""
    from catalysis.errors import ExplainError
    from catalysis.tools.explain import explain_sql
    from catalysis.tools.query_plans.text import document_of

    statement = sys.stdin.read() if sql == "-" else sql
    plan = _with_database(
        url,
        lambda database: _or_one_line(
            explain_sql(database.engine, statement, analyze=analyze, buffers=buffers),
            ExplainError,
            "Nothing was explained.",
        ),
    )
    if as_json:
        typer.echo(json.dumps(document_of(plan), indent=2, ensure_ascii=False))
    else:
        # Where someone looks, long lines are folded within the tree; a file or a pipe gets them whole.
        Console(highlight=False, width=None if output.is_terminal else _WHOLE).print(plan)


_WHOLE = 10_000
"""Columns, more than a step has to say."""


@migrate.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Where the revisions go.")] = Path("migrations"),
    models: Annotated[
        str | None,
        typer.Option(help="The module with the tables, as in app.models or app.models:Base.metadata."),
    ] = None,
) -> None:
    """Write the migrations folder, and where it is into pyproject.toml."""
    from catalysis.migrations.project import guess_models, init_project

    for path in init_project(folder, models or guess_models()):
        output.print(f"[green]Wrote[/] {escape(str(path))}")
    output.print("Now: catalysis migrate revision -m 'first tables', then catalysis migrate upgrade")


@migrate.command()
def revision(
    message: Annotated[str, typer.Option("--message", "-m", help="What the revision does.")],
    autogenerate: Annotated[
        bool,
        typer.Option(
            "--autogenerate/--empty", help="Fill it with what the models have and the database has not."
        ),
    ] = True,
    url: Url = None,
    config: ConfigFile = None,
) -> None:
    """Write a revision from the difference between models and database."""
    from catalysis.migrations import load_config, revise

    found = load_config(config)
    path = _with_database(
        url, lambda database: revise(database, message, autogenerate=autogenerate, config=found)
    )
    if path is None:
        output.print("No revision written: the models and the database do not differ.")
    else:
        output.print(f"[green]Wrote[/] {escape(str(path))}  Read it before you upgrade.")


@migrate.command()
def upgrade(
    to: Annotated[str, typer.Argument(metavar="REVISION")] = "head",
    url: Url = None,
    config: ConfigFile = None,
) -> None:
    """Apply revisions, up to the newest."""
    from catalysis.migrations import load_config
    from catalysis.migrations import upgrade as apply

    found = load_config(config)
    with output.status("Upgrading…"):
        steps = _with_database(url, lambda database: apply(database, to, config=found, on_step=_print_step))
    if not steps:
        output.print("Nothing to do: the database is up to date.")


@migrate.command(context_settings={"ignore_unknown_options": True})  # so that -1 is a revision
def downgrade(
    to: Annotated[str, typer.Argument(metavar="REVISION", help="-1: the one before; base: before all.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = None,
    config: ConfigFile = None,
) -> None:
    """Take revisions back.  Tables and columns that they made go, rows and all."""
    from catalysis.migrations import downgrade as take_back
    from catalysis.migrations import load_config

    found = load_config(config)
    if not yes and sys.stdin.isatty():
        typer.confirm(
            f"Taking revisions back to {to} drops what they made, with its rows.  Go on?", abort=True
        )
    with output.status("Downgrading…"):
        steps = _with_database(
            url, lambda database: take_back(database, to, config=found, on_step=_print_step)
        )
    if not steps:
        output.print("Nothing to do: the database is there already.")


@migrate.command()
def current(url: Url = None, config: ConfigFile = None) -> None:
    """Say at which revision the database is."""
    from catalysis.migrations import current as revisions_of
    from catalysis.migrations import load_config

    found = load_config(config)
    revisions = _with_database(url, lambda database: revisions_of(database, config=found))
    output.print("\n".join(revisions) or "The database was never migrated.")


@migrate.command()
def history(config: ConfigFile = None) -> None:
    """List the revisions, newest first."""
    from catalysis.migrations.runner import print_history

    print_history(config)


@migrate.command()
def check(url: Url = None, config: ConfigFile = None) -> None:
    """Say in what the models differ from the database; exit code 1 if in anything."""
    from catalysis.migrations import check as differences_of
    from catalysis.migrations import load_config

    found = load_config(config)
    with output.status("Comparing…"):
        differences = _with_database(url, lambda database: differences_of(database, config=found))
    if differences:
        output.print("\n".join(differences), markup=False)
        raise typer.Exit(1)
    output.print("No difference between the models and the database.")


def _with_database(url: str | None, work: "Callable[[Database], Awaitable[T]]") -> T:
    from catalysis.database import Database

    async def run() -> T:
        database = Database(url)
        try:
            return await work(database)
        finally:
            await database.close()
            _let_sqlite_finish()

    return asyncio.run(run())


def _let_sqlite_finish() -> None:
    """Wait for aiosqlite's threads: that of a connection that failed to open still has a word for the event loop."""
    for thread in threading.enumerate():
        if "_connection_worker_thread" in thread.name:
            thread.join(timeout=1)


def _print_step(step: "Step") -> None:
    output.print(f"{'up  ' if step.up else 'down'} {step.revision}  {step.message}", markup=False)
