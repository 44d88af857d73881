"""Tasks: whose they are, what can be asked about them, and what becomes of them."""

import asyncio
from uuid import uuid4

import httpx
import pytest
from sqlmodel import select

from catalysis import Database, include_deleted
from catalysis.starter.app.dtos.tasks import TaskOrder
from catalysis.starter.app.models import Category, Task
from catalysis.starter.app.services import tasks
from catalysis.starter.app.services.tasks import ORDERS
from catalysis.starter.tests.world import MANY, World


async def titles(client: httpx.AsyncClient, **params) -> list[str]:
    answer = await client.get("/tasks", params={"size": 100, **params})
    assert answer.status_code == 200, answer.text
    return [each["title"] for each in answer.json()["items"]]


# --- Whose -----------------------------------------------------------------------------------------


async def test_somebody_elses_task_is_not_found(bob: httpx.AsyncClient, world: World):
    path = f"/tasks/{world.ids['ann_task']}"
    answers = [await bob.get(path), await bob.patch(path, json={"title": "x"}), await bob.delete(path)]
    assert {each.status_code for each in answers} == {404}
    assert answers[0].json() == (await bob.get(f"/tasks/{uuid4()}")).json()


async def test_lists_and_figures_are_of_ones_own(
    ann: httpx.AsyncClient, bob: httpx.AsyncClient, world: World
):
    assert all(each.startswith("bob") for each in await titles(bob))
    assert await titles(bob, user_id=world.ids["ann"]) == []
    assert (await bob.post("/tasks/complete", json={"ids": [str(world.ids["ann_task"])]})).json() == {
        "changed": 0
    }
    await bob.post("/tasks/complete", json={"ids": "all"})
    assert (await ann.get("/tasks/statistics")).json()["completed"] == MANY // 4


async def test_an_administrator_sees_everybodys(admin: httpx.AsyncClient, world: World):
    assert len(await titles(admin)) == 2 * MANY
    assert all(each.startswith("ann") for each in await titles(admin, user_id=world.ids["ann"]))
    task = (await admin.get(f"/tasks/{world.ids['ann_task1']}")).json()
    assert (task["user"]["username"], task["category"]["name"]) == ("ann", "category1")


# --- Lists -----------------------------------------------------------------------------------------


async def test_filters(ann: httpx.AsyncClient, world: World):
    assert len(await titles(ann, completed=True)) == len(await titles(ann, status="done")) == MANY // 4
    assert len(await titles(ann, completed=False)) == MANY - MANY // 4
    assert await titles(ann, category_id=world.ids["category"]) == ["ann's task 1"]
    assert await titles(ann, search="TASK 7") == ["ann's task 7"]
    assert await titles(ann, search="%") == []
    assert await titles(ann, priority=5) == []
    assert await titles(ann, due_before="2020-01-01T00:00:00Z") == []


async def test_dates_have_a_time_zone(ann: httpx.AsyncClient):
    assert (await ann.get("/tasks", params={"due_from": "2020-01-01T00:00:00"})).status_code == 422
    assert (await ann.post("/tasks", json={"title": "x", "due": "2020-01-01T00:00:00"})).status_code == 422


def test_what_may_be_ordered_by_is_what_can_be():
    assert set(TaskOrder.__args__) == set(ORDERS)


@pytest.mark.parametrize("order", ORDERS)
async def test_orders(ann: httpx.AsyncClient, order: str):
    for n in (1, 2):
        body = {"title": f"dated {n}", "due": f"2030-01-0{n}T00:00:00+01:00", "priority": n}
        assert (await ann.post("/tasks", json=body)).status_code == 201
    items = (await ann.get("/tasks", params={"order": order, "size": 100})).json()["items"]
    name = order.removeprefix("-")
    values = [each[name] for each in items if each[name] is not None]
    assert values == sorted(values, reverse=order.startswith("-"))
    assert [each[name] for each in items][: len(values)] == values  # those without come last


