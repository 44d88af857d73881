"""Rows of three tenants, of classes with every kind of relationship to each other and to what all tenants share."""

from uuid import UUID, uuid5

from sqlalchemy import Column, ForeignKey, Table
from sqlalchemy.orm import registry
from sqlmodel import Field, Relationship

from catalysis import ALL_TENANTS, Database, ModelWithIdAndTimestamps, SoftDelete, TenantScoped


class Model(ModelWithIdAndTimestamps, registry=registry()):
    pass


class Organisation(Model, table=True):
    """A tenant's own row; its key is the tenant."""

    name: str
    tasks: list["Task"] = Relationship(back_populates="organisation")


class Category(Model, table=True):
    """Of all tenants."""

    name: str
    tasks: list["Task"] = Relationship(back_populates="category")


task_tag = Table(
    "task_tag",
    Model.metadata,
    Column("task_id", ForeignKey("task.id", ondelete="CASCADE"), primary_key=True),
    Column("tag_id", ForeignKey("tag.id", ondelete="CASCADE"), primary_key=True),
)


class Scoped(TenantScoped, Model):
    __tenant__ = "organisation_id"

    organisation_id: UUID = Field(default=None, foreign_key="organisation.id", index=True)


class Tag(Scoped, table=True):
    name: str = Field(unique=True)
    tasks: list["Task"] = Relationship(back_populates="tags", sa_relationship_kwargs={"secondary": task_tag})


class Project(SoftDelete, Scoped, table=True):
    name: str
    tasks: list["Task"] = Relationship(back_populates="project")


class Task(Scoped, table=True):
    title: str
    hours: int = 0
    project_id: UUID | None = Field(default=None, foreign_key="project.id")
    category_id: UUID | None = Field(default=None, foreign_key="category.id")
    project: Project | None = Relationship(back_populates="tasks")
    category: Category | None = Relationship(back_populates="tasks")
    organisation: Organisation | None = Relationship(back_populates="tasks")
    tags: list[Tag] = Relationship(back_populates="tasks", sa_relationship_kwargs={"secondary": task_tag})


TENANTS = "abc"
ROLE = "tenant_application"
MAKE_ROLE = f"""DO $$ BEGIN
    CREATE ROLE {ROLE} LOGIN NOBYPASSRLS;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; -- another worker's tests made it
END $$"""
_NAMESPACE = UUID(int=7)


def key(*parts: object) -> UUID:
    """A key that is the same in every run."""
    return uuid5(_NAMESPACE, "/".join(map(str, parts)))


def tenant(name: str) -> UUID:
    return key("organisation", name)


def rows(*, alone: bool = False) -> list[Model]:
    """Each tenant: two projects, two tags, four tasks, in two categories that all share.

    `alone`: of the others' there is no more than what has the number 0, and what it says is different, so that whatever
    tells this world from the other is known to one who sees more than tenant a's.
    """
    categories = [Category(id=key("category", n), name=f"category {n}") for n in range(2)]
    made: list[Model] = [*categories]
    for name in TENANTS:
        other = alone and name != "a"
        organisation = Organisation(id=tenant(name), name=name)
        of = {"organisation_id": organisation.id}
        called = f"{name} other" if other else name
        numbers = range(1 if other else 2)
        projects = [Project(id=key("project", name, n), name=f"{called} project {n}", **of) for n in numbers]
        tags = [Tag(id=key("tag", name, n), name=f"{name} tag {n}", **of) for n in numbers]
        tasks = [
            Task(
                id=key("task", name, n),
                title=f"{called} task {n}",
                hours=n + 10 * other,
                project=projects[n % len(projects)],
                category=categories[1 if other else n // 2],
                tags=tags[: n % 3],
                **of,
            )
            for n in range(1 if other else 4)
        ]
        made += [organisation, *projects, *tags, *tasks]
    return made


async def fill(database: Database, *, alone: bool = False) -> None:
    await database.create_all(Model.metadata)
    async with database.session(tenant=ALL_TENANTS) as session:
        session.add_all(rows(alone=alone))
        await session.commit()
