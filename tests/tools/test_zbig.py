"""Two laws of pages by cursor: no row that stays is skipped or repeated, and no cursor breaks anything."""

import contextlib
import math
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import DateTime, case, delete, func, insert, literal, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from catalysis import InvalidPage
from catalysis.tools.keyset import KeysetPage, paginate_keyset
from tests.conftest import fresh_postgres_url
from tests.tools.paged_models import START, VALUES, Colour, Everything, engine_with_tables, statements_of
from tests.tools.walks import closed, forged

# --- Rows come and go between the pages -----------------------------------------------------------


class Properties(DeclarativeBase):
    pass


class Item(Properties):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int | None]
    word: Mapped[str]
    moment: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    real: Mapped[float]
    colour: Mapped[Colour | None]


rows = st.fixed_dictionaries(
    {
        "id": st.integers(-50, 1000),
        "number": st.none() | st.integers(0, 2),
        "word": st.sampled_from(["", "a", "A", "b", "é"]),
        "moment": st.none() | st.sampled_from([START, START + timedelta(microseconds=1)]),
        "real": st.sampled_from([0.1 + 0.2, 0.3, -0.0, 0.0, math.inf]),
        "colour": st.none() | st.sampled_from(Colour),
    }
)
expressions: list[Any] = [
    Item.number,
    Item.word,
    Item.moment,
    Item.real,
    Item.colour,
    Item.id,
    func.lower(Item.word),
    func.coalesce(Item.number, 1),
    Item.number * -1,
    case((Item.word == "a", None), else_=Item.real),
]


@st.composite
def statements(draw: st.DrawFn) -> Any:
    statement = select(Item)
    for expression in draw(st.lists(st.sampled_from(expressions), max_size=3, unique_by=id)):
        term = expression.desc() if draw(st.booleans()) else expression.asc()
        nulls = draw(st.sampled_from(["", "", "nulls_first", "nulls_last"]))
        statement = statement.order_by(getattr(term, nulls)() if nulls else term)
    return statement


changes = st.lists(st.tuples(st.sampled_from(["insert", "delete"]), rows), max_size=3)


class Walk:
    """Reads page after page while rows come and go, and remembers which stayed all the time."""

    def __init__(self, session: AsyncSession, statement: Any, size: int) -> None:
        self.session, self.statement, self.size = session, statement, size
        self.stayed: set[int] = set()
        self.used: set[int] = set()
        """Keys of all rows there ever were: a deleted row's key in another place would be that row twice."""

    async def present(self) -> set[int]:
        return set(await self.session.scalars(select(Item.id)))

    async def change(self, happened: list[Any]) -> None:
        for what, row in happened:
            present = sorted(await self.present())
            self.used.update(present)
            if what == "insert" and row["id"] not in self.used:
                await self.session.execute(insert(Item), [row])
            elif what == "delete" and present:
                victim = present[row["id"] % len(present)]
                await self.session.execute(delete(Item).where(Item.id == victim))
                self.stayed.discard(victim)

    async def page(self, **cursor: Any) -> KeysetPage[Any]:
        with statements_of(self.session.bind) as sent:
            page = await paginate_keyset(self.session, self.statement, size=self.size, **cursor)
        assert len(sent) == 1
        assert len(page.items) <= self.size
        return page

    async def forward(self, programme: Iterator[Any]) -> tuple[list[int], KeysetPage[Any]]:
        self.stayed = await self.present()
        page = await self.page()
        seen = [item.id for item in page.items]
        while page.next_cursor is not None:
            await self.change(next(programme, []))
            page = await self.page(after=page.next_cursor)
            seen += [item.id for item in page.items]
        return seen, page

    async def backward(self, programme: Iterator[Any], page: KeysetPage[Any]) -> list[int]:
        seen = [item.id for item in page.items]
        while page.previous_cursor is not None:
            await self.change(next(programme, []))
            page = await self.page(before=page.previous_cursor)
            seen = [item.id for item in page.items] + seen
        return seen


async def check_walk(session: AsyncSession, data: st.DataObject) -> None:
    await session.execute(delete(Item))
    start = data.draw(st.lists(rows, max_size=12, unique_by=lambda row: row["id"]))
    if start:
        await session.execute(insert(Item), start)
    statement = data.draw(statements())
    walk = Walk(session, statement, data.draw(st.integers(1, 4)))

    seen, last = await walk.forward(iter(data.draw(st.lists(changes, max_size=6))))
    assert len(seen) == len(set(seen)), "a row came twice"
    assert walk.stayed <= set(seen), "a row that stayed was skipped"

    # Rows inserted by now after the last page are none of the way back's business.
    walk.stayed = {number for number in seen if number in await walk.present()}
    seen_back = await walk.backward(iter(data.draw(st.lists(changes, max_size=6))), last)
    assert len(seen_back) == len(set(seen_back)), "a row came twice on the way back"
    assert walk.stayed <= set(seen_back), "a row that stayed was skipped on the way back"

    quiet, last = await walk.forward(iter(()))
    assert await walk.backward(iter(()), last) == quiet
    order = [number for number in seen_back if number in quiet]
    assert order == [number for number in quiet if number in order], "pages disagree about the order"
    ranks = (await session.execute(ranked(statement))).all()
    assert [rank for rank, _ in sorted(ranks, key=lambda row: quiet.index(row[1]))] == [
        rank for rank, _ in ranks
    ]


