"""The application: made from settings and a database, so that a test can make its own."""

from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline

from catalysis import Database
from catalysis.inspector import add_inspector
from catalysis.integrations.fastapi import add_error_handlers, health_router, lifespan
from catalysis.starter.app.errors import add_refusals
from catalysis.starter.app.routers import api
from catalysis.starter.app.settings import AppSettings


def _operation_id(route: APIRoute) -> str:
    return route.name


def create_app(settings: AppSettings | None = None, database: Database | None = None) -> FastAPI:
    """The application over `database` (default: the process's own, from DATABASE_*).

    In development the inspector comes with it, where DATABASE_INSPECTOR=1 asks for it.

    Raises:
        SettingsError: `settings` is None, and the environment's cannot be used.
    """
    app = FastAPIOffline(
        title="Tasks",
        description="Log in with **Authorize**.  Lists come in pages; what is deleted can be restored.",
        lifespan=lifespan(database),
        generate_unique_id_function=_operation_id,
        swagger_ui_parameters={"persistAuthorization": True},
    )
    app.state.settings = settings or AppSettings.load()
    app.state.database = database
    add_error_handlers(app)
    add_refusals(app)
    app.include_router(api)
    app.include_router(health_router())
    if app.state.settings.environment == "development":
        add_inspector(app, database)

    @app.get("/", include_in_schema=False)
    async def go_to_docs() -> RedirectResponse:  # pyright: ignore[reportUnusedFunction] - the app holds it
        return RedirectResponse("/docs")

    return app
