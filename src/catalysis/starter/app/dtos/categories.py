"""Categories."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from catalysis import DTO
from catalysis.starter.app.dtos.fields import Color, Name, left_out
from catalysis.starter.app.dtos.pages import Paging

AT_ONCE = 1000


class CategoryRefDTO(DTO):
    """Which it is, for use inside other answers."""

    id: UUID
    name: str
    color: str


class CategoryDTO(CategoryRefDTO):
    """A category."""

    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None


class CreateCategoryDTO(DTO):
    """A new category."""

    name: Name
    color: Color = "#808080"


class UpdateCategoryDTO(DTO):
    """What is left out stays as it is."""

    name: Name = left_out()
    color: Color = left_out()


class CategoryQuery(Paging):
    """Which categories."""

    search: Name | None = None
    include_deleted: bool = False


CategoriesToSave = Annotated[list[CreateCategoryDTO], Field(min_length=1, max_length=AT_ONCE)]


class SavedDTO(DTO):
    """The ids of what was saved, in the order in which it was sent."""

    ids: list[UUID]
