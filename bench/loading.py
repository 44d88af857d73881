"""Relationships in each way there is to load them, against the driver with a query for each table and a dictionary."""

from collections.abc import Awaitable, Callable
from typing import Any

from rich.table import Table
from sqlalchemy.orm import joinedload, selectinload
from sqlmodel import col, select

from bench.contenders.drivers import OTHER, TASK, USERS
from bench.models import Task, User
from catalysis import load, managed

Way = Callable[[], Awaitable[Any]]
CATEGORIES = f"SELECT {OTHER} FROM bench_category WHERE id = ANY($1)"
SOME_USERS = f"SELECT {OTHER} FROM bench_user WHERE id = ANY($1)"
TASKS = f"SELECT {TASK} FROM bench_task ORDER BY number LIMIT 1000"
CHILDREN = f"SELECT {TASK} FROM bench_task WHERE user_id = ANY($1)"

TO_ONE = select(Task).order_by(col(Task.number)).limit(1_000)
TO_MANY = select(User).order_by(col(User.name))


def _names(tasks: Any) -> Any:
    return [(task.title, task.user.name, task.category.name) for task in tasks]


def _numbers(users: Any) -> Any:
    return [(user.name, sum(task.number for task in user.tasks)) for user in users]


def by_hand(pool: Any) -> dict[str, Way]:
    """Two driver queries, or three, and a dictionary."""

    async def to_one() -> Any:
        async with pool.acquire() as connection:
            tasks = await connection.fetch(TASKS)
            users = await connection.fetch(SOME_USERS, list({task["user_id"] for task in tasks}))
            categories = await connection.fetch(CATEGORIES, list({task["category_id"] for task in tasks}))
        user_of = {user["id"]: user for user in users}
        category_of = {each["id"]: each for each in categories}
        return [
            (task["title"], user_of[task["user_id"]]["name"], category_of[task["category_id"]]["name"])
            for task in tasks
        ]

    async def to_many() -> Any:
        async with pool.acquire() as connection:
            users = await connection.fetch(USERS)
            tasks = await connection.fetch(CHILDREN, [user["id"] for user in users])
        children: dict[Any, list[Any]] = {user["id"]: [] for user in users}
        for task in tasks:
            children[task["user_id"]].append(task)
        return [(user["name"], sum(task["number"] for task in children[user["id"]])) for user in users]

    return {"to one": to_one, "to many": to_many}


def eager(make: Callable[[], Any], option: Any) -> dict[str, Way]:
    """With an option: `joinedload` or `selectinload`."""

    async def to_one() -> Any:
        async with make() as session:
            query = TO_ONE.options(option(Task.user), option(Task.category))
            return _names((await session.exec(query)).all())

    async def to_many() -> Any:
        async with make() as session:
            return _numbers((await session.exec(TO_MANY.options(option(User.tasks)))).unique().all())

    return {"to one": to_one, "to many": to_many}


def touched(make: Callable[[], Any]) -> dict[str, Way]:
    """Touched in a managed scope, without a word."""

    async def to_one() -> Any:
        async with make() as session:
            return _names((await session.exec(TO_ONE)).all())

    async def to_many() -> Any:
        async with make() as session:
            return _numbers((await session.exec(TO_MANY)).all())

    return {"to one": lambda: managed(to_one()), "to many": lambda: managed(to_many())}


def loaded(make: Callable[[], Any]) -> dict[str, Way]:
    """With `load()`."""

    async def to_one() -> Any:
        async with make() as session:
            tasks = (await session.exec(TO_ONE)).all()
            await load(tasks, Task.user, Task.category)
            return _names(tasks)

    async def to_many() -> Any:
        async with make() as session:
            users = (await session.exec(TO_MANY)).all()
            await load(users, User.tasks)
            return _numbers(users)

    return {"to one": to_one, "to many": to_many}


def lazily(make: Callable[[], Any]) -> dict[str, Way]:
    """Stock's lazy loading, which works inside `run_sync`: a statement for each."""

    async def to_one() -> Any:
        async with make() as session:
            tasks = (await session.exec(TO_ONE)).all()
            return await session.run_sync(lambda _: _names(tasks))

    async def to_many() -> Any:
        async with make() as session:
            users = (await session.exec(TO_MANY)).all()
            return await session.run_sync(lambda _: _numbers(users))

    return {"to one": to_one, "to many": to_many}


def in_scope(work: Way) -> Way:
    """A request that never needs the scope it is in."""
    return lambda: managed(work())


TITLES = {"to one": "1,000 tasks with user and category", "to many": "100 users with 10,000 tasks"}


def ways(pool: Any, ours: Callable[[], Any], stock: Callable[[], Any]) -> dict[str, dict[str, Way]]:
    """Each way by its name; the first is the measure."""
    return {
        "by hand": by_hand(pool),
        "Catalysis touched": touched(ours),
        "Catalysis load()": loaded(ours),
        "Catalysis joined": eager(ours, joinedload),
        "Catalysis selectin": eager(ours, selectinload),
        "SQLModel joined": eager(stock, joinedload),
        "SQLModel selectin": eager(stock, selectinload),
        "SQLModel lazy": lazily(stock),
    }


def table_of(report: dict[str, dict[str, float]]) -> Table:
    """The ratios."""
    table = Table(title="PostgreSQL: ways to load relationships, ratios of medians to queries by hand")
    table.add_column("way")
    for title in report:
        table.add_column(title, justify="right")
    for name in next(iter(report.values())):
        table.add_row(
            name, *[f"{medians[name] / next(iter(medians.values())):.2f}" for medians in report.values()]
        )
    return table
