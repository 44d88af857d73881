"""Shorter ways to turn a column's value as the driver gives it into the type's own, for types known exactly.

Each gives what SQLAlchemy's own processor gives, and calls that for everything out of the ordinary.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Uuid
from sqlmodel.sql.sqltypes import UTCDateTime

Processor = Callable[[Any], Any]
KEPT = 4_096
"""The most UUIDs a column remembers: foreign keys come again and again."""


def conversion(kind: Any, processor: Processor | None, *, is_text: bool) -> tuple[str, Any] | None:
    """An expression of the value `{0}` and of an object `{1}`, and that object; None for the value as it is.

    `is_text`: whether the driver gives text where the type has a type of its own.
    """
    if processor is None:
        return None
    if type(kind) is UTCDateTime:
        if is_text:
            return "{1}({0})", _utc_from_text(processor)
        return "({0} if {0} is None or {0}.tzinfo is UTC else {1}({0}))", processor
    if type(kind) is Uuid and kind.as_uuid and is_text:
        return "{1}[{0}]", _Uuids(processor)
    return "{1}({0})", processor


def _utc_from_text(processor: Processor) -> Processor:
    """SQLite's text of a time, which is UTC and has no offset."""
    parse = datetime.fromisoformat

    def from_text(text: str | None) -> Any:
        if text is None:
            return None
        try:
            return parse(text + "+00:00")
        except ValueError:
            return processor(text)

    return from_text


class _Uuids(dict[str | None, Any]):
    """Text → UUID, made once for each while there is room."""

    def __init__(self, processor: Processor) -> None:
        super().__init__()
        self._processor = processor

    def __missing__(self, text: str | None) -> Any:
        if len(self) >= KEPT:
            self.clear()
        self[text] = made = self._make(text)
        return made

    def _make(self, text: str | None) -> Any:
        if text is None or len(text) != 32:
            return self._processor(text)
        try:
            number = int(text, 16)
        except ValueError:
            return self._processor(text)
        made = _new(UUID)
        _set_int(made, number)
        _set_safety(made, _unknown)
        return made


_new: Callable[[type[UUID]], UUID] = object.__new__
_members: Any = UUID.__dict__  # its __setattr__ refuses, and its __init__ takes four times as long
_set_int, _set_safety = _members["int"].__set__, _members["is_safe"].__set__
_unknown = UUID(int=0).is_safe

NAMES = {"UTC": UTC}
"""What the expressions refer to."""
