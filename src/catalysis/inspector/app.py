"""The inspector: an ASGI app that shows what was recorded, to a browser on this machine and to nobody else."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from catalysis.database import Database, DatabaseService
from catalysis.events import current_scope, observe
from catalysis.inspector.access import HEADERS, refusal
from catalysis.inspector.pages import Pages
from catalysis.inspector.recorder import Recorder, unobserved
from catalysis.inspector.records import Limits


class Inspector:
    """Mount it anywhere in an asyncio application, and let it observe for as long as that runs.

    `add_inspector` does both for Starlette and FastAPI.  Elsewhere: `with inspector.observing(): …` around the
    application's life (served by itself, it does so in its own lifespan), and `ManagedScope` around what answers
    requests, so that they are told of.
    """

    def __init__(
        self,
        database: Database | None = None,
        *,
        show_parameters: bool = False,
        limits: Limits | None = None,
    ) -> None:
        """`database` is asked for plans (default: the process's own).

        `show_parameters` keeps and shows the values that statements were sent with, secrets included; without it
        they are not kept, and literals in SQL are masked.
        """
        self._database = database
        self.recorder = Recorder(limits, keeps_parameters=show_parameters)
        self._observing = 0
        self._app: ASGIApp = Starlette(routes=Pages(self).routes())

    @property
    def database(self) -> Database:
        """Which is asked for plans and pool."""
        return self._database or DatabaseService.database()

    @property
    def is_observing(self) -> bool:
        """Whether anything is recorded now."""
        return self._observing > 0

    @contextmanager
    def observing(self) -> Generator[None]:
        """Record what the process sends, for the length of the block."""
        end = observe(self.recorder) if self._observing == 0 else None
        self._observing += 1
        try:
            yield
        finally:
            self._observing -= 1
            if end is not None:
                end()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; refuse websockets."""
        if scope["type"] == "lifespan":
            with self.observing():
                await self._app(scope, receive, send)
        else:
            token = unobserved.set(True)
            try:
                if (own := current_scope()) is not None:
                    self.recorder.ignore(own)
                if scope["type"] == "websocket":
                    await send({"type": "websocket.close", "code": 1000})
                else:
                    await self._answer(scope, receive, _with_headers(send))
            finally:
                unobserved.reset(token)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        reason = refusal(scope)
        app = self._app if reason is None else PlainTextResponse(reason, 403)
        await app(scope, receive, send)


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Any) -> None:
        if message["type"] == "http.response.start":
            given = [each for each in message.get("headers", ()) if each[0].lower() not in _OURS]
            changed: Message = {**message, "headers": [*given, *HEADERS]}
            await send(changed)
        else:
            await send(message)

    return send_with_headers


_OURS = frozenset(name for name, _ in HEADERS)
