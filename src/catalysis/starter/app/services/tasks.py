"""Tasks: one's own, or everybody's for those who have `tasks:admin`."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, not_
from sqlalchemy.exc import NoResultFound
from sqlalchemy.orm import joinedload
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from catalysis import Session, bulk_insert, delete_where, include_deleted, update_where
from catalysis.starter.app.dtos.tasks import (
    CompleteTasksDTO,
    CreateTaskDTO,
    CreateTaskInCategoryDTO,
    NewTask,
    TaskFilter,
    TaskOrder,
    UpdateTaskDTO,
)
from catalysis.starter.app.errors import UnknownReference
from catalysis.starter.app.models import Category, Task, TaskStatus, User
from catalysis.starter.app.services.categories import category_named, referred_category
from catalysis.starter.app.services.visibility import deleted_too

ORDERS: dict[TaskOrder, ColumnElement[Any]] = {
    "created_at": col(Task.created_at).asc(),
    "-created_at": col(Task.created_at).desc(),
    # said for both, because the databases differ in where they put nulls
    "due": col(Task.due).asc().nulls_last(),
    "-due": col(Task.due).desc().nulls_last(),
    "priority": col(Task.priority).asc(),
    "-priority": col(Task.priority).desc(),
    "title": col(Task.title).asc(),
    "-title": col(Task.title).desc(),
}
"""What a list may be ordered by; no other name reaches the database."""

WITH_DETAILS = (joinedload(Task.user), joinedload(Task.category))


def within_reach(viewer: User) -> list[ColumnElement[bool]]:
    """The criteria that keep the viewer to tasks of their own; none for those who may see all."""
    return [] if viewer.may("tasks:admin") else [col(Task.user_id) == viewer.id]


def list_tasks(viewer: User, wanted: TaskFilter, order: TaskOrder) -> SelectOfScalar[Task]:
    """The statement for the tasks that are asked for, with their users and categories."""
    statement = (
        select(Task)
        .where(*within_reach(viewer), *_criteria(wanted))
        .options(*WITH_DETAILS)
        .order_by(ORDERS[order])
    )
    return deleted_too(statement, viewer, "tasks:admin") if wanted.include_deleted else statement


def _criteria(wanted: TaskFilter) -> list[ColumnElement[bool]]:
    criteria: list[ColumnElement[bool]] = []
    if wanted.search:
        criteria.append(col(Task.title).icontains(wanted.search, autoescape=True))
    if wanted.status is not None:
        criteria.append(col(Task.status) == wanted.status)
    if wanted.completed is not None:
        open_ = not_(col(Task.completed))
        criteria.append(not_(open_) if wanted.completed else open_)
    if wanted.priority is not None:
        criteria.append(col(Task.priority) == wanted.priority)
    if wanted.category_id is not None:
        criteria.append(col(Task.category_id) == wanted.category_id)
    if wanted.user_id is not None:
        criteria.append(col(Task.user_id) == wanted.user_id)
    if wanted.due_from is not None:
        criteria.append(col(Task.due) >= wanted.due_from)
    if wanted.due_before is not None:
        criteria.append(col(Task.due) < wanted.due_before)
    return criteria


async def get_task(db: Session, viewer: User, task_id: UUID) -> Task:
    """The task with user and category; somebody else's is not found."""
    statement = select(Task).where(Task.id == task_id, *within_reach(viewer)).options(*WITH_DETAILS)
    return (await db.exec(statement)).one()


async def create_task(db: Session, owner: User, new: CreateTaskDTO) -> Task:
    """A new task in a category that is there."""
    await referred_category(db, new.category_id)
    task = _task(new, owner, new.category_id)
    db.add(task)
    await db.commit()
    return task


async def create_task_in_category(db: Session, owner: User, new: CreateTaskInCategoryDTO) -> Task:
    """A new task, and its category if that is new too: both or neither."""
    task = _task(new, owner, await category_named(db, new.category_name))
    db.add(task)
    await db.commit()
    return task


async def create_tasks(db: Session, owner: User, new: Sequence[CreateTaskDTO]) -> list[UUID]:
    """Many new tasks; their ids, in order."""
    wanted = {each.category_id for each in new if each.category_id is not None}
    known = (await db.exec(select(Category.id).where(col(Category.id).in_(wanted)))).all() if wanted else ()
    if missing := wanted.difference(known):
        raise UnknownReference(f"There is no category {min(missing)}.")
    ids: list[UUID] = await bulk_insert(
        db, Task, (_task(each, owner, each.category_id) for each in new), returning=True
    )
    await db.commit()
    return ids


async def complete_tasks(db: Session, owner: User, wanted: CompleteTasksDTO) -> int:
    """Complete the owner's open tasks, those with the ids or all, by one statement; how many it changed."""
    chosen = () if wanted.ids == "all" else (col(Task.id).in_(wanted.ids),)
    changed = await update_where(
        db,
        Task,
        col(Task.user_id) == owner.id,
        not_(col(Task.completed)),
        *chosen,
        values={"status": TaskStatus.done, "completed": True},
    )
    await db.commit()
    return changed


async def update_task(db: Session, viewer: User, task_id: UUID, changes: UpdateTaskDTO) -> Task:
    """Change what `changes` gives."""
    task = await get_task(db, viewer, task_id)
    given = changes.model_fields_set
    if "category_id" in given:  # first, so that finding it does not flush the other changes by themselves
        task.category = await referred_category(db, changes.category_id)
    task.sqlmodel_update(changes.model_dump(exclude_unset=True, exclude={"status", "category_id"}))
    if "status" in given:
        task.move_to(changes.status)
    await db.commit()
    return task


async def delete_task(db: Session, viewer: User, task_id: UUID) -> None:
    """Mark the task as deleted."""
    if not await delete_where(db, Task, col(Task.id) == task_id, *within_reach(viewer)):
        raise NoResultFound("no such task")
    await db.commit()


async def restore_task(db: Session, task_id: UUID) -> Task:
    """Take back a deletion."""
    task = await db.get_one(Task, task_id, options=[include_deleted(), *WITH_DETAILS])
    await db.restore(task)
    await db.commit()
    return task


def _task(new: NewTask, owner: User, category_id: UUID | None) -> Task:
    return Task(
        title=new.title,
        description=new.description,
        status=new.status,
        completed=new.status is TaskStatus.done,
        priority=new.priority,
        due=new.due,
        user_id=owner.id,
        category_id=category_id,
    )
