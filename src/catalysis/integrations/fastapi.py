"""FastAPI: a session for each request, answers for the database's errors, and the health of the pool."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from sqlalchemy import MetaData
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, NoResultFound, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.requests import HTTPConnection

from catalysis.database import Database, DatabaseService
from catalysis.errors import CannotConnect, InvalidPage, InvalidToken
from catalysis.events import CodeLine
from catalysis.integrations.asgi import ManagedScope
from catalysis.integrations.constraints import violated_constraint
from catalysis.integrations.slow_queries import log_slow_queries
from catalysis.session import Session


def database_of(connection: HTTPConnection) -> Database:
    """The database of the application that answers: the one its `lifespan` was given, else the process's own.

    An application that is mounted runs no lifespan: it uses the database of the one it is mounted in, which
    reaches it with the request's state, unless its own `app.state.database` is set.
    """
    for state in (connection.app.state, connection.state):
        if isinstance(database := getattr(state, "database", None), Database):
            return database
    return DatabaseService.database()


async def get_session(connection: HTTPConnection) -> Session:
    """The dependency behind `DatabaseDep`: a session for the route, closed before the response is sent.

    An error in the route rolls back.  Nothing is committed by itself: say `await db.commit()` in the route.
    Once closed it stays closed: a background task or the body of a stream opens its own session, or SQLAlchemy
    raises InvalidRequestError; to give the connection back early, and go on, there is `await db.reset()`.
    """
    session = database_of(connection).session(close_resets_only=False)
    code = getattr(connection.scope.get("endpoint"), "__code__", None)
    if code is not None:
        session.sync_session.opened = CodeLine(code, code.co_firstlineno)
    # FastAPI ends this stack before it sends the response.  It would put a dependency with `yield` there too, inside
    # two context managers and a cancel scope, which cost as much as half of a read by key.
    connection.scope["fastapi_function_astack"].push_async_exit(session)
    return session


# scope="function": what yields and takes it must end before the response too, and FastAPI refuses what does not.
DatabaseDep = Annotated[Session, Depends(get_session, scope="function")]
"""`async def route(db: DatabaseDep)`: a `Session` for this request.

