"""The shorter conversions give what SQLAlchemy's own give, for everything a column may hold."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Uuid
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel.sql.sqltypes import UTCDateTime

from catalysis.engine.conversions import NAMES, conversion, parameter


def both(kind: Any, dialect: Any, is_key: bool = False) -> tuple[Any, Any]:
    """SQLAlchemy's way and ours."""
    typed = kind.dialect_impl(dialect)
    processor = typed.result_processor(dialect, None)
    found = conversion(kind, processor, is_text=dialect.name == "sqlite", is_key=is_key)
    assert found is not None
    expression, used = found
    ours = eval(f"lambda value: {expression.format('value', 'used')}", {"used": used, **NAMES})
    return processor, ours


def outcome(function: Any, value: Any) -> Any:
    try:
        result = function(value)
    except Exception as error:
        return type(error)
    return result, getattr(result, "tzinfo", None), type(result)


@pytest.mark.parametrize("is_key", [False, True])
@given(st.one_of(st.uuids().map(lambda each: each.hex), st.uuids().map(str), st.none(), st.text(max_size=40)))
def test_uuids_of_text(is_key: bool, value: str | None):
    stock, ours = both(Uuid(), sqlite.dialect(), is_key)
    assert outcome(stock, value) == outcome(ours, value)
    assert outcome(stock, value) == outcome(ours, value), "remembered"


@given(
    st.one_of(
        st.datetimes().map(lambda each: each.isoformat(" ", "microseconds")),
        st.datetimes().map(lambda each: each.isoformat(" ")),
        st.datetimes(timezones=st.just(timezone(timedelta(hours=5)))).map(str),
        st.dates().map(str),
        st.none(),
        st.text(max_size=30),
    )
)
def test_times_of_text(value: str | None):
    stock, ours = both(UTCDateTime(), sqlite.dialect())
    assert outcome(stock, value) == outcome(ours, value)


@given(st.one_of(st.none(), st.datetimes(), st.datetimes(timezones=st.timezones())))
def test_times_of_times(value: datetime | None):
    stock, ours = both(UTCDateTime(), postgresql.asyncpg.dialect())
    assert outcome(stock, value) == outcome(ours, value)
    if value is not None:
        aware = value.replace(tzinfo=UTC)
        assert ours(aware) is aware


def test_a_type_of_ones_own_keeps_its_processor():
    class Mine(UTCDateTime):
        def process_result_value(self, value: Any, dialect: Any) -> Any:
            return "mine"

    _, ours = both(Mine(), postgresql.asyncpg.dialect())
    assert ours(datetime.now(UTC)) == "mine"
    _, text = both(Uuid(as_uuid=False), sqlite.dialect())
    assert text(UUID(int=1).hex) == str(UUID(int=1))


class Moment(datetime):
    """A datetime of somebody's own."""


class Number(UUID):
    """A UUID of somebody's own."""


TIMES = st.one_of(
    st.none(),
    st.datetimes(),
    st.datetimes(timezones=st.just(UTC)),
    st.datetimes(timezones=st.timezones()),
    st.datetimes(timezones=st.just(UTC)).map(lambda each: Moment.fromtimestamp(each.timestamp(), UTC)),
    st.dates(),
    st.text(max_size=5),
)
UUIDS = st.one_of(
    st.none(), st.uuids(), st.uuids().map(lambda each: Number(each.hex)), st.uuids().map(str), st.integers()
)


@pytest.mark.parametrize(
    "dialect", [sqlite.dialect(), postgresql.asyncpg.dialect()], ids=lambda each: each.name
)
@pytest.mark.parametrize(
    ("kind", "values"), [(UTCDateTime(), TIMES), (Uuid(), UUIDS), (Uuid(as_uuid=False), UUIDS)]
)
@given(data=st.data())
def test_parameters(dialect: Any, kind: Any, values: st.SearchStrategy[Any], data: st.DataObject):
    stock = kind.dialect_impl(dialect).bind_processor(dialect) or (lambda value: value)
    processor = kind.dialect_impl(dialect).bind_processor(dialect)
    expression = parameter(kind, processor).format("value", "used")
    ours = eval(f"lambda value: {expression}", {"used": processor, **NAMES})
    value = data.draw(values)
    assert outcome(stock, value) == outcome(ours, value)


def test_a_format_of_its_own_is_kept():
    """SQLite's times may be stored otherwise: what the processor does is seen by trying."""
    own = sqlite.DATETIME(truncate_microseconds=True).bind_processor(sqlite.dialect())
    assert parameter(UTCDateTime(), own) == "{1}({0})"
    assert "%" in parameter(UTCDateTime(), sqlite.DATETIME().bind_processor(sqlite.dialect()))
