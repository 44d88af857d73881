"""Pages by number: `paginate`, and the `Page` it returns.

Nothing here changes which rows a statement gives: they are put in a definite order, cut and counted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, TypeVarTuple, cast, get_args, overload

from pydantic import BaseModel, ConfigDict, computed_field
from sqlalchemy import BigInteger, CompoundSelect, Result, Row, Select, literal
from sqlalchemy.engine import result_tuple
from sqlalchemy.ext.asyncio import AsyncSession

from catalysis.engine.alchemy.statements import Pageable, collection_from_join, is_limited, with_hidden
from catalysis.errors import InvalidPage
from catalysis.tools.capabilities import capabilities_of
from catalysis.tools.counting import count_rows, estimate_rows
from catalysis.tools.ordering import order_of

T = TypeVar("T")
U = TypeVar("U")
Ts = TypeVarTuple("Ts")

TotalKind = Literal["exact", "none", "estimated", "capped"]

LARGEST_OFFSET = 2**63 - 1
"""What LIMIT and OFFSET can hold: a signed 64-bit integer, on PostgreSQL as on SQLite."""


class Page(BaseModel, Generic[T]):
    """One page of rows, and where it stands; `Page[TaskDTO]` serves as a FastAPI response model."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    items: list[T]
    page: int
    """From 1."""
    size: int
    """The most items a page has."""
    total: int | None
    """Rows on all pages; what the number is worth says `total_kind`."""
    total_kind: TotalKind
    """`exact`; `estimated` by the planner; `capped`: at least `total`; `none`: not asked for."""
    has_next: bool

    @computed_field
    @property
    def pages(self) -> int | None:
        """How many pages the total makes; None without a total."""
        return None if self.total is None else -(-self.total // self.size)

    @computed_field
    @property
    def has_previous(self) -> bool:
        """Whether this is not the first page."""
        return self.page > 1

    def map(self, make: Callable[[T], U]) -> "Page[U]":
        """The same page with `make(item)` for each item: `page.map(TaskDTO.model_validate)`."""
        return cast("Page[U]", self.model_copy(update={"items": [make(item) for item in self.items]}))


@overload
async def paginate(
    session: AsyncSession,
    statement: Select[T],
    *,
    page: int = 1,
    size: int = 20,
    max_size: int = 100,
    total: TotalKind = "exact",
    count_limit: int = 1000,
) -> Page[T]: ...
@overload
async def paginate(
    session: AsyncSession,
    statement: Select[*Ts] | CompoundSelect[*Ts],
    *,
    page: int = 1,
    size: int = 20,
    max_size: int = 100,
    total: TotalKind = "exact",
    count_limit: int = 1000,
) -> Page[Row[*Ts]]: ...
async def paginate(
    session: AsyncSession,
    statement: Any,
    *,
    page: int = 1,
    size: int = 20,
    max_size: int = 100,
    total: TotalKind = "exact",
    count_limit: int = 1000,
) -> Page[Any]:
    """One page of a SELECT, by one statement, and a second one that counts if the page itself does not tell.

    The items are objects if one entity or column is selected, rows if several.  Primary keys are appended to
    the statement's order, so that no row is on two pages.

    `total` is how the rows are counted: `exact`; `none`, not at all; `capped`, no further than `count_limit`
    (`Page.total` is then that limit, or the rows seen so far if they are more); `estimated`, by PostgreSQL's
    planner and exactly elsewhere.  `Page.total_kind` says what it became: a page that reaches the end tells the
    exact number, whatever was asked.

    Raises:
        InvalidPage: `page` or `size` is out of bounds, or the statement cannot be cut into pages.
    """
    check_size(size, max_size)
    check_statement(statement)
    if page < 1:
        raise InvalidPage("page is less than 1.  Pages are numbered from 1.")
    if (offset := (page - 1) * size) > LARGEST_OFFSET - max_size:
        raise InvalidPage("page is too large: no database can skip that many rows.")
    if total not in get_args(TotalKind):
        raise InvalidPage(f"total is none of {', '.join(get_args(TotalKind))}.")

    planned, hidden = _plan_page(statement, offset, size + 1)
    rows, _ = cut(statement, await session.execute(planned), hidden)
    read = _Read(offset, len(rows), reached_end=len(rows) <= size and (bool(rows) or page == 1))
    number, kind = await _count(session, statement, total, count_limit, read)
    return Page(
        items=rows[:size], page=page, size=size, total=number, total_kind=kind, has_next=len(rows) > size
    )


def _plan_page(statement: Any, offset: int, limit: int) -> tuple[Pageable, int]:
    """The statement of one page, and how many columns were added to its rows."""
    order = order_of(statement)
    planned = statement.order_by(*[term.clause() for term in order.added]).limit(limit)
    if offset:
        planned = planned.offset(literal(offset, BigInteger()))  # SQLAlchemy would send it with 32 bits
    if order.repeating:
        # Joined eager loading makes rows unique by what is selected: these keep apart those the join repeats.
        planned = with_hidden(planned, order.repeating)
    return planned, len(order.repeating)


@dataclass(frozen=True, slots=True)
class _Read:
    """What reading the page told."""

    offset: int
    rows: int
    reached_end: bool

    @property
    def seen(self) -> int:
        return self.offset + self.rows if self.rows else 0


async def _count(
    session: AsyncSession, statement: Pageable, asked: TotalKind, limit: int, read: _Read
) -> tuple[int | None, TotalKind]:
    if asked == "none":
        return None, "none"
    if read.reached_end:
        return read.seen, "exact"
    if asked == "capped":
        counted = limit + 1 if read.seen > limit else await count_rows(session, statement, limit=limit)
        return (counted, "exact") if counted <= limit else (max(limit, read.seen), "capped")
    if asked == "estimated" and capabilities_of(session, statement).estimates_rows:
        expected = await estimate_rows(session, statement)
        return (max(expected, read.seen) if read.rows else min(expected, read.offset)), "estimated"
    return await count_rows(session, statement), "exact"


# --- What pages by number and by cursor share -----------------------------------------------------


def check_size(size: int, max_size: int) -> None:
    """Raises: InvalidPage, unless `size` is from 1 to `max_size`."""
    if not 1 <= size <= max_size:
        raise InvalidPage(f"size is not between 1 and {max_size}.")


def check_statement(statement: object) -> None:
    """Raises: InvalidPage, unless the statement is a SELECT whose rows a LIMIT can cut."""
    if not isinstance(statement, Select | CompoundSelect):
        raise InvalidPage(f"A {type(statement).__name__} has no pages.  Give a select().")
    selecting = cast("Pageable", statement)
    if is_limited(selecting):
        raise InvalidPage(
            "The statement has a LIMIT, OFFSET or FETCH of its own.  Leave it to the page, or make it a subquery: "
            "select(aliased(Model, statement.subquery()))."
        )
    if collection := collection_from_join(selecting):
        raise InvalidPage(
            f"contains_eager({collection}) fills a collection from the joined rows, and a page would cut it short.  "
            f"Load it by selectinload({collection}), and filter by {collection}.any(...)."
        )


def cut(statement: Pageable, result: Result[*tuple[Any, ...]], hidden: int) -> tuple[list[Any], list[Any]]:
    """The items of a statement's result, without its last `hidden` columns, and the values of those for each item."""
    if getattr(getattr(result, "context", None), "requires_uniquing", False):
        result = result.unique()
    rows = list(result)
    if not rows:
        return [], []
    own = len(rows[0]) - hidden
    values = [row[own:] for row in rows]
    if own == 1:
        return [row[0] for row in rows], values
    if not hidden or not isinstance(statement, Select):
        return rows, values
    # `Result.columns()` would find the columns by their names, and two entities may share one.
    described = statement.column_descriptions
    make = result_tuple([each["name"] for each in described], [(each["expr"],) for each in described])
    return [make(row[:own]) for row in rows], values
