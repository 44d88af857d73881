"""What holds for every operation: its statements are counted, its caller is known, its lists have an end."""

import httpx
import pytest
from fastapi import FastAPI

from catalysis import Database, watch_queries
from catalysis.starter.tests.operations import LISTS, OPEN, OPERATIONS
from catalysis.starter.tests.world import World


def described(app: FastAPI) -> dict[str, dict]:
    """The operations of the OpenAPI schema, by their ids."""
    return {
        operation["operationId"]: operation | {"method": method.upper(), "path": path}
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
    }


def test_every_operation_is_in_the_table(app):
    assert set(described(app)) == set(OPERATIONS)
    assert all(each["summary"] and each["tags"] for each in described(app).values())


@pytest.mark.parametrize("name", OPERATIONS)
async def test_statements(name: str, admin: httpx.AsyncClient, world: World, database: Database):
    operation = OPERATIONS[name]
    with watch_queries() as queries:
        answer = await admin.request(**operation.request(world))
    assert answer.status_code == operation.status, answer.text
    assert len(queries) == len(operation.statements(database)), [each.sql for each in queries]


@pytest.mark.parametrize("name", LISTS)
async def test_longer_lists_send_no_more(
    name: str, admin: httpx.AsyncClient, world: World, database: Database
):
    operation = OPERATIONS[name]
    with watch_queries() as queries:
        answer = await admin.request(**operation.request(world, size=7))
    assert len(answer.json()["items"]) == 7
    assert len(queries) == len(operation.statements(database)), [each.sql for each in queries]


async def test_every_list_is_bounded(app, admin: httpx.AsyncClient, world: World):
    lists = {
        name: each
        for name, each in described(app).items()
        if "Page" in str(each["responses"].get("200", {}).get("content", ""))
    }
    assert set(lists) == set(LISTS)
    for name in lists:
        answer = await admin.request(**OPERATIONS[name].request(world, size=101))
        assert answer.status_code == 422, name


async def test_a_token_is_asked_for(login, world: World):
    for name in OPERATIONS.keys() - OPEN:
        answer = await login("").request(**OPERATIONS[name].request(world))
        assert answer.status_code == 401, name
        assert answer.headers["WWW-Authenticate"] == "Bearer"


MEMBERS_MAY = {
    *{"get_me", "update_me", "change_password"},
    *{"list_tasks", "read_feed", "get_statistics", "create_task", "create_task_in_category", "create_tasks"},
    *{"complete_tasks", "list_categories", "get_category", "list_groups", "get_group", "list_members"},
}
HIDDEN = {
    *{"get_task", "update_task", "delete_task", "get_user", "get_user_role", "list_user_groups"},
    *{"list_user_tasks", "get_user_statistics"},
}
"""What Bob may do to what is his; the requests of the table are about Ann's."""


async def test_what_a_member_may_not(bob: httpx.AsyncClient, world: World):
    for name in OPERATIONS.keys() - OPEN - MEMBERS_MAY:
        answer = await bob.request(**OPERATIONS[name].request(world))
        assert answer.status_code == (404 if name in HIDDEN else 403), name


@pytest.mark.parametrize("name", sorted(MEMBERS_MAY))
async def test_what_a_member_may(name: str, bob: httpx.AsyncClient, world: World):
    answer = await bob.request(**OPERATIONS[name].request(world))
    assert answer.status_code == OPERATIONS[name].status


async def test_what_was_not_offered_cannot_be_set(admin: httpx.AsyncClient, world: World):
    for name in [name for name, each in OPERATIONS.items() if isinstance(each.json, dict)]:
        request = OPERATIONS[name].request(world)
        for smuggled in {"id", "user_id", "role_id", "password_hash", "deleted_at"} - request["json"].keys():
            body = request["json"] | {smuggled: str(world.ids["bob"])}
            answer = await admin.request(**request | {"json": body})
            assert answer.status_code == 422, name
            assert answer.json()["detail"][0]["loc"][-1] == smuggled


async def test_unknown_filters_are_refused(admin: httpx.AsyncClient, world: World):
    for name in LISTS:
        for unknown in ("password_hash", "sort", "order_by"):
            answer = await admin.request(**OPERATIONS[name].request(world) | {"params": {unknown: "x"}})
            assert answer.status_code == 422, name


def test_no_answer_shows_a_hash(app):
    assert "password_hash" not in str(app.openapi())
    assert "token_generation" not in str(app.openapi())