@pytest.mark.parametrize("order", ORDERS)
async def test_pages_and_feed_give_the_same_tasks(ann: httpx.AsyncClient, order: str):
    await ann.post("/tasks", json={"title": "dated", "due": "2030-01-01T00:00:00Z"})
    every = await titles(ann, order=order)
    pages = [await titles(ann, order=order, size=2, page=n) for n in range(1, 6)]
    feed, cursor = [], {}
    while cursor is not None:
        page = (await ann.get("/tasks/feed", params={"order": order, "size": 2, **cursor})).json()
        feed += [each["title"] for each in page["items"]]
        cursor = page["next_cursor"] and {"after": page["next_cursor"]}
    assert every == [title for page in pages for title in page] == feed
    assert len(set(every)) == MANY + 1


@pytest.mark.parametrize(
    "params", [{"size": 0}, {"size": 101}, {"page": 0}, {"page": 10**30}, {"order": "user_id"}]
)
async def test_bounds_of_pages(ann: httpx.AsyncClient, params: dict):
    assert (await ann.get("/tasks", params=params)).status_code == 422


async def test_a_page_after_the_last_is_empty(ann: httpx.AsyncClient):
    page = (await ann.get("/tasks", params={"page": 1000})).json()
    assert (page["items"], page["total"], page["has_next"]) == ([], MANY, False)


async def test_a_cursor_of_another_order_is_refused(ann: httpx.AsyncClient):
    cursor = (await ann.get("/tasks/feed", params={"size": 2})).json()["next_cursor"]
    for after in (cursor, "nonsense"):
        answer = await ann.get("/tasks/feed", params={"after": after, "order": "title"})
        assert answer.status_code == 422, answer.text


async def test_explain_shows_the_plan_of_the_list(admin: httpx.AsyncClient, world: World):
    plan = (await admin.get("/tasks/explain", params={"user_id": world.ids["ann"], "analyze": True})).json()
    assert "task" in plan["text"]
    assert plan["root"]


# --- Writing ---------------------------------------------------------------------------------------


async def test_status_and_completed_go_together(ann: httpx.AsyncClient, world: World):
    path = f"/tasks/{world.ids['ann_task']}"
    assert (await ann.patch(path, json={"status": "done"})).json()["completed"] is True
    assert (await ann.patch(path, json={"status": "doing"})).json()["completed"] is False
    assert (await ann.patch(path, json={"completed": True})).status_code == 422
    created = await ann.post("/tasks", json={"title": "x", "status": "done"})
    assert created.json()["completed"] is True
    before = (await ann.get("/tasks/statistics")).json()
    assert (await ann.post("/tasks/complete", json={"ids": "all"})).json() == {"changed": before["pending"]}
    after = (await ann.get("/tasks/statistics")).json()
    assert (after["pending"], after["completion_rate"]) == (0, 100)


async def test_a_change_touches_only_what_it_names(ann: httpx.AsyncClient, world: World):
    path = f"/tasks/{world.ids['ann_task1']}"
    before = (await ann.get(path)).json()
    after = (await ann.patch(path, json={"description": "new"})).json()
    assert after.pop("updated_at") > before.pop("updated_at")
    assert after == before | {"description": "new"}
    assert (await ann.patch(path, json={"category_id": None})).json()["category"] is None


@pytest.mark.parametrize("field", ["title", "status", "priority", "description"])
async def test_null_is_no_value_of_a_field_that_needs_one(ann: httpx.AsyncClient, world: World, field: str):
    assert (await ann.patch(f"/tasks/{world.ids['ann_task']}", json={field: None})).status_code == 422


async def test_a_category_must_exist(ann: httpx.AsyncClient, world: World):
    for category in (uuid4(), world.ids["deleted_category"]):
        body = {"title": "x", "category_id": str(category)}
        answers = [
            await ann.post("/tasks", json=body),
            await ann.post("/tasks/bulk", json=[body]),
            await ann.patch(f"/tasks/{world.ids['ann_task']}", json=body),
        ]
        assert [(each.status_code, each.json()["detail"]) for each in answers] == [
            (422, f"There is no category {category}.")
        ] * 3
    assert (await ann.get(f"/tasks/{world.ids['ann_task']}")).json()["title"] == "ann's task 0"


