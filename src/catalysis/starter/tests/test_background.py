"""What happens behind the answers, and the steps that a worker can take."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import update
from sqlalchemy.exc import NoResultFound
from sqlmodel import col, select

from catalysis import Database, DatabaseService, include_deleted, watch_queries
from catalysis.starter.app.activities import CleanUpParams, GetUserParams, clean_up, get_user
from catalysis.starter.app.models import Task
from catalysis.starter.tests.world import MANY, World


async def left(database: Database) -> set[str]:
    async with database.session() as db:
        return {each.title for each in await db.exec(select(Task).options(include_deleted()))}


async def delete_long_ago(database: Database, world: World) -> None:
    async with database.session() as db:
        await db.exec(
            update(Task)
            .where(col(Task.id) == world.ids["ann_task"])
            .values(deleted_at=datetime.now(UTC) - timedelta(days=31))
        )
        await db.commit()


async def test_cleaning_up_removes_what_was_deleted_long_ago(
    admin: httpx.AsyncClient, database: Database, world: World
):
    await delete_long_ago(database, world)
    answer = await admin.post("/maintenance/clean-up", json={})
    assert (answer.status_code, answer.json()) == (202, {"status": "accepted"})
    titles = await left(database)
    assert len(titles) == 2 * MANY
    assert "deleted" in titles
    assert "ann's task 0" not in titles


async def test_activities_are_plain_functions(database: Database, world: World):
    DatabaseService.configure(database)
    await delete_long_ago(database, world)
    with watch_queries() as queries:
        user = await get_user(GetUserParams(id=world.ids["ann"]))
    assert (user.username, user.role.name, len(queries)) == ("ann", "member", 1)
    with pytest.raises(NoResultFound):
        await get_user(GetUserParams(id=world.ids["category"]))
    assert (await clean_up(CleanUpParams())).removed == 1
    assert (await clean_up(CleanUpParams())).removed == 0
