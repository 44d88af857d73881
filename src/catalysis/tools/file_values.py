"""A file's values as a column's own: decided once a column, looped per value.

Text is read by the column's type.  Values that a file has types for are taken if the column's type means the same.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from math import isinf, isnan
from typing import Any, cast
from uuid import UUID

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Column, types
from sqlalchemy.dialects.postgresql import DOMAIN, INTERVAL
from sqlalchemy.types import TypeDecorator

from catalysis.errors import BulkError

Read = Callable[[Any], Any]

_INTEGER = re.compile(r"[+-]?[0-9]+")
_TRUE, _FALSE = (
    frozenset({"true", "t", "yes", "y", "on", "1"}),
    frozenset({"false", "f", "no", "n", "off", "0"}),
)
_BITS: tuple[tuple[type[Any], int], ...] = (
    (types.SmallInteger, 16),
    (types.BigInteger, 64),
    (types.Integer, 32),
)
SHOWN = 40
"""Characters of a bad value that are shown."""


class Unfit(ValueError):
    """A value that the column's type has no room for; the text says why, and shows no more than that value."""


def value_reader(column: Column[Any], *, strict: bool, has_nulls: bool = False) -> Read:
    """What turns a file's value into the column's: text, or a value of Python's own; empty text and None give None.

    Empty text is NULL, unless the column is of text and NOT NULL, or the file `has_nulls` of its own.  `strict`:
    numbers and text have the width of their types.

    Raises:
        BulkError: nothing is known of the column's type.
    """
    kind = plain_type(column.type)
    is_text = isinstance(kind, types.String) and not isinstance(kind, types.Enum)
    keeps_empty = is_text and (has_nulls or not column.nullable)
    read = _json_itself if isinstance(column.type, types.JSON) else _reader_of(kind, strict)
    if read is None:
        raise BulkError(
            f"Column {column.name!r} has the type {column.type!r}, which no file can be read as.  Leave it out of the "
            "file, or give the rows to bulk_insert()."
        )

    def value(given: Any) -> Any:
        if given is None or (given == "" and not keeps_empty):
            return None
        return read(given)

    return value


def plain_type(kind: Any) -> Any:
    """The type below decorators: what a decorator's own conversion is given is what that type takes."""
    while isinstance(kind, TypeDecorator | DOMAIN) and not isinstance(kind, types.Interval):
        kind = cast("Any", kind).data_type if isinstance(kind, DOMAIN) else cast("Any", kind).impl_instance
    return kind


def _reader_of(kind: Any, strict: bool) -> Read | None:
    if isinstance(kind, types.Integer):
        return _integer(next(bits for width, bits in _BITS if isinstance(kind, width)) if strict else 64)
    if isinstance(kind, types.Numeric | types.Float):
        return _decimal(kind, strict) if kind.asdecimal else _float(strict)
    if isinstance(kind, types.DateTime):
        return _datetime(aware=bool(kind.timezone))
    if isinstance(kind, types.Time):
        return _time(aware=bool(kind.timezone))
    if isinstance(kind, types.Enum):
        return _enum(kind)
    if isinstance(kind, types.ARRAY):
        item = _reader_of(plain_type(cast("Any", kind).item_type), strict)
        return None if item is None else _array(item, cast("Any", kind))
    if isinstance(kind, types.Uuid):
        return _uuid if kind.as_uuid else lambda given: str(_uuid(given))
    if isinstance(kind, types.String):
        return _text(kind.length, strict)
    for known, read in _READERS:
        if isinstance(kind, known):
            return read
    return None


def _unfit(given: Any, what: str) -> Unfit:
    if not isinstance(given, str):
        return Unfit(f"a {type(given).__name__} is not {what}")
    shown = given if len(given) <= SHOWN else f"{given[:SHOWN]}…"
    return Unfit(f"{shown!r} is not {what}")