async def test_a_task_and_its_category_are_made_together(ann: httpx.AsyncClient, database: Database):
    bodies = [{"title": f"t{n}", "category_name": "fresh"} for n in range(2)]
    made = [(await ann.post("/tasks/in-category", json=body)).json() for body in bodies]
    async with database.session() as db:
        [category] = (await db.exec(select(Category).where(Category.name == "fresh"))).all()
    assert {each["category_id"] for each in made} == {str(category.id)}


async def test_callers_at_once_make_one_category(ann: httpx.AsyncClient, database: Database):
    body = {"title": "x", "category_name": "fresh"}
    answers = await asyncio.gather(*(ann.post("/tasks/in-category", json=body) for _ in range(5)))
    assert [each.status_code for each in answers] == [201] * 5
    async with database.session() as db:
        assert len((await db.exec(select(Category).where(Category.name == "fresh"))).all()) == 1


async def test_a_category_does_not_stay_without_its_task(
    ann: httpx.AsyncClient, database: Database, monkeypatch
):
    # The body is checked before anything is written, so the fault has to be made here.
    make = tasks._task
    monkeypatch.setattr(
        tasks, "_task", lambda new, *rest: make(new.model_copy(update={"priority": 9}), *rest)
    )
    answer = await ann.post("/tasks/in-category", json={"title": "x", "category_name": "fresh"})
    assert (answer.status_code, answer.json()["constraint"]) == (409, "ck_task_priority")
    async with database.session() as db:
        assert (await db.exec(select(Category).where(Category.name == "fresh"))).all() == []


async def test_many_tasks_are_made_together(ann: httpx.AsyncClient):
    ids = (await ann.post("/tasks/bulk", json=[{"title": f"t{n}"} for n in range(1000)])).json()["ids"]
    assert len(set(ids)) == 1000
    assert (await ann.get(f"/tasks/{ids[7]}")).json()["title"] == "t7"
    assert (await ann.post("/tasks/bulk", json=[{"title": "x"}] * 1001)).status_code == 422
    assert (await ann.post("/tasks/bulk", json=[{"title": "x"}, {"title": ""}])).status_code == 422
    assert (await ann.get("/tasks")).json()["total"] == MANY + 1000


# --- Deleting --------------------------------------------------------------------------------------


async def test_a_deleted_task_is_gone_until_it_is_restored(
    ann: httpx.AsyncClient, admin: httpx.AsyncClient, world: World, database: Database
):
    path = f"/tasks/{world.ids['ann_task']}"
    assert (await ann.delete(path)).status_code == 204
    assert (await ann.get(path)).status_code == (await ann.delete(path)).status_code == 404
    assert "ann's task 0" not in await titles(ann)
    assert (await ann.get("/tasks/statistics")).json()["total"] == MANY - 1
    async with database.session() as db:
        assert await db.get(Task, world.ids["ann_task"], options=[include_deleted()])

    assert (await ann.get("/tasks", params={"include_deleted": True})).status_code == 403
    assert "ann's task 0" in await titles(admin, include_deleted=True)
    assert (await ann.post(f"{path}/restore")).status_code == 403
    assert (await admin.post(f"{path}/restore")).json()["deleted_at"] is None
    assert (await ann.get(path)).status_code == 200


async def test_figures(ann: httpx.AsyncClient, world: World):
    await ann.post("/tasks", json={"title": "late", "due": "2020-01-01T00:00:00Z"})
    figures = (await ann.get("/tasks/statistics")).json()
    done = MANY // 4
    assert figures == {
        "total": MANY + 1,
        "completed": done,
        "pending": MANY + 1 - done,
        "overdue": 1,
        "completion_rate": round(100 * done / (MANY + 1), 1),
        "by_category": [
            *({"category": f"category{n}", "total": 1, "completed": int(n % 4 == 3)} for n in range(1, MANY)),
            {"category": None, "total": 2, "completed": 0},
        ],
    }


async def test_figures_of_nothing(login, world: World):
    figures = (await login("manager").get("/tasks/statistics")).json()
    assert (figures["total"], figures["completion_rate"], figures["by_category"]) == (0, 0, [])