A dependency of your own that yields and takes a `DatabaseDep` must end before the session does, so it is declared
with the same scope: `Depends(yours, scope="function")`.
"""


def lifespan(
    database: Database | None = None, *, create_tables: bool | MetaData = False
) -> Callable[[FastAPI], AbstractAsyncContextManager[dict[str, Database]]]:
    """`FastAPI(lifespan=lifespan(db))`: the routes use `db` (default: the process's own), closed at shutdown.

    They run in a managed scope, with their dependencies, `response_model` and websockets: touching what was not
    loaded loads it.  Routes written with `def` run in a thread, which is outside.  With `warn_repeated` set in the
    database's settings (`DATABASE_WARN_REPEATED=5`, for development) a request that sends a statement from one line
    so many times warns `RepeatedQuery`.  With `slow_query_seconds` set, statements that take so long are logged, with
    their plans (see `catalysis.integrations.slow_queries`).

    It yields the state that carries `db` to mounted applications; inside a lifespan of your own:
    `async with lifespan(db)(app) as state: yield state`.

    `create_tables` makes missing tables at the start (True: SQLModel's), for trying things out; migrations are
    for the rest.
    """

    @asynccontextmanager
    async def live(app: FastAPI) -> AsyncGenerator[dict[str, Database]]:
        used = app.state.database = database or DatabaseService.database()
        if create_tables is not False:
            await used.create_all(None if create_tables is True else create_tables)
        within = app.router.middleware_stack  # innermost, so that no middleware's task comes between
        app.router.middleware_stack = ManagedScope(within, warn_repeated=used.settings.warn_repeated)
        slow = used.settings.slow_query_seconds
        try:
            async with nullcontext() if slow is None else log_slow_queries(used, slow):
                yield {"database": used}
        finally:
            app.router.middleware_stack = within
            await used.close()

    return live


# --- Errors ---------------------------------------------------------------------------------------


def add_error_handlers(app: FastAPI) -> None:
    """Answer the database's errors as an API should: without SQL, parameters or the names of hosts.

    A violated constraint is a 409 with the constraint's name; `NoResultFound` (`scalar_one`, `get_one`) a 404;
    data that does not validate, or that a column cannot hold, and what is no page or write token, a 422; a pool that
    stayed empty, and a server that lets nobody in, a 503 with Retry-After.
    """
    app.add_exception_handler(IntegrityError, _conflict)
    app.add_exception_handler(NoResultFound, _not_found)
    app.add_exception_handler(ValidationError, _invalid)
    app.add_exception_handler(InvalidPage, _not_ours)
    app.add_exception_handler(InvalidToken, _not_ours)
    app.add_exception_handler(PoolTimeout, _overloaded)
    app.add_exception_handler(CannotConnect, _overloaded)
    app.add_exception_handler(StatementError, _statement_failed)
    app.add_exception_handler(RequestValidationError, _bad_request)
    app.add_exception_handler(OverflowError, _too_large)


def _answer(status: int, detail: Any, **more: Any) -> JSONResponse:
    return JSONResponse({"detail": detail, **more}, status)


async def _conflict(request: Request, error: Exception) -> Response:
    assert isinstance(error, IntegrityError)
    violation = violated_constraint(error)
    return _answer(409, violation.message, constraint=violation.constraint)


async def _not_found(request: Request, error: Exception) -> Response:
    return _answer(404, "Not found")


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, ValidationError)
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    if any(fault["type"] == "get_attribute_error" for fault in faults):
        raise error  # an object of ours could not be read: no fault of the client's, and none of its business
    return _answer(422, jsonable_encoder(faults))


async def _not_ours(request: Request, error: Exception) -> Response:
    return _answer(422, str(error))


async def _overloaded(request: Request, error: Exception) -> Response:
    answer = _answer(503, "The database cannot answer now.")
    answer.headers["Retry-After"] = "1"
    return answer


async def _bad_request(request: Request, error: Exception) -> Response:
    # FastAPI's own answer repeats what was sent, a password with a typo in its neighbour included.
    assert isinstance(error, RequestValidationError)
    faults = [{key: each[key] for key in ("type", "loc", "msg")} for each in error.errors()]
    return _answer(422, jsonable_encoder(faults))


async def _statement_failed(request: Request, error: Exception) -> Response:
    if isinstance(error, DataError) or (isinstance(error, DBAPIError) and _is_data_fault(error)):
        return _answer(422, "A value does not fit its column.")
    if isinstance(error, StatementError) and isinstance(error.orig, ValueError | OverflowError):
        return _answer(422, "A value does not fit its column.")
    raise error


async def _too_large(request: Request, error: Exception) -> Response:
    # SQLite's driver raises it bare, so SQLAlchemy does not wrap it.
    if "SQLite INTEGER" in str(error):
        return _answer(422, "A value does not fit its column.")
    raise error


def _is_data_fault(error: DBAPIError) -> bool:
    # Class 22 is "data exception" (PostgreSQL documentation, appendix A).
    return str(getattr(error.orig, "sqlstate", "")).startswith("22")


# --- Health ---------------------------------------------------------------------------------------


class PoolReport(BaseModel):
    """Connections open, lent out now, and the most that may be open."""

    open: int
    lent: int
    limit: int | None


class ReplicaReport(BaseModel):
    """A replica as it was found last; its name and place are nobody's business."""

    in_rotation: bool
    trouble: str | None
    lag_seconds: float | None


class HealthReport(BaseModel):
    """What a probe is told."""

    status: str
    seconds: float
    pool: PoolReport
    error: str | None = None
    replicas: list[ReplicaReport] = []


def health_router(prefix: str = "/health") -> APIRouter:
    """`GET {prefix}/live`: the process answers.  `GET {prefix}/ready`: the database does too, else a 503."""
    router = APIRouter(prefix=prefix, tags=["health"])

    @router.get("/live")
    async def live() -> dict[str, str]:  # pyright: ignore[reportUnusedFunction] - the router holds it
        return {"status": "live"}

    @router.get("/ready", responses={503: {"model": HealthReport}})
    async def ready(request: Request, response: Response) -> HealthReport:  # pyright: ignore[reportUnusedFunction]
        health = await database_of(request).health()
        if not health.ready:
            response.status_code = 503
        pool = PoolReport(open=health.pool.open, lent=health.pool.lent, limit=health.pool.limit)
        status = "ready" if health.ready else "unavailable"
        replicas = [
            ReplicaReport(in_rotation=each.in_rotation, trouble=each.trouble, lag_seconds=each.lag_seconds)
            for each in health.replicas
        ]
        return HealthReport(
            status=status, seconds=health.seconds, pool=pool, error=health.error, replicas=replicas
        )

    return router
