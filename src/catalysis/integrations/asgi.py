"""ASGI: every request and websocket in a managed scope of its own."""

import warnings
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from catalysis.engine.routing import share_no_more
from catalysis.errors import RepeatedQuery
from catalysis.events import is_heard, scoped
from catalysis.loading.managed import in_own_scope
from catalysis.tools.watch import watch_queries

Message = MutableMapping[str, Any]
Application = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


class ManagedScope:
    """Middleware: the application inside answers in a managed scope, its response included.

    Put it innermost: a middleware between it and the routes that starts a task of its own (Starlette's
    `BaseHTTPMiddleware`, `@app.middleware("http")`) would be outside.  `lifespan` of the FastAPI integration puts
    it right around the router.
    """

    def __init__(self, app: Application, *, warn_repeated: int | None = None) -> None:
        """`warn_repeated`: warn `RepeatedQuery` when a request sends a statement from one line so many times."""
        self.app = app
        self.warn_repeated = warn_repeated

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        share_no_more()
        if self.warn_repeated is None and not is_heard():
            await in_own_scope(self.app(scope, receive, send))
        elif self.warn_repeated is None:
            await self._answer(scope, receive, send)
        else:
            with watch_queries() as queries:
                try:
                    await self._answer(scope, receive, send)
                finally:
                    for each in queries.repeated(self.warn_repeated):
                        said = f"{scope.get('method', 'websocket')} {scope['path']}: {each}"
                        warnings.warn_explicit(RepeatedQuery(said), None, each.file, each.line)

    async def _answer(self, scope: Message, receive: Any, send: Any) -> None:
        kind = "request" if scope["type"] == "http" else "websocket"
        with scoped(kind, _name_of(scope), lambda: _name_of(scope) if "route" in scope else None) as told:

            async def heard_send(message: Message) -> None:
                if message["type"] == "http.response.start":
                    told.outcome = str(message["status"])
                await send(message)

            try:
                await in_own_scope(self.app(scope, receive, heard_send))
            except Exception as error:
                # Starlette's HTTPException, of a path that no route answers: a middleware outside makes a 404 of it.
                told.outcome = str(getattr(error, "status_code", type(error).__name__))
                raise
            finally:
                told.scope.name = _name_of(scope)


_WORDS = 1_000
_words: set[str] = set()
"""Parts of paths that stand in routes as they are: of those seen so far, and of no more than `_WORDS`."""


def _name_of(scope: Message) -> str:
    """Method and path, with the route's placeholders once that is known: what stands in a path may be secret.

    Before that, and where there is no route, only such parts are shown as are known to stand in routes.
    """
    known = {str(value): f"{{{name}}}" for name, value in scope.get("path_params", {}).items() if value}
    path = getattr(scope.get("route"), "path", None)
    if path is not None:
        mounted = _mounted_at(scope).split("/")
        path = "/".join(part if part in _words else known.get(part, part) for part in mounted) + path
        if len(_words) < _WORDS:
            _words.update(part for part in path.split("/") if "{" not in part)
    else:
        parts = scope["path"].split("/")
        path = "/".join(known.get(part) or (part if not part or part in _words else "…") for part in parts)
    return f"{scope.get('method', 'WEBSOCKET')} {path}"


def _mounted_at(scope: Message) -> str:
    """Where the application that has the route is mounted; empty for the outermost.  Source: Starlette, `Mount`."""
    return scope.get("root_path", "").removeprefix(scope["app_root_path"]) if "app_root_path" in scope else ""
