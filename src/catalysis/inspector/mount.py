"""`add_inspector`: one line in an application, which does nothing unless it is asked to."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from catalysis.database import Database, DatabaseService
from catalysis.inspector.records import Limits

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from catalysis.inspector.app import Inspector

PATH = "/_catalysis"


def add_inspector(
    app: "Starlette",
    database: Database | None = None,
    *,
    path: str = PATH,
    enabled: bool | None = None,
    show_parameters: bool = False,
    limits: Limits | None = None,
) -> "Inspector | None":
    """Show what the database does at `path` of a FastAPI or Starlette app, to browsers on this machine only.

    Nothing is mounted, observed or kept unless `enabled`; None asks the settings of `database` (default: the
    process's own), where DATABASE_INSPECTOR=1 says so.  For development: call it before the app starts; it observes
    from the app's start to its end.  With `show_parameters` the values that statements were sent with are kept and
    shown, secrets included.  Requests are told of by `lifespan` of the FastAPI integration, or `ManagedScope`.

    Returns:
        The inspector; None if it is off.

    Raises:
        ModuleNotFoundError: it is on, and the extra `inspector` is not installed.
        ValueError: `path` does not begin with a slash, or is nothing else.
    """
    if not path.startswith("/") or not path.rstrip("/"):
        raise ValueError(f"The inspector cannot be at {path!r}: write a path such as {PATH!r}.")
    if not (_is_asked_for(database) if enabled is None else enabled):
        return None
    import_module("sqlparse")  # to fail here and not in a page
    from starlette.routing import Mount

    from catalysis.inspector.app import Inspector

    inspector = Inspector(database, show_parameters=show_parameters, limits=limits)
    # Before all others: an application may answer every path by itself.
    app.router.routes.insert(0, Mount(path.rstrip("/"), app=inspector, name="catalysis inspector"))
    within = app.router.lifespan_context

    @asynccontextmanager
    async def observed(running: Any) -> AsyncGenerator[Any]:
        with inspector.observing():
            async with within(running) as state:
                yield state

    app.router.lifespan_context = observed
    return inspector


def _is_asked_for(database: Database | None) -> bool:
    return (database or DatabaseService.database()).settings.inspector
