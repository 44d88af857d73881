"""ASGI: every request and websocket in a managed scope of its own."""

import warnings
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from catalysis.errors import RepeatedQuery
from catalysis.loading.managed import managed
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
            await self.app(scope, receive, send)
        elif self.warn_repeated is None:
            await managed(self.app(scope, receive, send))
        else:
            with watch_queries() as queries:
                try:
                    await managed(self.app(scope, receive, send))
                finally:
                    for each in queries.repeated(self.warn_repeated):
                        said = f"{scope.get('method', 'websocket')} {scope['path']}: {each}"
                        warnings.warn_explicit(RepeatedQuery(said), None, each.file, each.line)
