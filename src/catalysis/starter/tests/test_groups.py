"""Groups and memberships."""

from uuid import uuid4

import httpx

from catalysis.starter.tests.world import MANY, World


async def test_members_see_their_groups(bob: httpx.AsyncClient, login, world: World):
    assert [each["name"] for each in (await bob.get("/groups")).json()["items"]] == ["group0"]
    everything = (await login("manager").get("/groups")).json()
    assert everything["total"] == MANY
    other = everything["items"][1]["id"]
    assert (await bob.get(f"/groups/{other}")).status_code == 404
    assert (await bob.get(f"/groups/{other}/members")).status_code == 404


async def test_coming_and_going(bob: httpx.AsyncClient, login, world: World):
    manager = login("manager")
    group = (await manager.post("/groups", json={"name": "new"})).json()["id"]
    path = f"/groups/{group}/members/{world.ids['bob']}"
    assert (await manager.delete(path)).status_code == 404
    first = (await manager.put(path, json={})).json()
    again = (await manager.put(path, json={"standing": "lead"})).json()
    assert (first["standing"], again["standing"]) == ("member", "lead")
    assert (first["joined_at"], first["user"]) == (again["joined_at"], again["user"])
    assert (await bob.get(f"/groups/{group}/members")).json()["total"] == 1
    mine = (await bob.get(f"/users/{world.ids['bob']}/groups")).json()["items"]
    assert [(each["group"]["name"], each["standing"]) for each in mine] == [
        ("group0", "member"),
        ("new", "lead"),
    ]

    assert (await manager.delete(path)).status_code == 204
    assert (await bob.get(f"/groups/{group}")).status_code == 404


async def test_who_and_what_must_exist(admin: httpx.AsyncClient, world: World):
    for group, user in [
        (world.ids["group"], uuid4()),
        (uuid4(), world.ids["ann"]),
        (world.ids["group"], world.ids["deleted_user"]),
        (world.ids["deleted_group"], world.ids["ann"]),
    ]:
        assert (await admin.put(f"/groups/{group}/members/{user}", json={})).status_code == 404


async def test_a_deleted_group_comes_back_with_its_members(admin: httpx.AsyncClient, world: World):
    path = f"/groups/{world.ids['group']}"
    before = (await admin.get(f"{path}/members")).json()
    assert (await admin.delete(path)).status_code == 204
    assert (await admin.get(path)).status_code == (await admin.get(f"{path}/members")).status_code == 404
    assert (await admin.get(f"/users/{world.ids['bob']}/groups")).json()["total"] == 0
    assert (await admin.get("/groups", params={"include_deleted": True})).json()["total"] == MANY + 1
    assert (await admin.post(f"{path}/restore")).status_code == 200
    assert (await admin.get(f"{path}/members")).json() == before


async def test_deleted_groups_are_for_those_who_look_after_groups(ann: httpx.AsyncClient):
    assert (await ann.get("/groups", params={"include_deleted": True})).status_code == 403
