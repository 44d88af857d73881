"""Why a database refused a row: which row of a COPY, which column, and a reason without the row's other values."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Table
from sqlalchemy.exc import DBAPIError

from catalysis.errors import CommitOutcomeUnknown

_LINE = re.compile(r"^COPY .*?, line (\d+)(?:, column (.+?)(?:: .*)?)?$", re.MULTILINE)
_SQLITE_COLUMNS = re.compile(r"(?:UNIQUE|NOT NULL) constraint failed: (.+\..+)$")
_SQLITE_NAMED = re.compile(r"(?:UNIQUE constraint failed: index|CHECK constraint failed:) '?(\w+)'?$")

_OF_THE_ROW = ("22", "23")
"""SQLSTATE classes that are about a row's values: data exceptions, constraint violations.

Source: PostgreSQL documentation, "PostgreSQL Error Codes"; P0001 is what a trigger raises.
"""


@dataclass(frozen=True, slots=True)
class Rejection:
    """What a reject file says of a row."""

    column: str
    """Column(s) by name; empty where the database does not say."""
    reason: str


def copied_line(failure: DBAPIError) -> int | None:
    """The number, from 1, of the row that broke a COPY; None if it was none, or the database does not say."""
    found = _place(failure)
    return None if found is None else int(found[1])


def is_of_a_row(failure: DBAPIError) -> bool:
    """Whether a row's values are to blame, and the same rows without it may go."""
    if failure.connection_invalidated or isinstance(failure, CommitOutcomeUnknown):
        return False
    state = getattr(failure.orig, "sqlstate", None)
    if state is not None:
        return state[:2] in _OF_THE_ROW or state == "P0001"
    if getattr(failure.orig, "sqlite_errorname", None) is not None:
        name: str = getattr(failure.orig, "sqlite_errorname", "")
        return name.startswith(("SQLITE_CONSTRAINT", "SQLITE_MISMATCH", "SQLITE_TOOBIG"))
    return isinstance(_driver_error(failure), ValueError | OverflowError)  # the driver could not send it


def rejection_of(failure: DBAPIError, table: Any, header: Mapping[str, str]) -> Rejection:
    """Column and reason, as the database gives them; its DETAIL, which shows the row, is left out."""
    return Rejection(column_of(failure, table, header), _message_of(_driver_error(failure)))


def column_of(failure: DBAPIError, table: Any, header: Mapping[str, str]) -> str:
    """The column(s) that the database, or its constraint, says are to blame; empty where it does not say.

    `header`: what they are called where the rows come from.
    """
    error = _driver_error(failure)
    place = _place(failure)
    column: str | None = getattr(error, "column_name", None) or (place[2] if place else None)
    names = [column] if column else []
    if not names and isinstance(table, Table):
        names = _columns_of(error, cast("Table[Any]", table))
    return ", ".join(header.get(name, name) for name in names)


def _message_of(error: Any) -> str:
    return str(getattr(error, "message", None) or str(error).splitlines()[0])


def _columns_of(error: Any, table: Table[Any]) -> list[str]:
    if (constraint := getattr(error, "constraint_name", None)) is not None:
        return _columns_in(constraint, table)
    message = _message_of(error)
    if listed := _SQLITE_COLUMNS.search(message):
        parts = listed[1].split(", ")
        return [column.name for column in table.columns if f"{table.name}.{column.name}" in parts]
    named = _SQLITE_NAMED.search(message)
    return _columns_in(named[1], table) if named else []


def why(failure: Exception) -> str:
    """One sentence of the database's, or the driver's, with the rows that a bulk operation says it is about."""
    details = [str(each) for each in getattr(failure, "detail", [])]
    where = "".join(f"{each}: " for each in details if ": in row" in each)
    error = _driver_error(failure) if isinstance(failure, DBAPIError) else failure
    lines = str(getattr(error, "message", None) or error).splitlines() or [type(error).__name__]
    if isinstance(failure, DBAPIError) and failure.connection_invalidated:
        lines[0] = f"The connection was lost ({lines[0].rstrip('.')})"
    return f"{where}{lines[0].rstrip('.')}."


def _place(failure: DBAPIError) -> re.Match[str] | None:
    return _LINE.search(str(getattr(_driver_error(failure), "context", None) or ""))


def _driver_error(failure: DBAPIError) -> Any:
    return getattr(failure.orig, "driver_exception", None) or failure.orig


def _columns_in(constraint: str, table: Table[Any]) -> list[str]:
    """The columns of a constraint that the models name, or that PostgreSQL has named as it names those without."""
    constraints: list[Any] = [*table.constraints, *table.indexes]
    for each in constraints:
        names = [column.name for column in each.columns]
        given = "_".join([table.name, *names])
        own = {f"{table.name}_pkey"} if each is table.primary_key else {f"{given}_key", f"{given}_fkey"}
        if each.name == constraint or (each.name is None and constraint in own):
            return names
    return []
