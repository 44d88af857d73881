"""Users: creating, changing, deleting and restoring them, and what is theirs."""

import httpx
import pytest

from catalysis.starter.tests.world import MANY, PASSWORD, World

NEW = {"username": "New.One", "email": "New.One@Example.org", "full_name": "New One", "password": PASSWORD}


async def test_a_new_user_can_log_in_and_is_a_member(admin: httpx.AsyncClient, world: World):
    created = (await admin.post("/users", json=NEW)).json()
    assert (created["username"], created["email"]) == ("new.one", "new.one@example.org")
    assert created["role"]["name"] == "member"
    answer = await admin.post("/auth/token", data={"username": "NEW.one", "password": PASSWORD})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("username", "a b"),
        ("username", "x" * 51),
        ("username", ""),
        ("email", "no address"),
        ("password", "short"),
        ("password", "x" * 129),
        ("full_name", "a\0b"),
        ("full_name", None),
    ],
)
async def test_what_cannot_be(admin: httpx.AsyncClient, field: str, value: str):
    answer = await admin.post("/users", json=NEW | {field: value})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", field]


@pytest.mark.parametrize(
    ("field", "constraint"), [("username", "uq_user_username"), ("email", "uq_user_email")]
)
async def test_what_is_taken(admin: httpx.AsyncClient, world: World, field: str, constraint: str):
    taken = {"username": "ANN", "email": "Ann@example.org"}[field]
    answer = await admin.post("/users", json=NEW | {field: taken})
    assert (answer.status_code, answer.json()) == (
        409,
        {"detail": "It exists already.", "constraint": constraint},
    )


async def test_a_deleted_user_takes_the_tasks_along_and_brings_them_back(
    ann: httpx.AsyncClient, admin: httpx.AsyncClient, world: World
):
    path = f"/users/{world.ids['ann']}"
    await ann.delete(f"/tasks/{world.ids['ann_task1']}")
    assert (await admin.delete(path)).status_code == 204
    assert (await admin.get(path)).status_code == (await admin.delete(path)).status_code == 404
    assert (await admin.get("/tasks", params={"user_id": world.ids["ann"]})).json()["total"] == 0
    assert (await admin.get("/users", params={"search": "ann@"})).json()["items"] == []
    deleted = (await admin.get("/users", params={"search": "ann@", "include_deleted": True})).json()["items"]
    assert deleted[0]["deleted_at"]
    members = (await admin.get(f"/groups/{world.ids['group']}/members", params={"size": 100})).json()["items"]
    assert "ann" not in {each["user"]["username"] for each in members}

    assert (await admin.post(f"{path}/restore")).json()["deleted_at"] is None
    assert (await admin.post(f"{path}/restore")).status_code == 200
    assert (await ann.get("/tasks")).json()["total"] == MANY - 1  # the one deleted before stays so
    assert (await ann.get(f"{path}/groups")).json()["total"] == MANY


async def test_a_deleted_user_frees_the_name(admin: httpx.AsyncClient, world: World):
    path = f"/users/{world.ids['ann']}"
    await admin.delete(path)
    assert (await admin.post("/users", json=NEW | {"username": "ann"})).status_code == 201
    answer = await admin.post(f"{path}/restore")
    assert (answer.status_code, answer.json()["constraint"]) == (409, "uq_user_username")


async def test_nobody_deletes_themselves(admin: httpx.AsyncClient, world: World):
    assert (await admin.delete(f"/users/{world.ids['admin']}")).status_code == 409


async def test_a_deleted_owner_is_not_shown_with_a_task(admin: httpx.AsyncClient, world: World):
    await admin.delete(f"/users/{world.ids['ann']}")
    path = f"/tasks/{world.ids['ann_task']}"
    assert (await admin.post(f"{path}/restore")).status_code == 200
    assert (await admin.get(path)).json()["user"] is None


async def test_filters(login, world: World):
    manager = login("manager")
    found = await manager.get(
        "/users", params={"role_id": world.ids["role"], "size": 100, "order": "-username"}
    )
    names = [each["username"] for each in found.json()["items"]]
    assert names == sorted(names, reverse=True)
    assert len(names) == MANY + 2
    assert (await manager.get("/users", params={"is_active": False})).json()["total"] == 0
    assert (await manager.get("/users", params={"include_deleted": True})).status_code == 403


async def test_one_sees_oneself(ann: httpx.AsyncClient, world: World):
    path = f"/users/{world.ids['ann']}"
    assert (await ann.get(path)).json()["username"] == "ann"
    assert (await ann.get(f"{path}/role")).json()["name"] == "member"
    assert (await ann.get(f"{path}/tasks")).json()["total"] == MANY
    assert (await ann.get(f"{path}/groups")).json()["total"] == MANY
    assert (await ann.get(f"{path}/statistics")).json() == (await ann.get("/tasks/statistics")).json()


async def test_to_see_users_is_not_to_see_their_tasks(login, world: World):
    manager, path = login("manager"), f"/users/{world.ids['ann']}"
    assert (await manager.get(path)).status_code == 200
    assert (await manager.get(f"{path}/tasks")).status_code == 404
    assert (await manager.get(f"{path}/statistics")).status_code == 404