def _integer(bits: int) -> Read:
    bound = 1 << (bits - 1)

    def read(given: Any) -> int:
        if isinstance(given, str):
            if _INTEGER.fullmatch(text := given.strip()) is None or len(text) > 30:
                raise _unfit(given, "a whole number")
            number = int(text)
        elif isinstance(given, int) and not isinstance(given, bool):
            number = given
        else:
            raise _unfit(given, "a whole number")
        if not -bound <= number < bound:
            raise Unfit(f"{number} does not fit into {bits} bits")
        return number

    return read


def _float(strict: bool) -> Read:
    def read(given: Any) -> float:
        text = str(given)
        try:
            if (
                isinstance(given, str | int | float | Decimal)
                and not isinstance(given, bool)
                and "_" not in text
            ):
                number = float(given)
                if isinf(number) and "inf" not in text.lower():
                    raise Unfit("it is larger than any number of the column's type")
                return _kept(number, isnan(number), strict)
        except OverflowError:
            raise Unfit("it is larger than any number of the column's type") from None
        except ValueError as unfit:
            if isinstance(unfit, Unfit):
                raise
        raise _unfit(given, "a number")

    return read


def _decimal(kind: Any, strict: bool) -> Read:
    """Decimals as precise as the column's type where the database is, which otherwise would not say which column."""
    bound: Decimal | None = None
    if strict and kind.precision is not None and not isinstance(kind, types.Float):
        places = kind.scale or 0
        bound = Decimal(10) ** (kind.precision - places) - Decimal(5).scaleb(
            -places - 1
        )  # is rounded up to too much
    least, most = _PLACES if strict else _PLACES_OF_FLOATS

    def read(given: Any) -> Decimal:
        try:
            if isinstance(given, str) and "_" not in given:
                number = Decimal(given.strip())
            elif isinstance(given, int | float | Decimal) and not isinstance(given, bool):
                number = Decimal(str(given))
            else:
                raise _unfit(given, "a number")
        except InvalidOperation:
            raise _unfit(given, "a number") from None
        if number.is_nan():
            return _kept(number, True, strict)
        if bound is not None and number.copy_abs() >= bound:
            raise Unfit(
                f"it does not fit into {kind.precision} digits, {kind.scale or 0} of them after the point"
            )
        if number and not least <= number.adjusted() <= most:
            raise Unfit("it is larger or smaller than any number of the column's type")
        return number

    return read


_PLACES, _PLACES_OF_FLOATS = (-16383, 131071), (-323, 308)
"""Of the first digit: of PostgreSQL's numbers, and of those of a database that keeps floats.

Source: PostgreSQL documentation, "Numeric Types".  asyncpg sends some that are larger as 0.
"""


def _kept(number: Any, is_nan: bool, strict: bool) -> Any:
    if is_nan and not strict:
        raise Unfit("the database would keep NULL for it")
    return number


def _boolean(given: Any) -> bool:
    if isinstance(given, bool):
        return given
    word = given.strip().lower() if isinstance(given, str) else ""
    if word not in _TRUE | _FALSE:
        raise _unfit(given, "true or false")
    return word in _TRUE


def _datetime(*, aware: bool) -> Read:
    def read(given: Any) -> datetime:
        moment = given
        if isinstance(given, str):
            try:
                moment = datetime.fromisoformat(given.strip())
            except ValueError:
                raise _unfit(given, "a date and time as in 2024-05-31T12:00:00Z") from None
        if not isinstance(moment, datetime):
            raise _unfit(given, "a date and time")
        if aware and moment.utcoffset() is None:
            raise Unfit("it has no time zone: end it with Z or an offset such as +02:00")
        if not aware and moment.tzinfo is not None:
            raise Unfit("it has a time zone, and the column has none")
        try:
            return (
                moment.astimezone(UTC) if aware else moment
            )  # SQLite keeps no zone: that moment, not that hour
        except OverflowError:
            raise Unfit("it is out of range in UTC") from None

    return read


def _date(given: Any) -> date:
    if isinstance(given, date) and not isinstance(given, datetime):
        return given
    try:
        if isinstance(given, str):
            return date.fromisoformat(given.strip())
    except ValueError:
        pass
    raise _unfit(given, "a date as in 2024-05-31")


