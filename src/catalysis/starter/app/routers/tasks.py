"""Tasks: lists, single ones, many at once, and figures about them."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from catalysis import DatabaseDep, KeysetPage, Page, explain, paginate, paginate_keyset
from catalysis.starter.app.dependencies import require_permission
from catalysis.starter.app.dtos.categories import SavedDTO
from catalysis.starter.app.dtos.tasks import (
    ChangedDTO,
    CompleteTasksDTO,
    CreateTaskDTO,
    CreateTaskInCategoryDTO,
    ExplainQuery,
    PlanDTO,
    StatisticsDTO,
    TaskDetailsDTO,
    TaskDTO,
    TaskFeedQuery,
    TaskQuery,
    TasksToCreate,
    UpdateTaskDTO,
)
from catalysis.starter.app.models import User
from catalysis.starter.app.services import statistics, tasks

router = APIRouter(prefix="/tasks", tags=["tasks"])

Reader = Annotated[User, Depends(require_permission("tasks:read"))]
Writer = Annotated[User, Depends(require_permission("tasks:write"))]
Admin = Annotated[User, Depends(require_permission("tasks:admin"))]


@router.get("", summary="List tasks by page")
async def list_tasks(
    db: DatabaseDep, viewer: Reader, query: Annotated[TaskQuery, Query()]
) -> Page[TaskDetailsDTO]:
    """Filtered, ordered, with user and category: one statement for the page, one for the count."""
    statement = tasks.list_tasks(viewer, query, query.order)
    page = await paginate(db, statement, page=query.page, size=query.size)
    return page.map(TaskDetailsDTO.model_validate)


@router.get("/feed", summary="List tasks by cursor")
async def read_feed(
    db: DatabaseDep, viewer: Reader, query: Annotated[TaskFeedQuery, Query()]
) -> KeysetPage[TaskDetailsDTO]:
    """The same list for scrolling: no task is skipped or repeated while others come and go."""
    statement = tasks.list_tasks(viewer, query, query.order)
    page = await paginate_keyset(db, statement, after=query.after, before=query.before, size=query.size)
    return page.map(TaskDetailsDTO.model_validate)


@router.get("/statistics", summary="Count one's own tasks")
async def get_statistics(db: DatabaseDep, viewer: Reader) -> StatisticsDTO:
    """In all, completed, overdue and by category: counted by the database in one statement."""
    return await statistics.count_tasks(db, viewer.id)


@router.get("/explain", summary="Explain the list of tasks")
async def explain_tasks(db: DatabaseDep, viewer: Admin, query: Annotated[ExplainQuery, Query()]) -> PlanDTO:
    """The database's plan for the list, with the very parameters of the query."""
    statement = tasks.list_tasks(viewer, query, query.order)
    return PlanDTO.model_validate(await explain(db, statement, analyze=query.analyze))


@router.post("", status_code=201, summary="Create a task")
async def create_task(db: DatabaseDep, owner: Writer, new: CreateTaskDTO) -> TaskDTO:
    """One's own task, in a category that is there or in none."""
    return TaskDTO.model_validate(await tasks.create_task(db, owner, new))


@router.post("/in-category", status_code=201, summary="Create a task and its category")
async def create_task_in_category(db: DatabaseDep, owner: Writer, new: CreateTaskInCategoryDTO) -> TaskDTO:
    """The category is found by name, or made: both in one transaction."""
    return TaskDTO.model_validate(await tasks.create_task_in_category(db, owner, new))


@router.post("/bulk", status_code=201, summary="Create many tasks")
async def create_tasks(db: DatabaseDep, owner: Writer, new: TasksToCreate) -> SavedDTO:
    """All of them or none."""
    return SavedDTO(ids=await tasks.create_tasks(db, owner, new))


@router.post("/complete", summary="Complete many tasks")
async def complete_tasks(db: DatabaseDep, owner: Writer, wanted: CompleteTasksDTO) -> ChangedDTO:
    """One's own open tasks, by one UPDATE; ids that are not among them count for nothing."""
    return ChangedDTO(changed=await tasks.complete_tasks(db, owner, wanted))


@router.get("/{task_id}", summary="Get a task")
async def get_task(db: DatabaseDep, viewer: Reader, task_id: UUID) -> TaskDetailsDTO:
    """With user and category: one statement."""
    return TaskDetailsDTO.model_validate(await tasks.get_task(db, viewer, task_id))


@router.patch("/{task_id}", summary="Change a task")
async def update_task(
    db: DatabaseDep, viewer: Writer, task_id: UUID, changes: UpdateTaskDTO
) -> TaskDetailsDTO:
    """What is left out stays as it is."""
    return TaskDetailsDTO.model_validate(await tasks.update_task(db, viewer, task_id, changes))


@router.delete("/{task_id}", status_code=204, summary="Delete a task")
async def delete_task(db: DatabaseDep, viewer: Writer, task_id: UUID) -> None:
    """It is marked as deleted, and can be restored until it is cleaned up."""
    await tasks.delete_task(db, viewer, task_id)


@router.post("/{task_id}/restore", summary="Restore a task")
async def restore_task(db: DatabaseDep, viewer: Admin, task_id: UUID) -> TaskDetailsDTO:
    """Take back a deletion."""
    return TaskDetailsDTO.model_validate(await tasks.restore_task(db, task_id))
