"""Categories, which all users share."""

from collections.abc import Sequence
from uuid import UUID

from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from catalysis import Session, include_deleted, upsert
from catalysis.starter.app.dtos.categories import CategoryQuery, CreateCategoryDTO, UpdateCategoryDTO
from catalysis.starter.app.errors import UnknownReference
from catalysis.starter.app.models import Category, User
from catalysis.starter.app.services.visibility import deleted_too


def list_categories(viewer: User, query: CategoryQuery) -> SelectOfScalar[Category]:
    """The statement for the categories that `query` asks for."""
    statement = select(Category).order_by(Category.name)
    if query.search:
        statement = statement.where(col(Category.name).icontains(query.search, autoescape=True))
    return deleted_too(statement, viewer, "categories:write") if query.include_deleted else statement


async def get_category(db: Session, category_id: UUID) -> Category:
    """The category."""
    return await db.get_one(Category, category_id)


async def referred_category(db: Session, category_id: UUID | None) -> Category | None:
    """The category that a body refers to; None where it refers to none."""
    if category_id is None:
        return None
    if category := await db.get(Category, category_id):
        return category
    raise UnknownReference(f"There is no category {category_id}.")


async def category_named(db: Session, name: str) -> UUID:
    """The id of the category with this name, which is made if it is not there; nothing is committed.

    Of two callers at once one makes it and the other finds it: the unique index decides, not a SELECT before.
    """
    [category_id] = await upsert(db, Category, [{"name": name}], key="name", update=(), returning=True)
    return category_id


async def create_category(db: Session, new: CreateCategoryDTO) -> Category:
    """A new category."""
    category = Category(**new.model_dump())
    db.add(category)
    await db.commit()
    return category


async def save_categories(db: Session, wanted: Sequence[CreateCategoryDTO]) -> list[UUID]:
    """Make those whose name is new, give the others the colour where one is given; their ids, in order."""
    ids: list[UUID] = await upsert(db, Category, wanted, key="name", returning=True)
    await db.commit()
    return ids


async def update_category(db: Session, category_id: UUID, changes: UpdateCategoryDTO) -> Category:
    """Change what `changes` gives."""
    category = await get_category(db, category_id)
    category.sqlmodel_update(changes.model_dump(exclude_unset=True))
    await db.commit()
    return category


async def delete_category(db: Session, category_id: UUID) -> None:
    """Mark the category as deleted; its tasks stay, and show no category."""
    await db.delete(await get_category(db, category_id))
    await db.commit()


async def restore_category(db: Session, category_id: UUID) -> Category:
    """Take back a deletion; the category's tasks show it again."""
    category = await db.get_one(Category, category_id, options=[include_deleted()])
    await db.restore(category)
    await db.commit()
    return category
