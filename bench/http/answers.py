"""What the three applications answer with, and which rows they are asked for.  No ORM and no driver is known here."""

import json
from collections.abc import Callable
from itertools import count
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict

POOL = 10
TWENTY = 20


class Answer(BaseModel):
    """Read from attributes or from a dictionary, whichever a route returns."""

    model_config = ConfigDict(from_attributes=True)


class NameAnswer(Answer):
    id: UUID
    name: str


class TaskAnswer(Answer):
    id: UUID
    title: str
    number: int
    done: bool


class TaskWithTwoAnswer(TaskAnswer):
    user: NameAnswer
    category: NameAnswer


def rendered(id: UUID, title: str, number: int, done: bool) -> bytes:  # noqa: A002 - the column's name
    """A task as JSON, made past FastAPI's `response_model`."""
    return json.dumps(
        {"id": str(id), "title": title, "number": number, "done": done}, separators=(",", ":")
    ).encode()


class Twenties:
    """Twenty keys at a time, round and round: the same for every application, and never two clients' at once."""

    def __init__(self) -> None:
        self.keys: list[UUID] = []
        """Filled when the application starts."""
        self._turn = count()

    def next(self) -> tuple[int, list[UUID]]:
        """The number of the turn, and its keys."""
        turn = next(self._turn)
        start = turn * TWENTY % len(self.keys)
        return turn, self.keys[start : start + TWENTY]


PATHS = {
    "/task/{task}": "one row",
    "/raw/{task}": "one row, without response_model",
    "/twenty": "20 rows by 20 queries of one session",
    "/updates": "20 rows read, changed, committed",
    "/tasks/{user}": "a list of 20",
    "/board/{user}": "a list of 20 with two relationships",
}
"""What is measured."""

Application = Callable[[str], Any]
"""From a URL of the database to an ASGI application."""
