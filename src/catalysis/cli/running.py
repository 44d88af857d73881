"""What all commands share: where they print, their common options, and a database for the length of a command."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console

from catalysis.errors import CannotConnect, CatalysisError, SettingsError

if TYPE_CHECKING:
    from catalysis.database import Database

T = TypeVar("T")

output = Console(soft_wrap=True, highlight=False)
complaints = Console(stderr=True, soft_wrap=True, highlight=False)

Url = Annotated[str | None, typer.Option("--url", help="The database; by default the one of DATABASE_URL.")]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="pyproject.toml or alembic.ini; by default of this folder."),
]


def with_database(url: str | None, work: "Callable[[Database], Awaitable[T]]", *, makes_it: bool = True) -> T:
    """What `work` returns; without `makes_it` an SQLite file must be there.

    Raises:
        SettingsError: it is not: opening it would leave an empty one behind.
    """
    from catalysis.database import Database

    async def run() -> T:
        database = Database(url)
        if not makes_it:
            _refuse_missing_file(database)
        try:
            return await work(database)
        finally:
            await database.close()
            let_sqlite_finish()

    return asyncio.run(run())


def _refuse_missing_file(database: "Database") -> None:
    address = database.engine.url
    name = address.database or ""
    if address.get_backend_name() != "sqlite" or name in ("", ":memory:") or name.startswith("file:"):
        return
    if not Path(name).exists():
        raise SettingsError(
            f"There is no SQLite file {name!r}.  Name the database by --url or DATABASE_URL, or create it "
            "first, as by `catalysis migrate upgrade`."
        )


def let_sqlite_finish() -> None:
    """Wait for aiosqlite's threads: that of a connection that failed to open still has a word for the event loop."""
    for thread in threading.enumerate():
        if "_connection_worker_thread" in thread.name:
            thread.join(timeout=1)


async def or_one_line(work: "Awaitable[T]", kind: type[CatalysisError], outcome: str) -> T:
    """A database that refuses, or cannot be reached, as one line of ours, which shows no password.

    Raises:
        CatalysisError: of that `kind`; its last words are the `outcome`.
    """
    from sqlalchemy.exc import SQLAlchemyError

    from catalysis.tools.rejections import why

    try:
        return await work
    except CannotConnect as failure:
        raise kind(f"{failure}  {outcome}") from failure
    except CatalysisError:
        raise
    except Exception as failure:
        if not isinstance(failure, SQLAlchemyError | OSError) and not hasattr(failure, "sqlstate"):
            raise  # the driver's own errors have one
        raise kind(f"{why(failure)}  {outcome}") from failure


def print_json(value: Any) -> None:
    """To stdout, as it is: nothing is folded or coloured."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
