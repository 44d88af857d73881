"""What the application answers when it cannot do as it was told."""

import httpx

from catalysis.starter.tests.world import World

SQL = ("select", "insert", "update ", "where", "sqlalchemy", "asyncpg", "sqlite", "argon2", "traceback")


async def test_no_refusal_shows_sql(admin: httpx.AsyncClient, world: World):
    group = f"/groups/{world.ids['group']}"
    answers = [
        await admin.get("/tasks/not-an-id"),
        await admin.get(f"/tasks/{world.ids['category']}"),
        await admin.post("/categories", json={"name": "category1"}),
        await admin.delete(f"/roles/{world.ids['role']}"),
        await admin.put(f"/users/{world.ids['ann']}/role", json={"role_id": str(world.ids["ann"])}),
        await admin.patch(group, json={"name": "group1"}),
        await admin.get("/tasks", params={"due_before": "0001-01-01T00:00:00+14:00"}),
        await admin.post("/tasks", json={"title": "x", "due": "9999-12-31T23:59:59-14:00"}),
        await admin.post("/categories", content=b"\xff"),
        await admin.post("/categories", content=rb'{"name": "\ud800"}'),
    ]
    assert [each.status_code for each in answers] == [422, 404, 409, 409, 404, 409, 422, 422, 422, 422]
    for answer in answers:
        assert "detail" in answer.json()
        assert not any(word in answer.text.lower() for word in SQL), answer.text


async def test_the_way_in(login, world: World):
    client = login("")
    assert (await client.get("/")).headers["location"] == "/docs"
    page = await client.get("/docs")
    assert page.status_code == 200
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"):
        assert f"/static-offline-docs/{asset}" in page.text
        assert (await client.get(f"/static-offline-docs/{asset}")).status_code == 200
    assert "https://" not in page.text
