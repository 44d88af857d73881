"""The `catalysis` command.  Commands only: each reads its options, calls the library, and prints.

What a command needs is imported inside it, so that `--help` and `--version` answer at once.
"""

import asyncio
import re
from collections.abc import Awaitable
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from catalysis.cli import looking
from catalysis.cli.migrating import migrate
from catalysis.cli.running import Url, complaints, let_sqlite_finish, or_one_line, output, with_database
from catalysis.errors import CatalysisError

if TYPE_CHECKING:
    from rich.progress import Progress

    from catalysis.database import Database
    from catalysis.tools.bulk_load import Loaded

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

        loaded = with_database(
            url,
            lambda database: or_one_line(work(database), BulkError, "Nothing was loaded."),
            makes_it=False,  # a file that is not there has no tables
        )
    output.print(f"[green]Loaded[/] {loaded.rows:,} rows into {escape(table)}.")
    if rejects is not None:
        output.print(f"{loaded.rejected:,} rows rejected, in {escape(str(rejects))}.")


def _progress() -> "Progress":
    """A bar on stderr; nothing of it stays, and where no one looks there is none."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=complaints, transient=True, disable=not complaints.is_terminal)


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
            let_sqlite_finish()

    asyncio.run(run())
    output.print("Ended.")


for _command in (looking.explain, looking.advise, looking.doctor):
    app.command()(_command)
app.add_typer(migrate, name="migrate")
