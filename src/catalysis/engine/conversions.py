"""Shorter ways between a column's value as the driver has it and the type's own, for types known exactly.

Each gives what SQLAlchemy's own processor gives, and calls that for everything out of the ordinary.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Uuid
from sqlmodel.sql.sqltypes import UTCDateTime

Processor = Callable[[Any], Any]
FULL = len("2000-01-01 00:00:00.000000")
"""SQLAlchemy writes every time with microseconds."""
KEPT = 4_096
"""The most UUIDs remembered, in all: foreign keys come again and again."""


def conversion(
    kind: Any, processor: Processor | None, *, is_text: bool, is_key: bool
) -> tuple[str, Any] | None:
    """An expression of the value `{0}` and of an object `{1}`, and that object; None for the value as it is.

    `is_text`: whether the driver gives text where the type has a type of its own; `is_key`: whether the values
    are those of a primary key, which do not come again.
    """
    if processor is None:
        return None
    if type(kind) is UTCDateTime:
        if is_text:
            return "{1}({0})", _utc_from_text(processor)
        return "({0} if {0} is None or {0}.tzinfo is UTC else {1}({0}))", processor
    if type(kind) is Uuid and kind.as_uuid and is_text:
        return ("{1}({0})", _uuid) if is_key else ("{1}[{0}]", _uuids)
    return "{1}({0})", processor


def _utc_from_text(processor: Processor) -> Processor:
    """SQLite's text of a time, which is UTC and has no offset."""
    parse = datetime.fromisoformat

    def from_text(text: str | None) -> Any:
        if text is None:
            return None
        if len(text) != FULL:
            return processor(text)
        try:
            return parse(text + "+00:00")
        except ValueError:  # it had an offset
            return processor(text)

    return from_text


def _uuid(text: str | None) -> UUID | None:
    """SQLite's text of a UUID: 32 digits; any other text is `UUID`'s to read or to refuse."""
    if text is None:
        return None
    if len(text) != 32:
        return UUID(text)
    try:
        number = int(text, 16)
    except ValueError:
        return UUID(text)
    made = _new(UUID)
    _set_int(made, number)
    _set_safety(made, _unknown)
    return made


class _Uuids(dict[str | None, UUID | None]):
    """Text → UUID, made once for each while there is room."""

    def __missing__(self, text: str | None) -> UUID | None:
        if len(self) >= KEPT:
            self.clear()
        self[text] = made = _uuid(text)
        return made


_uuids = _Uuids()
_new: Callable[[type[UUID]], UUID] = object.__new__
_members: Any = UUID.__dict__  # its __setattr__ refuses, and its __init__ takes four times as long
_set_int, _set_safety = _members["int"].__set__, _members["is_safe"].__set__
_unknown = UUID(int=0).is_safe

_PARTS = ("year", "month", "day", "hour", "minute", "second", "microsecond")
_TIME, _UUID = datetime(2000, 1, 2, 3, 4, 5, 6, tzinfo=UTC), UUID(int=1)


def parameter(kind: Any, processor: Processor | None) -> str:
    """An expression of the driver's parameter for the value in the variable `{0}`; `{1}` is the processor.

    What it does to a value is seen by trying: a dialect or a type may have a format of its own.
    """
    if processor is None:
        return "{0}"
    if type(kind) is UTCDateTime:
        is_plain = "type({0}) is datetime and {0}.tzinfo is UTC"
        made = processor(_TIME)
        if made is _TIME:
            return f"({{0}} if {is_plain} else {{1}}({{0}}))"
        if made == "2000-01-02 03:04:05.000006":
            parts = ", ".join(f"{{0}}.{part}" for part in _PARTS)
            return f"('%04d-%02d-%02d %02d:%02d:%02d.%06d' % ({parts}) if {is_plain} else {{1}}({{0}}))"
    if type(kind) is Uuid and kind.as_uuid and processor(_UUID) == _UUID.hex:
        return "('%032x' % {0}.int if type({0}) is UUID else {1}({0}))"
    return "{1}({0})"


NAMES = {"UTC": UTC, "datetime": datetime, "UUID": UUID}
"""What the expressions refer to."""
