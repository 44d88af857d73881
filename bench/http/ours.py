"""The application on Catalysis, as its README has it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from sqlmodel import col, select

from bench.http.answers import POOL, Twenties
from bench.http.sessions import add_routes
from bench.models import Task
from catalysis import Database, DatabaseSettings
from catalysis.integrations.fastapi import add_error_handlers, get_session, lifespan


def application(url: str) -> FastAPI:
    """The routes, over a database of their own."""
    database = Database(DatabaseSettings(url=url, pool_size=POOL, max_overflow=0))
    twenties = Twenties()

    @asynccontextmanager
    async def live(app: FastAPI) -> AsyncIterator[dict[str, Database]]:
        async with lifespan(database)(app) as state:
            async with database.session() as session:
                twenties.keys = list(await session.exec(select(Task.id).order_by(col(Task.number))))
            yield state

    app = FastAPI(lifespan=live)
    add_error_handlers(app)
    add_routes(app, Task, Depends(get_session, scope="function"), twenties)  # what `DatabaseDep` is
    return app
