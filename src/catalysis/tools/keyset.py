"""Pages by cursor: `paginate_keyset`, and the `KeysetPage` it returns.

A page begins where the values of a row stand in the order, whether or not that row is still there; so inserts
and deletes between pages neither repeat nor hide a row that stayed.
"""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, TypeVarTuple, cast, overload

from pydantic import BaseModel, ConfigDict, computed_field
from sqlalchemy import Row, Select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from catalysis.errors import InvalidPage
from catalysis.tools.capabilities import capabilities_of
from catalysis.tools.cursor import UNREADABLE, Position
from catalysis.tools.paginate import check_size, check_statement, cut
from catalysis.tools.seek import Seek, plan_seek

T = TypeVar("T")
U = TypeVar("U")
Ts = TypeVarTuple("Ts")


class KeysetPage(BaseModel, Generic[T]):
    """One page of rows and the cursors of its neighbours; `KeysetPage[TaskDTO]` serves as a response model."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    items: list[T]
    size: int
    """The most items a page has."""
    next_cursor: str | None
    """For `after`; None on the last page."""
    previous_cursor: str | None
    """For `before`; None on the first page."""

    @computed_field
    @property
    def has_next(self) -> bool:
        """Whether there is a `next_cursor`."""
        return self.next_cursor is not None

    @computed_field
    @property
    def has_previous(self) -> bool:
        """Whether there is a `previous_cursor`."""
        return self.previous_cursor is not None

    def map(self, make: Callable[[T], U]) -> "KeysetPage[U]":
        """The same page with `make(item)` for each item: `page.map(TaskDTO.model_validate)`."""
        return cast("KeysetPage[U]", self.model_copy(update={"items": [make(item) for item in self.items]}))


@overload
async def paginate_keyset(
    session: AsyncSession,
    statement: Select[T],
    *,
    after: str | None = None,
    before: str | None = None,
    size: int = 20,
    max_size: int = 100,
) -> KeysetPage[T]: ...
@overload
async def paginate_keyset(
    session: AsyncSession,
    statement: Select[*Ts],
    *,
    after: str | None = None,
    before: str | None = None,
    size: int = 20,
    max_size: int = 100,
) -> KeysetPage[Row[*Ts]]: ...
async def paginate_keyset(
    session: AsyncSession,
    statement: Any,
    *,
    after: str | None = None,
    before: str | None = None,
    size: int = 20,
    max_size: int = 100,
) -> KeysetPage[Any]:
    """The page after, or before, a cursor in the statement's order; the first one without a cursor.

    One statement; with an index over the order its cost does not grow with the page's distance from the start.
    The primary key is appended to the order.  A cursor holds the values that rows are ordered by, readable by
    whoever has it, and works only with the same order; filters may change.

    The items are objects if one entity or column is selected, rows if several.  Going on from a cursor, the
    neighbour one came from counts as there even if all its rows are gone by now.

    Raises:
        InvalidPage: `size` is out of bounds, the cursor is not one of this order, or the statement cannot be
            paged by cursor (no order and no key, DISTINCT ON, a LIMIT of its own, an order only the database
            can read).
    """
    check_size(size, max_size)
    if after is not None and before is not None:
        raise InvalidPage("after and before are both given.  A page is on one side of one cursor.")
    check_statement(statement)
    seek = plan_seek(statement, capabilities_of(session, statement))
    cursor = after if before is None else before
    start = None if cursor is None else seek.read(cursor)

    try:
        result = await session.execute(seek.statement(start, backward=before is not None, limit=size + 1))
    except DBAPIError as error:
        if start is None or not seek.refused(error):
            raise
        raise InvalidPage(UNREADABLE) from error
    read = list(zip(*cut(seek.selecting, result, hidden=len(seek.terms)), strict=True))
    return _arranged(seek, read, size, start, backward=before is not None)


def _arranged(
    seek: Seek, read: list[tuple[Any, Sequence[Any]]], size: int, start: Position | None, *, backward: bool
) -> KeysetPage[Any]:
    """The page, given up to `size` items and one more as they were read, each with the values it stands at."""
    more = len(read) > size
    if more and seek.write(read[size - 1][1]) == seek.write(read[size][1]):
        raise InvalidPage(
            "Two rows are equal in every term of the order, and a page that begins between them would miss one.  "
            "Add a column to order_by() that tells them apart, such as the primary key of every joined table."
        )
    items, keys = [item for item, _ in read[:size]], [key for _, key in read[:size]]
    onward = seek.write(keys[-1]) if more else None
    back = None
    if start is not None:
        # From an empty page the way back begins at the cursor's own row, should that be there.
        back = seek.write(keys[0]) if keys else seek.write(start.values, inclusive=not start.inclusive)
    if backward:
        items.reverse()
        onward, back = back, onward
    return KeysetPage(items=items, size=size, next_cursor=onward, previous_cursor=back)