def _time(*, aware: bool) -> Read:
    def read(given: Any) -> time:
        try:
            found = given if isinstance(given, time) else time.fromisoformat(given.strip())
        except (ValueError, AttributeError):
            raise _unfit(given, "a time as in 12:00:00") from None
        if aware and found.tzinfo is None:
            raise Unfit("it has no time zone: end it with Z or an offset such as +02:00")
        if not aware and found.tzinfo is not None:
            raise Unfit("it has a time zone, and the column has none")
        return found

    return read


def _interval(given: Any) -> timedelta:
    if isinstance(given, str) and _OF_NO_LENGTH.match(given):
        raise Unfit("months and years have no length of their own: give days")
    try:
        return _TIMEDELTA.validate_python(given)
    except ValidationError:
        raise _unfit(given, "a duration as in P1DT2H or 26:00:00") from None


_TIMEDELTA = TypeAdapter(timedelta)
_OF_NO_LENGTH = re.compile(r"\s*[+-]?P[^T]*[YM]", re.IGNORECASE)


def _uuid(given: Any) -> UUID:
    try:
        return UUID(bytes=given) if isinstance(given, bytes) else UUID(str(given).strip())
    except ValueError:
        raise _unfit(given, "a UUID") from None


def _bytes(given: Any) -> bytes:
    if isinstance(given, bytes):
        return given
    try:
        return bytes.fromhex(given.strip().removeprefix("\\x"))
    except (ValueError, AttributeError):
        raise _unfit(given, r"bytes in hexadecimal, as in \x00ff") from None


def _json(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    try:
        return json.loads(given)
    except ValueError:
        raise _unfit(given, "JSON") from None


def _json_itself(given: Any) -> Any:
    """JSON's null is a value of its own, and not the column's NULL."""
    value = _json(given)
    return types.JSON.NULL if value is None else value


def _array(item: Read, kind: Any) -> Read:
    depth: int | None = kind.dimensions
    may_nest = depth is None and not isinstance(plain_type(kind.item_type), types.JSON)

    def items(values: list[Any], level: int) -> list[Any]:
        nested = (
            level < depth
            if depth is not None
            else may_nest and any(isinstance(each, list) for each in values)
        )
        if nested and not all(isinstance(each, list) for each in values):
            raise Unfit(f"it is no list of {'lists' if depth is None else f'{depth} dimensions'}")
        if nested:
            return [items(each, level + 1) for each in values]
        return [None if each is None else item(each) for each in values]

    def read(given: Any) -> list[Any]:
        values = _json(given)
        if not isinstance(values, list):
            raise _unfit(given, "a list in JSON")
        return items(cast("list[Any]", values), 1)

    return read


def _text(most: int | None, strict: bool) -> Read:
    def read(given: Any) -> str:
        if not isinstance(given, str):
            raise _unfit(given, "text")
        if not strict:
            return given
        if "\0" in given:
            raise Unfit("it has a NUL character, which the database does not take")
        if most is not None and len(given) > most and given[most:].strip(" "):
            raise Unfit(f"it is too long: {len(given)} characters, where {most} fit")
        return given

    return read


def _enum(kind: types.Enum) -> Read:
    """By the label that the database stores, or by the member's value where that is no label."""
    members: Mapping[str, Any] = getattr(kind.enum_class, "__members__", {})
    known: dict[str, Any] = {str(member.value): member for member in members.values()}
    labels = kind.enums
    known |= dict(zip(labels, members.values() if members else labels, strict=True))
    of_class = kind.enum_class

    def read(given: Any) -> Any:
        if of_class is not None and isinstance(given, of_class):
            return given
        if str(given) not in known:
            raise _unfit(given, f"one of {', '.join(labels)}")
        return known[str(given)]

    return read


_READERS: tuple[tuple[type[Any], Read], ...] = (
    (types.Boolean, _boolean),
    (types.Date, _date),
    (types.Interval, _interval),
    (INTERVAL, _interval),
    (types.LargeBinary, _bytes),
    (types.JSON, _json),
)
