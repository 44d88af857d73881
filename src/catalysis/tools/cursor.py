"""A position in an order, as text: how values become a cursor, and how any text at all is read back safely.

A cursor is URL-safe base64 of compact JSON: version, fingerprint of the order, whether the position itself
belongs to the page, values.  It carries no secret and grants nothing: whoever makes one up only chooses where
the page begins.  Which values suit a column is not known here (`sort_values.py`).
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from catalysis.errors import InvalidPage

VERSION = 1
LARGEST = 8192
"""Characters.  Servers and proxies take request lines of about this length, so a longer cursor would not arrive."""

UNREADABLE = "The cursor is not one of this query's.  Start again without a cursor."


@dataclass(frozen=True, slots=True)
class Position:
    """A place between or on rows: the values of the order's terms, as the driver gives and takes them."""

    values: tuple[Any, ...]
    inclusive: bool = False
    """Whether a row with just these values belongs to the page."""


def write_cursor(position: Position, fingerprint: str) -> str:
    """The text for a position in the order with this fingerprint.

    Raises:
        InvalidPage: a value has no textual form, or is too long.
    """
    values = [_write(value) for value in position.values]
    content = [VERSION, fingerprint, int(position.inclusive), values]
    spelled = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    cursor = b64encode(spelled.encode(), b"-_").rstrip(b"=").decode()
    if len(cursor) > LARGEST:
        raise InvalidPage(
            "A value to order by is too long for a cursor.  Order by a shorter expression, such as "
            "func.substr(column, 1, 100)."
        )
    return cursor


def read_cursor(cursor: str, fingerprint: str, count: int) -> Position:
    """The position in a cursor made by `write_cursor` for the same order.

    Raises:
        InvalidPage: it is anything else.
    """
    if len(cursor) > LARGEST or "=" in cursor:  # padding is ours to add
        raise InvalidPage(UNREADABLE)
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        version, of, inclusive, values = json.loads(b64decode(padded, b"-_", validate=True))
        # JSON nested too deep is a RecursionError, bad base64, JSON, dates and UUIDs are ValueErrors.
        position = Position(tuple(_read(value) for value in values), {0: False, 1: True}[inclusive])
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
        raise InvalidPage(UNREADABLE) from error
    if version == VERSION and of != fingerprint:
        raise InvalidPage("The cursor belongs to another order of rows.  Start again without a cursor.")
    if version != VERSION or len(position.values) != count:
        raise InvalidPage(UNREADABLE)
    return position


# --- One value ------------------------------------------------------------------------------------


def _write(value: Any) -> Any:
    """JSON for a value: itself, or a pair of tag and text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    for tag, (kind, write, _) in _TAGGED.items():
        if isinstance(value, kind):
            return [tag, write(value)]
    raise InvalidPage(f"A {type(value).__name__} cannot be kept in a cursor.  Order by a cast() of it.")


def _read(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise ValueError("no database integer")
        return value
    if isinstance(value, str):
        value.encode()  # raises for a lone surrogate, which no driver can send
        return value
    tag, text = value
    return _TAGGED[tag][2](text)


def _read_decimal(text: str) -> Decimal:
    number = Decimal(text)
    if number.is_snan():
        raise ValueError("no database number")
    # PostgreSQL documentation, "Numeric Types": digits before and after the point.
    if number.is_finite() and (number.adjusted() >= 131072 or int(number.as_tuple().exponent) < -16383):
        raise ValueError("no database number")
    return number


def _read_datetime(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC) if moment.tzinfo else moment  # OverflowError at the ends of the calendar


def _write_duration(duration: timedelta) -> str:
    return f"{duration.days} {duration.seconds} {duration.microseconds}"


def _read_duration(text: str) -> timedelta:
    days, seconds, microseconds = map(int, text.split(" "))
    return timedelta(days, seconds, microseconds)


_TAGGED: dict[str, tuple[type, Callable[[Any], str], Callable[[str], Any]]] = {
    "f": (float, repr, float),
    "n": (Decimal, str, _read_decimal),
    "b": (bytes, bytes.hex, bytes.fromhex),
    "u": (UUID, str, UUID),
    "m": (datetime, datetime.isoformat, _read_datetime),  # before date, which it is too
    "d": (date, date.isoformat, date.fromisoformat),
    "t": (time, time.isoformat, time.fromisoformat),
    "i": (timedelta, _write_duration, _read_duration),
}
