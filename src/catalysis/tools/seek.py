"""What a page by cursor asks of the database: rows in order, from a position on, with the values they stand at.

Pure planning: a statement and a position go in, a statement comes out; values come in, a cursor goes out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import ColumnElement, Over, Select, and_, false, or_, tuple_, type_coerce
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.operators import ge, gt, le, lt
from sqlalchemy.sql.visitors import iterate
from sqlalchemy.types import NullType

from catalysis.engine.alchemy.statements import distinct_on, groups, is_distinct, plain, with_hidden
from catalysis.errors import InvalidPage
from catalysis.tools.capabilities import Capabilities
from catalysis.tools.cursor import UNREADABLE, Position, read_cursor, write_cursor
from catalysis.tools.ordering import Term, fingerprint, order_of, same
from catalysis.tools.sort_values import SortType, sort_type


@dataclass(frozen=True, slots=True)
class Seek:
    """A statement with its total order, ready to begin anywhere in it."""

    selecting: Select[*tuple[Any, ...]]
    terms: list[Term]
    types: list[SortType]
    capabilities: Capabilities
    fingerprint: str

    def read(self, cursor: str) -> Position:
        """The position in a cursor.

        Raises:
            InvalidPage: the cursor is not one of this order.
        """
        position = read_cursor(cursor, self.fingerprint, len(self.terms))
        if not all(self._suit(position.values)):
            raise InvalidPage(UNREADABLE)
        return position

    def write(self, values: Sequence[Any], *, inclusive: bool = False) -> str:
        """The cursor for a row with these values.

        Raises:
            InvalidPage: a value is not what its term promises, or too long.
        """
        for value, suits, term in zip(values, self._suit(values), self.terms, strict=True):
            if not suits:
                kind = "NULL" if value is None else type(value).__name__
                raise InvalidPage(
                    f"The database gave a {kind} for {term.expression}, which the type it is declared with does "
                    "not have or a cursor cannot keep.  Declare the column as it is, or order by a cast() of it."
                )
        return write_cursor(Position(tuple(values), inclusive), self.fingerprint)

    def refused(self, error: DBAPIError) -> bool:
        """Whether an error says that a cursor's value is not of its term's type, for types only the database knows."""
        # Class 22 of PostgreSQL's error codes: asyncpg cannot encode the value, the server cannot read it.
        state = getattr(error.orig, "sqlstate", None)
        return any(kind.inferred for kind in self.types) and state in ("22000", "22P02")

    def _suit(self, values: Sequence[Any]) -> list[bool]:
        return [
            term.nullable if value is None else kind.suits(value)
            for value, term, kind in zip(values, self.terms, self.types, strict=True)
        ]

    def statement(self, start: Position | None, *, backward: bool, limit: int) -> Select[*tuple[Any, ...]]:
        """Rows from `start` on, each with the values of its terms behind its own columns."""
        selecting: Any = self.selecting
        if start is not None:
            beyond = self._beyond(start, backward=backward)
            selecting = selecting.having(beyond) if groups(selecting) else selecting.where(beyond)
        clauses = [term.clause(backward=backward) for term in self.terms]
        columns = [kind.column(term.expression) for term, kind in zip(self.terms, self.types, strict=True)]
        return with_hidden(selecting, columns).order_by(None).order_by(*clauses).limit(limit)

    def _beyond(self, start: Position, *, backward: bool) -> ColumnElement[bool]:
        sides = [
            _Side(
                # Free of its Python type, whose operators may differ from the database's.
                expression=type_coerce(term.expression, NullType()),
                value=None if value is None else kind.parameter(value),
                descending=term.descending != backward,
                nulls_first=term.puts_nulls_first(self.capabilities.nulls_are_largest) != backward,
                nullable=term.nullable,
            )
            for term, kind, value in zip(self.terms, self.types, start.values, strict=True)
        ]
        one_way = len({side.descending for side in sides}) == 1
        if self.capabilities.compares_rows and one_way and not any(side.nullable for side in sides):
            return _row_comparison(sides, inclusive=start.inclusive)
        return _spelled_out(sides, inclusive=start.inclusive)


def plan_seek(statement: Any, capabilities: Capabilities) -> Seek:
    """How to page through a statement by cursor.

    Raises:
        InvalidPage: there is no way.
    """
    if not isinstance(statement, Select) or distinct_on(cast("Any", statement)):
        raise InvalidPage(
            "A UNION or DISTINCT ON gives other rows if it begins elsewhere, so it has no cursors.  Make it a "
            "subquery: select(aliased(Model, statement.subquery())).order_by(...)."
        )
    selecting = cast("Select[*tuple[Any, ...]]", statement)
    order = order_of(selecting)
    given = [_readable(term) for term in order.given]
    terms = given + order.added
    if not terms:
        raise InvalidPage("The statement has no order and no primary key to order by.  Add order_by(...).")
    if is_distinct(selecting):
        selected = [plain(column) for column in selecting.selected_columns]
        for term in terms:
            if not any(same(term.expression, column) for column in selected):
                raise InvalidPage(
                    f"A DISTINCT statement is ordered by {term.expression}, which it does not select.  Select it, or "
                    "make the statement a subquery and order that."
                )
    types = [sort_type(term.expression, capabilities) for term in terms]
    return Seek(selecting, terms, types, capabilities, fingerprint(terms, capabilities.dialect))


def _readable(term: Term | None) -> Term:
    if term is None:
        raise InvalidPage(
            "order_by() has a text() or a name that is no column's, which only the database can read.  Give the "
            "column or expression itself, such as Model.created_at.desc()."
        )
    if any(isinstance(part, Over) for part in iterate(term.expression)):
        raise InvalidPage(
            f"The order has a window function, {term.expression}, which WHERE cannot compare.  Make the statement a "
            "subquery and order by its column."
        )
    return term


# --- Beyond a position ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Side:
    """One term against one value, in the direction of reading."""

    expression: ColumnElement[Any]
    value: ColumnElement[Any] | None
    """None: NULL."""
    descending: bool
    nulls_first: bool
    nullable: bool

    def equal(self) -> ColumnElement[bool]:
        return self.expression.is_(None) if self.value is None else self.expression == self.value

    def after(self) -> ColumnElement[bool]:
        if self.value is None:
            return self.expression.is_not(None) if self.nulls_first else false()
        after = self.expression < self.value if self.descending else self.expression > self.value
        return or_(after, self.expression.is_(None)) if self.nullable and not self.nulls_first else after


def _row_comparison(sides: list[_Side], *, inclusive: bool) -> ColumnElement[bool]:
    """`(a, b) > (x, y)`, which an index over (a, b) answers from its place in the middle."""
    strict, loose = (lt, le) if sides[0].descending else (gt, ge)
    compare = loose if inclusive else strict
    expressions, values = [side.expression for side in sides], [side.value for side in sides]
    if len(sides) == 1:
        return compare(expressions[0], values[0])
    return compare(tuple_(*expressions), tuple_(*values))


def _spelled_out(sides: list[_Side], *, inclusive: bool) -> ColumnElement[bool]:
    """`a > x OR (a = x AND (b > y OR ...))`, for any mix of directions and for NULLs."""
    first, last = sides[0], sides[-1]
    beyond = or_(last.after(), last.equal()) if inclusive else last.after()
    for side in reversed(sides[:-1]):
        beyond = or_(side.after(), and_(side.equal(), beyond))
    if len(sides) > 1 and not first.nullable:
        # Says nothing new, but an index on the first term can use this and not the OR.
        beyond = and_((le if first.descending else ge)(first.expression, first.value), beyond)
    return beyond
