"""Cursors as text: every value comes back as it was, and whatever else is given is refused."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalysis import InvalidPage
from catalysis.tools.cursor import LARGEST, Position, read_cursor, write_cursor

sqlite_integers = st.integers(-(2**63), 2**63 - 1)
values: Any = (
    st.none()
    | st.booleans()
    | sqlite_integers
    | st.floats()
    | st.decimals(allow_nan=False)
    | st.text(max_size=50)
    | st.binary(max_size=50)
    | st.uuids()
    | st.dates()
    | st.datetimes().map(lambda moment: moment.replace(fold=0))
    | st.datetimes(timezones=st.just(UTC)).map(lambda moment: moment.replace(fold=0))
    | st.times().map(lambda moment: moment.replace(fold=0))
    | st.timedeltas()
)


@given(st.lists(values, max_size=5), st.booleans())
def test_values_come_back(given: list[Any], inclusive: bool):
    position = Position(tuple(given), inclusive)
    cursor = write_cursor(position, "order")
    again = read_cursor(cursor, "order", len(given))
    assert repr(again) == repr(position)
    assert cursor.isascii()
    assert all(character.isalnum() or character in "-_" for character in cursor)


def test_a_cursor_stays_short():
    position = Position((datetime(2024, 1, 1, tzinfo=UTC), UUID(int=7)))
    assert len(write_cursor(position, "0123456789ab")) < 150


def test_cursors_of_today_are_read_tomorrow():
    position = Position(
        (
            None,
            True,
            7,
            0.1,
            Decimal("1.50"),
            "é",
            b"\0",
            UUID(int=7),
            date(2024, 2, 29),
            time(1, 2),
            timedelta(1, 2),
        )
    )
    cursor = (
        "WzEsIm9yZGVyIiwwLFtudWxsLHRydWUsNyxbImYiLCIwLjEiXSxbIm4iLCIxLjUwIl0sIsOpIixbImIiLCIwMCJdLFsidSIsIjAwMDAwMDAw"
        "LTAwMDAtMDAwMC0wMDAwLTAwMDAwMDAwMDAwNyJdLFsiZCIsIjIwMjQtMDItMjkiXSxbInQiLCIwMTowMjowMCJdLFsiaSIsIjEgMiAwIl1d"
        "XQ"
    )
    assert write_cursor(position, "order") == cursor
    assert read_cursor(cursor, "order", 11) == position


def test_what_has_no_form_or_is_too_long_is_not_written():
    with pytest.raises(InvalidPage, match="A list cannot be kept"):
        write_cursor(Position(([],)), "order")
    with pytest.raises(InvalidPage, match="too long"):
        write_cursor(Position(("x" * LARGEST,)), "order")


@given(st.text(max_size=200) | st.text("abcdefgWzEsI0-_=", max_size=40))
def test_other_text_is_refused(text: str):
    with pytest.raises(InvalidPage):
        read_cursor(text, "order", 1)
