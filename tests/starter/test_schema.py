"""Whatever the OpenAPI schema allows, and much that it does not, is answered without a server error.

Schemathesis makes the requests.  They are sent by one event loop, since an engine belongs to one.
"""

import asyncio
import os
from collections import defaultdict
from contextlib import suppress
from itertools import chain
from typing import Any
from uuid import UUID

import httpx
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from sqlmodel import col, select

from catalysis import Database
from catalysis.starter.app.main import create_app
from catalysis.starter.app.models import Category, Group, Role, Task, User
from catalysis.starter.app.permissions import ADMIN
from catalysis.starter.app.prepare import prepare
from catalysis.starter.app.settings import AppSettings
from catalysis.starter.app.tokens import sign_token

SETTINGS = AppSettings.load(secret_key="only for tests, and long enough for HS256")
EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "4"))
"""Requests for each operation that fit the schema; as many that do not are sent, too."""

MANY = 16
"""Rows of each table that the requests are about: enough that no operation finds what another has deleted."""

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]

HARD_TO_GUESS = {"log_in", "change_password"}
"""Operations that succeed only with a password."""

known_ids: list[str] = []
"""Ids of rows that are there, for bodies and filters; of all tables, so most of them do not fit."""

schemathesis.openapi.format(
    "uuid", st.integers(0, 10**6).map(lambda n: known_ids[n % len(known_ids)]) | st.uuids().map(str)
)


async def _seed(database: Database) -> tuple[dict[str, list[UUID]], str]:
    """Ids by the names of path parameters, and the token of the administrator, who is not among them."""
    await prepare(database, with_demo=True)
    async with database.session() as db:
        db.add_all([Role(name=f"role{number}") for number in range(MANY)])
        await db.commit()
        admin = (await db.exec(select(User).where(User.username == ADMIN))).one()
        ids = {
            f"{table.__name__.lower()}_id": list(
                await db.scalars(select(table.id).order_by(col(table.id).desc()).limit(MANY))
            )
            for table in (Role, Category, User, Group, Task)
        }
        return ids, sign_token(admin, SETTINGS)


def _as_httpx(case: Any) -> dict[str, Any]:
    request = case.as_transport_kwargs(base_url="http://test")
    request.pop("cookies", None)
    if isinstance(request.get("data"), bytes):
        request["content"] = request.pop("data")
    return request


def _try(operation: APIOperation, strategy: Any, send: Any) -> list[int]:
    statuses: list[int] = []

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def go(case: Any) -> None:
        response = send(_as_httpx(case))
        statuses.append(response.status_code)
        case.validate_response(response, checks=CHECKS)

    go()
    return statuses


def test_no_request_breaks_it(backend_url: str):
    with asyncio.Runner() as runner:
        database = Database(backend_url)
        ids, token = runner.run(_seed(database))
        known_ids[:] = [str(each) for each in chain(*(each[:3] for each in ids.values()))]
        app: FastAPI = create_app(SETTINGS, database)
        client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False),
            headers={"Authorization": f"Bearer {token}"},
        )

        def send(request: dict[str, Any]) -> httpx.Response:
            return runner.run(client.request(**request))

        schema = schemathesis.openapi.from_dict(app.openapi())
        succeeded: dict[str, int] = defaultdict(int)
        for number, result in enumerate(schema.get_all_operations()):
            operation = result.ok()
            name = operation.definition.raw["operationId"]
            wanted = {each.name for each in operation.path_parameters}
            real = {each: str(ids[each][number % len(ids[each])]) for each in wanted}
            fitting = operation.as_strategy(path_parameters=real or None)
            for status in _try(operation, fitting, send):
                succeeded[name] += status < 400
            with suppress(Unsatisfiable):  # what takes nothing cannot be given anything wrong
                _try(operation, operation.as_strategy(generation_mode=GenerationMode.NEGATIVE), send)
        runner.run(client.aclose())
        runner.run(database.close())
    assert {name for name, times in succeeded.items() if not times} <= HARD_TO_GUESS
