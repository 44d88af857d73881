"""Categories: seen by everybody, changed by those who may."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from catalysis import DatabaseDep, Page, paginate
from catalysis.starter.app.dependencies import CurrentUser, require_permission
from catalysis.starter.app.dtos.categories import (
    CategoriesToSave,
    CategoryDTO,
    CategoryQuery,
    CreateCategoryDTO,
    SavedDTO,
    UpdateCategoryDTO,
)
from catalysis.starter.app.models import User
from catalysis.starter.app.services import categories

router = APIRouter(prefix="/categories", tags=["categories"])

Writer = Annotated[User, Depends(require_permission("categories:write"))]


@router.get("", summary="List categories")
async def list_categories(
    db: DatabaseDep, viewer: CurrentUser, query: Annotated[CategoryQuery, Query()]
) -> Page[CategoryDTO]:
    """By name."""
    page = await paginate(db, categories.list_categories(viewer, query), page=query.page, size=query.size)
    return page.map(CategoryDTO.model_validate)


@router.post("", status_code=201, summary="Create a category")
async def create_category(db: DatabaseDep, writer: Writer, new: CreateCategoryDTO) -> CategoryDTO:
    """A name that is there already is a 409."""
    return CategoryDTO.model_validate(await categories.create_category(db, new))


@router.put("", summary="Create or change many categories")
async def save_categories(db: DatabaseDep, writer: Writer, wanted: CategoriesToSave) -> SavedDTO:
    """By name: new ones are made, the others get the colour that is given.  All of them or none."""
    return SavedDTO(ids=await categories.save_categories(db, wanted))


@router.get("/{category_id}", summary="Get a category")
async def get_category(db: DatabaseDep, viewer: CurrentUser, category_id: UUID) -> CategoryDTO:
    """Its name and colour; its tasks are at `/tasks?category_id=…`."""
    return CategoryDTO.model_validate(await categories.get_category(db, category_id))


@router.patch("/{category_id}", summary="Change a category")
async def update_category(
    db: DatabaseDep, writer: Writer, category_id: UUID, changes: UpdateCategoryDTO
) -> CategoryDTO:
    """What is left out stays as it is."""
    return CategoryDTO.model_validate(await categories.update_category(db, category_id, changes))


@router.delete("/{category_id}", status_code=204, summary="Delete a category")
async def delete_category(db: DatabaseDep, writer: Writer, category_id: UUID) -> None:
    """Its tasks stay, without it."""
    await categories.delete_category(db, category_id)


@router.post("/{category_id}/restore", summary="Restore a category")
async def restore_category(db: DatabaseDep, writer: Writer, category_id: UUID) -> CategoryDTO:
    """Its tasks have it again; a 409 if its name was taken meanwhile."""
    return CategoryDTO.model_validate(await categories.restore_category(db, category_id))
