"""`catalysis migrate …`: Alembic's commands."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from catalysis.cli.running import ConfigFile, Url, output, with_database

if TYPE_CHECKING:
    from catalysis.migrations import Step

migrate = typer.Typer(no_args_is_help=True, help="Bring the database to the models, with Alembic.")


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
    path = with_database(
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
        steps = with_database(url, lambda database: apply(database, to, config=found, on_step=_print_step))
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
        steps = with_database(
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
    revisions = with_database(url, lambda database: revisions_of(database, config=found))
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
        differences = with_database(url, lambda database: differences_of(database, config=found))
    if differences:
        output.print("\n".join(differences), markup=False)
        raise typer.Exit(1)
    output.print("No difference between the models and the database.")


def _print_step(step: "Step") -> None:
    output.print(f"{'up  ' if step.up else 'down'} {step.revision}  {step.message}", markup=False)
