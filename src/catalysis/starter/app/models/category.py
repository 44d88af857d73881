"""What tasks are sorted into; everybody shares the same categories."""

from typing import TYPE_CHECKING

from sqlalchemy.orm import Mapped
from sqlmodel import Field, Relationship

from catalysis import SoftDelete
from catalysis.starter.app.models.base import Model

if TYPE_CHECKING:
    from catalysis.starter.app.models.task import Task


class Category(SoftDelete, Model, table=True):
    """A name and a colour.  The tasks of a deleted category show none, and have it back when it is restored."""

    name: str = Field(max_length=100, unique=True)
    color: str = Field(default="#808080", max_length=7)

    tasks: Mapped[list["Task"]] = Relationship(back_populates="category", passive_deletes="all")
