"""What there is to do."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, text
from sqlalchemy.orm import Mapped
from sqlmodel import Field, Relationship

from catalysis import SoftDelete
from catalysis.starter.app.models.base import Model
from catalysis.starter.app.models.category import Category
from catalysis.starter.app.models.user import User


class TaskStatus(StrEnum):
    """How far a task is."""

    todo = "todo"
    doing = "doing"
    done = "done"


class Task(SoftDelete, Model, table=True):
    """One thing to do, of one user.  `completed` says in an index what `status` says in words."""

    __table_args__ = (
        CheckConstraint("completed = (status = 'done')", name="completed_is_done"),
        CheckConstraint("priority BETWEEN 1 AND 5", name="priority"),
        # counts of a category, all and completed
        Index("ix_task_category_id_completed", "category_id", "completed"),
        # what is due next: only open tasks are in it, so it stays small
        Index(
            "ix_task_open_by_due",
            "user_id",
            "due",
            postgresql_where=text("NOT completed AND deleted_at IS NULL"),
            sqlite_where=text("completed = 0 AND deleted_at IS NULL"),
        ),
        # a user's newest tasks, the list that is asked for most; serves `user_id` alone as well
        Index("ix_task_user_id_created_at", "user_id", "created_at"),
        # everybody's newest tasks
        Index("ix_task_created_at", "created_at"),
    )

    title: str = Field(max_length=200)
    description: str = Field(default="", max_length=5000)
    status: TaskStatus = Field(default=TaskStatus.todo)
    completed: bool = Field(default=False, index=True)
    priority: int = Field(default=3)
    due: datetime | None = Field(default=None)
    user_id: UUID = Field(foreign_key="user.id", ondelete="CASCADE")
    category_id: UUID | None = Field(default=None, foreign_key="category.id", ondelete="SET NULL")

    user: Mapped[User] = Relationship(back_populates="tasks")
    category: Mapped[Category | None] = Relationship(back_populates="tasks")

    def move_to(self, status: TaskStatus) -> None:
        """Set the status, and `completed` with it."""
        self.status = status
        self.completed = status is TaskStatus.done
