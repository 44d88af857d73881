"""What is timed: each operation by name, and what its answer must be equal in, whoever gave it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID


@dataclass(frozen=True)
class Keys:
    """What the operations ask for."""

    one: UUID
    many: Sequence[UUID]
    """64 of them."""
    user: UUID
    category: UUID


class Contender(Protocol):
    """Each method is one operation, from taking a session or connection to giving it back."""

    name: str

    async def one(self, keys: Keys) -> Any: ...
    async def twenty(self, keys: Keys) -> Any: ...
    async def thousand(self, keys: Keys) -> Any: ...
    async def with_two(self, keys: Keys) -> Any: ...
    async def with_children(self, keys: Keys) -> Any: ...
    async def page(self, keys: Keys) -> Any: ...
    async def group_count(self, keys: Keys) -> Any: ...
    async def json(self, keys: Keys) -> Any: ...
    async def concurrent(self, keys: Keys) -> Any: ...
    async def close(self) -> None: ...


def read(row: Any, name: str) -> Any:
    """A value of a record, a dictionary or an instance."""
    try:
        return getattr(row, name)
    except AttributeError:
        return row[name]


def _task(row: Any) -> tuple[Any, ...]:
    return UUID(str(read(row, "id"))), read(row, "title"), read(row, "number"), bool(read(row, "done"))


def _tasks(rows: Any) -> Any:
    return [_task(row) for row in rows]


def _with_two(rows: Any) -> Any:
    """(task, name of the user, name of the category), however the contender nests them."""
    return [(_task(task), user, category) for task, user, category in rows]


def _with_children(parents: Any) -> Any:
    return [(name, sorted(_tasks(tasks))) for name, tasks in parents]


@dataclass(frozen=True)
class Operation:
    """One line of the table."""

    title: str
    method: str
    plain: Callable[[Any], Any]
    rounds: int = 60

    @property
    def is_large(self) -> bool:
        """Whether it makes so many objects that Python's garbage collector has a say in the time."""
        return self.rounds <= 60

    def of(self, contender: Contender) -> Callable[[Keys], Awaitable[Any]]:
        """The contender's way of doing it."""
        return getattr(contender, self.method)


OPERATIONS = (
    Operation("one row by key", "one", _task, 400),
    Operation("20 rows, filtered and ordered", "twenty", _tasks, 200),
    Operation("1,000 rows", "thousand", _tasks),
    Operation("1,000 rows with two to-one relationships", "with_two", _with_two),
    Operation("100 parents with 10,000 children", "with_children", _with_children, 15),
    Operation("page of 20 with its count", "page", lambda answer: (_tasks(answer[0]), answer[1]), 200),
    Operation("group count", "group_count", lambda rows: sorted((str(name), count) for name, count in rows)),
    Operation("20 rows to DTOs to JSON", "json", bytes, 200),
    Operation("64 concurrent gets", "concurrent", _tasks, 40),
)
