"""Commands that look at a database and change nothing: explain, advise, doctor."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from catalysis.cli.running import ConfigFile, Url, complaints, or_one_line, output, print_json, with_database
from catalysis.errors import CatalysisError

if TYPE_CHECKING:
    from catalysis.advice import Advice
    from catalysis.database import Database


class FailOn(StrEnum):
    """See `doctor`."""

    error = "error"
    warning = "warning"


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
        advice, path = with_database(
            url,
            lambda database: or_one_line(work(database), AdviceError, "Nothing is advised."),
            makes_it=False,
        )
    if as_json:
        print_json(plain(advice))
    else:
        output.print(as_tables(advice))
    if path is not None:
        complaints.print(f"[green]Wrote[/] {escape(str(path))}  Read it before you upgrade.")


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
            diagnosis = with_database(
                url,
                lambda database: examine(
                    database, metadata, config=found, limits=Limits(processes), ignore=ignore or ()
                ),
            )
    except CatalysisError as failure:
        complaints.print(f"error: {failure}", markup=False, style="red")
        raise typer.Exit(2) from None
    if as_json:
        print_json(diagnosis.as_dict())
    else:
        for each in report(diagnosis):
            output.print(each, soft_wrap=False)
    if diagnosis.at_least(fail_on.value):
        raise typer.Exit(1)


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
    from catalysis.tools.query_plans.terminal import rendered
    from catalysis.tools.query_plans.text import document_of

    statement = sys.stdin.read() if sql == "-" else sql
    plan = with_database(
        url,
        lambda database: or_one_line(
            explain_sql(database.engine, statement, analyze=analyze, buffers=buffers),
            ExplainError,
            "Nothing was explained.",
        ),
        makes_it=False,
    )
    if as_json:
        print_json(document_of(plan))
    else:
        # Where someone looks, long lines are folded within the tree; a file or a pipe gets them whole.
        Console(highlight=False, width=None if output.is_terminal else _WHOLE).print(rendered(plan))


_WHOLE = 10_000
"""Columns, more than a step has to say."""
