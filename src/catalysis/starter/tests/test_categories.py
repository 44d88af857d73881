"""Categories, one by one and many at once."""

import httpx

from catalysis.starter.tests.world import MANY, World


async def test_a_name_is_taken_once_until_it_is_deleted(admin: httpx.AsyncClient, world: World):
    answer = await admin.post("/categories", json={"name": "category1"})
    assert (answer.status_code, answer.json()["constraint"]) == (409, "uq_category_name")
    path = f"/categories/{world.ids['category']}"
    assert (await admin.delete(path)).status_code == 204
    assert (await admin.post("/categories", json={"name": "category1"})).status_code == 201
    answer = await admin.post(f"{path}/restore")
    assert (answer.status_code, answer.json()["constraint"]) == (409, "uq_category_name")


async def test_tasks_outlive_their_category(ann: httpx.AsyncClient, admin: httpx.AsyncClient, world: World):
    task, category = f"/tasks/{world.ids['ann_task1']}", f"/categories/{world.ids['category']}"
    await admin.delete(category)
    assert (await ann.get(task)).json()["category"] is None
    assert {"category": None, "total": 2, "completed": 0} in (await ann.get("/tasks/statistics")).json()[
        "by_category"
    ]
    await admin.post(f"{category}/restore")
    assert (await ann.get(task)).json()["category"]["name"] == "category1"


async def test_saving_many(admin: httpx.AsyncClient, world: World):
    before = (await admin.get(f"/categories/{world.ids['category']}")).json()
    wanted = [{"name": "category1", "color": "#00FF00"}, {"name": "new"}, {"name": "category2"}]
    ids = (await admin.put("/categories", json=wanted)).json()["ids"]
    assert ids[0] == str(world.ids["category"])
    after = (await admin.get(f"/categories/{ids[0]}")).json()
    assert (after["color"], after["created_at"]) == ("#00ff00", before["created_at"])
    assert after["updated_at"] > before["updated_at"]
    assert (await admin.get("/categories")).json()["total"] == MANY + 1

    assert (await admin.put("/categories", json=[{"name": "newest"}, {"name": ""}])).status_code == 422
    assert (await admin.put("/categories", json=[])).status_code == 422
    assert (await admin.get("/categories", params={"search": "NEWEST"})).json()["total"] == 0


async def test_colors_are_colors(admin: httpx.AsyncClient):
    for color in ("red", "#12345", "#12345g", "#123456\n"):
        assert (await admin.post("/categories", json={"name": "x", "color": color})).status_code == 422