def ranked(statement: Any) -> Any:
    """The rank of each row in the statement's own order, equal for equal rows, and its id."""
    terms = statement._order_by_clauses
    rank = func.rank().over(order_by=terms) if terms else literal(1)
    return statement.with_only_columns(rank, Item.id).order_by(None).order_by(rank)


settings_of_walks = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=100000, **settings_of_walks)
@given(data=st.data())
async def test_no_row_that_stays_is_skipped_or_repeated_on_sqlite(items_in_sqlite: Any, data: st.DataObject):
    await check_walk(items_in_sqlite, data)


@settings(max_examples=1000, **settings_of_walks)
@given(data=st.data())
async def test_no_row_that_stays_is_skipped_or_repeated_on_postgres(
    items_in_postgres: Any, data: st.DataObject
):
    await check_walk(items_in_postgres, data)


@pytest.fixture
async def items_in_sqlite() -> AsyncIterator[AsyncSession]:
    async with (
        engine_with_tables("sqlite+aiosqlite://", Properties) as engine,
        AsyncSession(engine) as session,
    ):
        yield session


@pytest.fixture
async def items_in_postgres(postgres_url: str) -> AsyncIterator[AsyncSession]:
    async with engine_with_tables(postgres_url, Properties) as engine, AsyncSession(engine) as session:
        yield session


# --- Nobody breaks it with a cursor ---------------------------------------------------------------

SORTABLE: list[Any] = [
    *(getattr(Everything, name) for name in VALUES),
    func.lower(Everything.text),
    func.length(Everything.text),
]
json_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=5,
)
tagged_values = st.tuples(
    st.sampled_from("fnbumdti"),
    st.sampled_from(
        [
            "nan",
            "sNaN",
            "inf",
            "1e999999999",
            "-1E-20000",
            "00",
            "zz",
            "9999-12-31T23:59:59-14:00",
            "24:00",
            "1 2 3",
        ]
    )
    | st.text(max_size=10)
    | st.decimals().map(str)
    | st.datetimes().map(str)
    | st.uuids().map(str),
)
spelled_times = st.from_regex(
    r"-?\d{1,9} years? -?\d{1,4} mons?|-?\d{1,12}:\d\d:\d\d(\.\d{1,7})?|\d{4}-\d\d-\d\d( \d\d:\d\d:\d\d([+-]\d\d)?)?",
    fullmatch=True,
)
hostile = (
    json_values | tagged_values | spelled_times | st.sampled_from(["infinity", "\0", "\ud800", "RED", "'"])
)


@pytest.fixture(params=["sqlite", "postgres"])
async def everything(request: pytest.FixtureRequest) -> AsyncIterator[AsyncSession]:
    """A session on some rows with a value of every type; SQLite in memory."""
    url = "sqlite+aiosqlite://" if request.param == "sqlite" else await fresh_postgres_url()
    async with engine_with_tables(url) as engine, AsyncSession(engine) as session:
        rows = [
            {name: values[number % len(values)] for name, values in VALUES.items()} for number in range(6)
        ]
        await session.execute(insert(Everything), rows)
        yield session


@pytest.mark.filterwarnings("ignore:.*does \\*not\\* support Decimal objects natively")
@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
async def test_a_forged_cursor_is_a_page_or_is_refused(everything: AsyncSession, data: st.DataObject):
    statement = select(Everything.id).order_by(data.draw(st.sampled_from(SORTABLE)))
    cursor = (await paginate_keyset(everything, statement, size=2)).next_cursor
    assert cursor is not None
    kind = data.draw(st.sampled_from(["value", "value", "value", "content", "characters", "text"]))
    if kind == "value":
        given = forged(cursor, data.draw(hostile), data.draw(st.integers(1, 2)))
    elif kind == "content":
        given = closed(data.draw(json_values))
    elif kind == "characters":
        place = data.draw(st.integers(0, len(cursor) - 1))
        given = cursor[:place] + data.draw(st.sampled_from("AZaz09-_=+/ ")) + cursor[place + 1 :]
    else:
        given = data.draw(
            st.text() | st.binary().map(lambda raw: urlsafe_b64encode(raw).rstrip(b"=").decode())
        )
    direction = data.draw(st.sampled_from(["after", "before"]))
    with contextlib.suppress(InvalidPage):
        page = await paginate_keyset(everything, statement, **{direction: given}, size=2)
        assert len(page.items) <= 2
    assert (await everything.scalar(select(func.count(Everything.id)))) == 6  # the transaction goes on
