"""The schema of the benchmark as SQLModel tables: users, categories and 10,000 tasks.  Others map the same tables."""

from uuid import UUID

from pydantic import BaseModel, ConfigDict
from sqlalchemy.orm import registry
from sqlmodel import Field, Relationship

from catalysis import Database, ModelWithIdAndTimestamps

USERS, CATEGORIES, TASKS = 100, 10, 10_000


class Model(ModelWithIdAndTimestamps, registry=registry()):
    pass


class User(Model, table=True):
    __tablename__ = "bench_user"
    name: str = Field(unique=True)
    tasks: list["Task"] = Relationship(back_populates="user")


class Category(Model, table=True):
    __tablename__ = "bench_category"
    name: str = Field(unique=True)


class Task(Model, table=True):
    __tablename__ = "bench_task"
    title: str
    number: int = Field(index=True)
    done: bool = False
    user_id: UUID = Field(foreign_key="bench_user.id", index=True)
    category_id: UUID = Field(foreign_key="bench_category.id", index=True)
    user: User = Relationship(back_populates="tasks")
    category: Category = Relationship()


class TaskDTO(BaseModel):
    """What an endpoint would answer with; the same for every contender."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    title: str
    number: int
    done: bool


async def fill(database: Database) -> None:
    """Make the tables and their rows."""
    await database.drop_all(Model.metadata)
    await database.create_all(Model.metadata)
    async with database.session() as session:
        users = [User(name=f"user {number:03}") for number in range(USERS)]
        categories = [Category(name=f"category {number}") for number in range(CATEGORIES)]
        session.add_all([*users, *categories])
        await session.flush()
        session.add_all(
            Task(
                title=f"task {number}",
                number=number,
                done=number % 3 == 0,
                user_id=users[number % USERS].id,
                category_id=categories[number % CATEGORIES].id,
            )
            for number in range(TASKS)
        )
        await session.commit()
