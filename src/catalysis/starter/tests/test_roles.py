"""Roles: what they allow, and what is kept from being broken."""

import httpx

from catalysis.starter.tests.world import MANY, World


async def test_a_role_allows_what_it_holds(ann: httpx.AsyncClient, admin: httpx.AsyncClient, world: World):
    body = {"name": "librarian", "permissions": ["categories:write"]}
    role = (await admin.post("/roles", json=body)).json()
    await admin.put(f"/users/{world.ids['ann']}/role", json={"role_id": role["id"]})
    assert (await ann.post("/categories", json={"name": "new"})).status_code == 201
    assert (await ann.get("/tasks")).status_code == 403

    changed = await admin.patch(f"/roles/{role['id']}", json={"permissions": ["tasks:read"]})
    assert [each["name"] for each in changed.json()["permissions"]] == ["tasks:read"]
    assert (await ann.post("/categories", json={"name": "newer"})).status_code == 403
    assert (await ann.get("/tasks")).status_code == 200


async def test_a_permission_must_be_one(admin: httpx.AsyncClient):
    assert (
        await admin.post("/roles", json={"name": "x", "permissions": ["tasks:everything"]})
    ).status_code == 422


async def test_a_role_that_somebody_has_stays(admin: httpx.AsyncClient, world: World):
    role = world.ids["spare_role"]
    await admin.put(f"/users/{world.ids['ann']}/role", json={"role_id": str(role)})
    answer = await admin.delete(f"/roles/{role}")
    assert answer.status_code == 409
    assert (await admin.get(f"/roles/{role}")).status_code == 200


async def test_what_the_code_relies_on_stays(admin: httpx.AsyncClient, world: World):
    path = f"/roles/{world.roles['admin'].id}"
    assert (await admin.delete(path)).status_code == 409
    assert (await admin.patch(path, json={"name": "root"})).status_code == 409
    assert (await admin.patch(path, json={"permissions": []})).status_code == 409
    assert (await admin.patch(path, json={"description": "new", "name": "admin"})).status_code == 200
    assert (await admin.get("/users")).status_code == 200


async def test_a_name_is_taken_once(admin: httpx.AsyncClient, world: World):
    answer = await admin.post("/roles", json={"name": "admin"})
    assert (answer.status_code, answer.json()["constraint"]) == (409, "uq_role_name")


async def test_the_users_of_a_role(admin: httpx.AsyncClient, world: World):
    users = (await admin.get(f"/roles/{world.ids['role']}/users", params={"size": 100})).json()["items"]
    assert len(users) == MANY + 2
    assert (await admin.get(f"/roles/{world.ids['ann']}/users")).status_code == 404
