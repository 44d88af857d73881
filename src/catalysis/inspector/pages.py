"""The pages: each one is made here from views and a template, whole or as the fragment that has changed."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from catalysis.inspector import figures, views
from catalysis.inspector.advising import Advised, advised
from catalysis.inspector.explaining import Explained, explained
from catalysis.inspector.records import Statement
from catalysis.inspector.sql_html import highlighted, highlighted_line, prose

if TYPE_CHECKING:
    from catalysis.inspector.app import Inspector

_FILTERS: dict[str, Callable[..., str]] = {
    "duration": figures.duration,
    "number": figures.number,
    "percent": figures.percent,
    "clock": figures.clock,
    "iso": figures.iso,
    "place": figures.place,
    "prose": prose,
    "sql": highlighted,
    "sql_line": highlighted_line,
    "of_100": figures.of_100,
}


def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("catalysis.inspector"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(_FILTERS)
    return made


class Pages:
    """All answers of one inspector."""

    def __init__(self, inspector: "Inspector") -> None:
        self._inspector = inspector
        self._recorder = inspector.recorder
        self._templates = _templates()

    def routes(self) -> list[BaseRoute]:
        """Where they are, below the path that the inspector is mounted at."""
        return [
            Route("/", self._scopes),
            Route("/scopes/{number:int}", self._scope),
            Route("/statements", self._statements),
            Route("/statements/{number:int}", self._statement),
            Route("/statements/{number:int}/analyze", self._analyze, methods=["POST"]),
            Route("/statements/{number:int}/advice", self._advise, methods=["POST"]),
            Route("/transactions", self._transactions),
            Route("/clear", self._clear, methods=["POST"]),
            Mount("/static", StaticFiles(directory=Path(__file__).parent / "static")),
        ]

    # --- Pages ------------------------------------------------------------------------------------

    async def _scopes(self, request: Request) -> Response:
        wanted = request.query_params.get("q", "")[:200]
        with self._recorder.reading():
            if self._is_unchanged(request):
                return Response(status_code=204)
            return self._page(
                request,
                "scopes.html",
                wanted=wanted,
                scopes=views.scope_list(self._recorder, wanted),
            )

    async def _scope(self, request: Request) -> Response:
        with self._recorder.reading():
            scope = self._recorder.scope(request.path_params["number"])
            if scope is None:
                return self._gone(request, "This request")
            if self._is_unchanged(request):
                return Response(status_code=204)
            each = "each" in request.query_params
            page = views.scope_page(self._recorder, scope, grouped=not each)
            return self._page(request, "scope.html", page=page, row=page.row, each=each)

    async def _statements(self, request: Request) -> Response:
        order = request.query_params.get("sort", "total")
        wanted = request.query_params.get("q", "")[:200]
        if order not in views.ORDERS:
            raise HTTPException(404)
        with self._recorder.reading():
            if self._is_unchanged(request):
                return Response(status_code=204)
            statements = views.statement_list(self._recorder.statements(), order, wanted)
            whole = sum(each.seconds for each in statements) or 1e-9
            return self._page(
                request, "statements.html", wanted=wanted, order=order, statements=statements, whole=whole
            )

    async def _transactions(self, request: Request) -> Response:
        with self._recorder.reading():
            if self._is_unchanged(request):
                return Response(status_code=204)
            recorder = self._recorder
            return self._page(
                request,
                "transactions.html",
                pool=self._inspector.database.pool_figures(all_loops=True),
                replicas=self._inspector.database.replica_health(),
                running=views.transaction_rows(recorder, recorder.open_transactions()),
                ended=views.transaction_rows(recorder, recorder.ended_transactions()[: views.SHOWN_SCOPES]),
            )

    async def _statement(self, request: Request) -> Response:
        statement = self._find(request)
        if statement is None:
            return self._gone(request, "This statement")
        return self._statement_page(request, statement, await self._explain(statement))

    async def _analyze(self, request: Request) -> Response:
        statement = self._find(request)
        if statement is None:
            return self._gone(request, "This statement")
        if not self._can_analyze(statement):
            raise HTTPException(409, "Its values are not kept, so it cannot be executed.")
        return self._statement_page(request, statement, await self._explain(statement, analyze=True))

    async def _advise(self, request: Request) -> Response:
        statement = self._find(request)
        if statement is None:
            return self._gone(request, "This statement")
        advice = await advised(
            self._inspector.database,
            statement,
            shows_values=self._recorder.keeps_parameters,
            in_transaction="try" in request.query_params,
        )
        return self._statement_page(request, statement, await self._explain(statement), advice)

    async def _clear(self, request: Request) -> Response:
        self._recorder.clear()
        return RedirectResponse(_base(request) + "/", 303)

    # --- Parts ------------------------------------------------------------------------------------

    def _find(self, request: Request) -> Statement | None:
        with self._recorder.reading():
            return self._recorder.statement(request.path_params["number"])

    def _can_analyze(self, statement: Statement) -> bool:
        return self._recorder.keeps_parameters and statement.parameters is not None

    async def _explain(self, statement: Statement, *, analyze: bool = False) -> Explained:
        return await explained(
            self._inspector.database,
            statement,
            shows_values=self._recorder.keeps_parameters,
            analyze=analyze,
        )

    def _statement_page(
        self, request: Request, statement: Statement, plan: Explained, advice: Advised | None = None
    ) -> Response:
        with self._recorder.reading():
            sites = sorted(statement.sites.items(), key=lambda each: -each[1])
            return self._page(
                request,
                "statement.html",
                statement=statement,
                plan=plan,
                advice=advice,
                sites=sites,
                history=views.history(statement),
                can_analyze=self._can_analyze(statement),
            )

    def _gone(self, request: Request, what: str) -> Response:
        return self._page(request, "gone.html", status=404, what=what)

    # --- Fragments --------------------------------------------------------------------------------

    def _version(self) -> str:
        """Another one whenever a page would look different."""
        if self._recorder.changes_by_itself():
            return f"{self._recorder.version}.{int(time.time())}"
        return str(self._recorder.version)

    def _is_unchanged(self, request: Request) -> bool:
        return "fragment" in request.query_params and request.query_params.get("since") == self._version()

    def _page(self, request: Request, template: str, *, status: int = 200, **shown: Any) -> Response:
        version = self._version()
        text = self._templates.get_template(template).render(
            base=_base(request),
            layout="fragment.html" if "fragment" in request.query_params else "page.html",
            version=version,
            is_observing=self._inspector.is_observing,
            address=self._inspector.database.address,
            shows_parameters=self._recorder.keeps_parameters,
            **shown,
        )
        return HTMLResponse(text, status, headers={"x-version": version})


def _base(request: Request) -> str:
    return str(request.scope.get("root_path", "")).rstrip("/")
