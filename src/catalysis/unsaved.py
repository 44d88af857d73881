"""What a session has sent to the database and not committed, kept so that leaving it behind can be reported.

Only descriptions are kept, a handful of them, never the objects: a session may flush a million.
"""

import re
from collections.abc import Iterable
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

from sqlalchemy import inspect
from sqlalchemy.orm import ORMExecuteState, Session, SessionTransaction
from sqlalchemy.sql.elements import ClauseElement, TextClause

SHOWN = 5

ONLY_EXPLAINED = "catalysis_only_explained"
"""Execution option of a statement that passes a session's hooks and is not executed."""

_WRITES = re.compile(
    r"(?:\s|--[^\n]*\n|/\*.*?\*/)*(?:WITH\b.*?\b(?=INSERT|UPDATE|DELETE|MERGE)|)"
    r"(INSERT|UPDATE|DELETE|MERGE|REPLACE|TRUNCATE|CREATE|ALTER|DROP)\b",
    re.IGNORECASE | re.DOTALL,
)


def describe(instance: object, change: str) -> str:
    """`Task 0190… (changed)`: the class, its key where that is a number or a UUID, and what happened.

    Nothing is loaded for it, and a key of another kind is left out: it may be a secret.
    """
    state: Any = inspect(instance)
    columns = [state.mapper.get_property_by_column(column).key for column in state.mapper.primary_key]
    key = [state.dict.get(name) for name in columns]
    shown = [str(part) for part in key if isinstance(part, int | UUID)]
    return " ".join([type(instance).__name__, *shown, f"({change})"])


def _has_changed(instance: object) -> bool:
    """Whether a flush has something to send for it; unlike `is_modified`, it loads nothing to find out.

    As for SQLAlchemy, what is not equal has changed: a comparison may have no truth, as one of arrays.
    """
    state: Any = inspect(instance)
    columns, now = state.mapper.column_attrs, state.dict
    return any(
        name not in columns
        or name not in now
        or isinstance(now[name], ClauseElement)
        or columns[name].columns[0].type.compare_values(now[name], before) is not True
        for name, before in state.committed_state.items()
    )


class UnsavedWork:
    """A running account of the writes of the current transaction; savepoints rolled back are taken out again."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[str] = []
        self._at_savepoint: WeakKeyDictionary[SessionTransaction, int] | None = None

    def flushed(self, session: Session) -> None:
        """Note the objects of a flush that was just sent."""
        self._note_each(session.new, "new")
        changed = iter(session.dirty)
        while len(self.first) < SHOWN and (each := next(changed, None)) is not None:
            if _has_changed(each):
                self.note(describe(each, "changed"))
        self.count += sum(1 for _ in changed)  # the others are not looked at: a flush may be of many
        self._note_each(session.deleted, "deleted")

    def written_by(self, executing: ORMExecuteState) -> str | None:
        """The description of a statement that writes; None for one that does not, or is not really executed."""
        statement: Any = executing.statement
        if executing.execution_options.get(ONLY_EXPLAINED):
            return None
        if executing.is_insert or executing.is_update or executing.is_delete:  # a lambda's too
            verb = "INSERT" if executing.is_insert else "UPDATE" if executing.is_update else "DELETE"
            mapper = executing.bind_mapper
            table = mapper.local_table if mapper is not None else getattr(statement, "table", None)
            return f"{verb} of {getattr(table, 'name', 'a table')}"
        if isinstance(statement, TextClause) and (found := _WRITES.match(statement.text)):
            return f"{found[1].upper()} by textual SQL"
        return None

    def savepoint_begun(self, savepoint: SessionTransaction) -> None:
        """Remember how much there was."""
        if self._at_savepoint is None:
            self._at_savepoint = WeakKeyDictionary()
        self._at_savepoint[savepoint] = self.count

    def savepoint_rolled_back(self, savepoint: SessionTransaction) -> None:
        """Forget what came after it."""
        if self._at_savepoint is not None:
            self.count = self._at_savepoint.get(savepoint, self.count)
        del self.first[self.count :]

    def transaction_ended(self) -> None:
        """Committed or rolled back: nothing is left behind."""
        self.count = 0
        self.first.clear()

    def left_behind(self, session: Session, *, sent_is_kept: bool) -> list[str]:
        """Descriptions of all that would be lost if the session were left now, the count last if there is more."""
        pending = UnsavedWork()
        pending.flushed(session)
        first, count = ([], 0) if sent_is_kept else (self.first, self.count)
        lines = (first + pending.first)[:SHOWN]
        more = count + pending.count - len(lines)
        return [*lines, f"and {more} more"] if more else lines

    def _note_each(self, instances: Iterable[object], change: str) -> None:
        for instance in instances:
            if len(self.first) < SHOWN:
                self.first.append(describe(instance, change))
            self.count += 1

    def note(self, description: str) -> None:
        """Note a statement that has succeeded."""
        if len(self.first) < SHOWN:
            self.first.append(description)
        self.count += 1
