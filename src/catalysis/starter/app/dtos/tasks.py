"""Tasks, and the questions asked about them."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field

from catalysis import DTO
from catalysis.starter.app.dtos.categories import AT_ONCE, CategoryRefDTO
from catalysis.starter.app.dtos.fields import LongText, Name, Priority, ShortText, Title, left_out
from catalysis.starter.app.dtos.pages import MAX_SIZE, Paging
from catalysis.starter.app.dtos.users import UserRefDTO
from catalysis.starter.app.models import TaskStatus

TaskOrder = Literal["created_at", "-created_at", "due", "-due", "priority", "-priority", "title", "-title"]


class TaskDTO(DTO):
    """A task, with its owner and category by id."""

    id: UUID
    title: str
    description: str
    status: TaskStatus
    completed: bool
    priority: int
    due: datetime | None
    user_id: UUID
    category_id: UUID | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None


class TaskDetailsDTO(TaskDTO):
    """A task with its owner and its category; who or what is deleted is null."""

    user: UserRefDTO | None
    category: CategoryRefDTO | None


class NewTask(DTO):
    """What a new task may say of itself; whose it is, the token says."""

    title: Title
    description: LongText = ""
    status: TaskStatus = TaskStatus.todo
    priority: Priority = 3
    due: AwareDatetime | None = None


class CreateTaskDTO(NewTask):
    """A new task, in a category that exists."""

    category_id: UUID | None = None


class CreateTaskInCategoryDTO(NewTask):
    """A new task, in a category that is made if it does not exist."""

    category_name: Name


TasksToCreate = Annotated[list[CreateTaskDTO], Field(min_length=1, max_length=AT_ONCE)]


class UpdateTaskDTO(DTO):
    """What is left out stays as it is."""

    title: Title = left_out()
    description: LongText = left_out()
    status: TaskStatus = left_out()
    priority: Priority = left_out()
    due: AwareDatetime | None = None
    category_id: UUID | None = None


class CompleteTasksDTO(DTO):
    """Which open tasks are done: those with these ids, or all."""

    ids: Annotated[list[UUID], Field(min_length=1, max_length=AT_ONCE)] | Literal["all"]


class ChangedDTO(DTO):
    """How many rows were changed."""

    changed: int


class TaskFilter(DTO):
    """Which tasks.  One's own; of everybody, or of `user_id`, for those who may."""

    search: ShortText | None = None
    status: TaskStatus | None = None
    completed: bool | None = None
    priority: Priority | None = None
    category_id: UUID | None = None
    user_id: UUID | None = None
    due_from: AwareDatetime | None = None
    due_before: AwareDatetime | None = None
    include_deleted: bool = False


class TaskQuery(TaskFilter, Paging):
    """Which page of which tasks, in which order."""

    order: TaskOrder = "-created_at"


class TaskFeedQuery(TaskFilter):
    """Which tasks, after or before the place that a cursor of an earlier answer marks."""

    order: TaskOrder = "-created_at"
    size: int = Field(default=20, ge=1, le=MAX_SIZE)
    after: str | None = None
    before: str | None = None


class ExplainQuery(TaskFilter):
    """Which list to explain; `analyze` runs it, where the database can, and measures."""

    order: TaskOrder = "-created_at"
    analyze: bool = False


class PlanNodeDTO(DTO):
    """One step of a plan; what the database does not tell is null."""

    label: str
    relation: str | None
    index: str | None
    total_cost: float | None
    estimated_rows: float | None
    actual_rows: float | None
    actual_ms: float | None
    children: list["PlanNodeDTO"]


class PlanDTO(DTO):
    """How the database answers the list: in its own words, and as a tree."""

    text: str
    analyzed: bool
    root: PlanNodeDTO


class CategoryCountDTO(DTO):
    """The tasks of one category; None stands for those without."""

    category: str | None
    total: int
    completed: int


class StatisticsDTO(DTO):
    """Counts of a user's tasks; `completion_rate` is in percent."""

    total: int
    completed: int
    pending: int
    overdue: int
    completion_rate: float
    by_category: list[CategoryCountDTO]


class CleanUpDTO(DTO):
    """Tasks that were deleted longer ago than this are removed for good."""

    older_than_days: int = Field(default=30, ge=1, le=3650)


class AcceptedDTO(DTO):
    """It was begun, and goes on after this answer."""

    status: Literal["accepted"] = "accepted"
