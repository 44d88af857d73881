"""Which constraint an `IntegrityError` is about, told the same way by every database."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import PrimaryKeyConstraint, UniqueConstraint
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase
from sqlmodel import SQLModel

_SQLITE_COLUMNS = re.compile(r"(UNIQUE|NOT NULL) constraint failed: ([\w., ]+)$")
_SQLITE_NAMED = re.compile(r"(?:UNIQUE constraint failed: index|CHECK constraint failed:) '?(\w+)'?$")


@dataclass(frozen=True, slots=True)
class Violation:
    """A constraint's name, where the database or the models know it, and a sentence without data."""

    constraint: str | None
    message: str


_MESSAGES = {
    "23502": "A value is missing.",
    "23503": "It refers to something that does not exist, or something refers to it.",
    "23505": "It exists already.",
    "23514": "A value is not allowed.",
}


def violated_constraint(error: IntegrityError) -> Violation:
    """Read it from PostgreSQL's error fields, or from SQLite's message and the models' names."""
    original: Any = error.orig
    sqlstate = getattr(original, "sqlstate", None)
    if sqlstate:
        fields = original.__cause__
        name = getattr(fields, "constraint_name", None) or getattr(fields, "column_name", None)
        return Violation(name, _MESSAGES.get(sqlstate, "A constraint is violated."))
    return _from_sqlite(str(original))


def _from_sqlite(message: str) -> Violation:
    if named := _SQLITE_NAMED.search(message):
        return Violation(named[1], _MESSAGES["23514" if "CHECK" in message else "23505"])
    if columns := _SQLITE_COLUMNS.search(message):
        names = [each.strip().rpartition(".")[2] for each in columns[2].split(",")]
        if columns[1] == "NOT NULL":
            return Violation(names[0], _MESSAGES["23502"])
        table = columns[2].split(",")[0].rpartition(".")[0].strip()
        return Violation(_unique_name(table, names) or columns[2], _MESSAGES["23505"])
    return Violation(None, _MESSAGES["23503"] if "FOREIGN KEY" in message else "A constraint is violated.")


def _unique_name(table_name: str, columns: list[str]) -> str | None:
    for metadata in {model.metadata for base in (SQLModel, DeclarativeBase) for model in _below(base)}:
        if (table := metadata.tables.get(table_name)) is not None:
            uniques = [c for c in table.constraints if isinstance(c, UniqueConstraint | PrimaryKeyConstraint)]
            for unique in [*uniques, *(index for index in table.indexes if index.unique)]:
                if unique.name and sorted(column.name for column in unique.columns) == sorted(columns):
                    return str(unique.name)
    return None


def _below(model: type[Any]) -> Iterator[type[Any]]:
    for each in model.__subclasses__():
        yield each
        yield from _below(each)
