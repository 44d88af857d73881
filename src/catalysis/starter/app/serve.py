"""Starting up: the settings, the port, the database, the server, in this order; each failure is one line.

The port comes before the database, so that a server which cannot start has changed nothing.
"""

import asyncio
import gc
import socket
from typing import Annotated

import typer
import uvicorn
from rich.console import Console

from catalysis import CatalysisError, Database, DatabaseService, DatabaseSettings
from catalysis.inspector import PATH as INSPECTOR
from catalysis.starter.app.main import create_app
from catalysis.starter.app.prepare import prepare
from catalysis.starter.app.seed import DEMO_LOGINS, DEMO_PASSWORD
from catalysis.starter.app.settings import AppSettings

output = Console(soft_wrap=True, highlight=False)
complaints = Console(stderr=True, soft_wrap=True, highlight=False)


def serve(
    port: Annotated[int, typer.Option(envvar="PORT", min=1, max=65535, help="Where to listen.")] = 8000,
    host: Annotated[str, typer.Option(help="0.0.0.0 listens on every network.")] = "127.0.0.1",
) -> None:
    """Migrate the database, put in what a new one needs, and answer requests until Ctrl-C."""
    try:
        settings = AppSettings.load()
        database = DatabaseService.configure(_told_of_loops(DatabaseSettings.load(), settings))
        listener = _listen(host, port)
        asyncio.run(_prepare(database, with_demo=settings.has_demo))
    except (CatalysisError, _PortRefused) as failure:
        complaints.print(f"error: {failure}", markup=False, style="red")
        raise typer.Exit(1) from None
    output.print(f"[green]Ready[/] at [bold]http://{host}:{port}[/], the docs at /docs; Ctrl-C stops it.")
    app = create_app(settings, database)
    if any(getattr(route, "path", "") == INSPECTOR for route in app.routes):
        output.print(f"What it asks of the database is at [bold]http://{_local(host)}:{port}{INSPECTOR}[/].")
    if settings.has_demo:
        logins = ", ".join(f"[bold]{name}[/] ({role})" for name, role in DEMO_LOGINS.items())
        output.print(f"Log in as {logins}, each with the password [bold]{DEMO_PASSWORD}[/].")
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    gc.collect()
    gc.freeze()  # what is there by now stays, and no collection has to walk through it again
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:  # which uvicorn sends on, once it has stopped
        output.print("Stopped.")


def _local(host: str) -> str:
    """The inspector answers to names of this machine alone."""
    return host if host in ("127.0.0.1", "localhost") else "localhost"


def _told_of_loops(database: DatabaseSettings, settings: AppSettings) -> DatabaseSettings:
    """In development a request that sends one statement from one line again and again is warned of."""
    if settings.environment != "development" or database.warn_repeated is not None:
        return database
    return database.model_copy(update={"warn_repeated": 5})


async def _prepare(database: Database, *, with_demo: bool) -> None:
    try:
        await prepare(database, with_demo=with_demo)
    finally:
        await database.close()


class _PortRefused(Exception):
    pass


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    # Else a restart would have to wait for the last connections to time out.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except OSError as failure:
        listener.close()
        raise _PortRefused(
            f"Port {port} of {host} cannot be used: {failure.strerror}.  Choose another by --port or PORT."
        ) from None
    return listener
