"""What is computed of a relationship for many parents at once: a count, whether there is any, a sum, the first few.

Loading the children to count them is an N+1 of rows, which batched loading cannot see.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, Generic, TypeVar, cast, overload

from sqlalchemy import ColumnElement, Row, Select, and_, func, select, tuple_
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import InstrumentedAttribute, Mapper, aliased

from catalysis.engine.alchemy.associations import joined_through, target_of
from catalysis.engine.alchemy.touches import is_relationship, is_whole

T = TypeVar("T")
C = TypeVar("C")
Selected = Select[*tuple[Any, ...]]

MOST = 5_000
"""The most parents that one statement is sent for."""


@dataclass(frozen=True, slots=True)
class Computed(Generic[T]):
    """What `load` computes for each object; made by `count`, `exists`, `total` and `top`."""

    name: str
    relationship: Any
    statement: Callable[[Any, list[Any], ColumnElement[bool]], Selected]
    """(parent's alias, its key's columns, which parents) → rows of the key and what belongs to it."""
    collect: Callable[[list[Row[Any]]], T]
    """What the rows of one parent, without the key, come to."""
    none: Callable[[], T]
    """What a parent without rows has."""

    def __str__(self) -> str:
        return f"{self.name}({self.relationship})"

    @property
    def owner(self) -> Mapper[Any]:
        """The class of the parents."""
        return self.relationship.parent.mapper

    def compute(
        self,
        session: Any,
        keys: Sequence[tuple[Any, ...]],
        values: dict[Any, T],
        options: Mapping[str, Any],
    ) -> None:
        """Put the value of each parent that has one under its key; inside a greenlet.

        `options` are execution options of the statement.
        """
        parent: Any = aliased(self.owner.class_)
        columns = [getattr(parent, self.owner.get_property_by_column(c).key) for c in self.owner.primary_key]
        single = len(columns) == 1
        wanted = columns[0].in_([key[0] for key in keys]) if single else tuple_(*columns).in_(keys)
        rows: dict[Any, list[Any]] = {}
        for row in session.execute(
            self.statement(parent, columns, wanted), execution_options=options
        ).unique():
            rows.setdefault(tuple(row[: len(columns)]), []).append(row[len(columns) :])
        for key, own in rows.items():
            values[key] = self.collect(own)


def count(relationship: Any, *criteria: ColumnElement[bool] | bool) -> Computed[int]:
    """How many there are: `await load(groups, count(Group.memberships, Membership.active))`, a list of numbers."""
    _check("count", relationship)

    def statement(parent: Any, columns: list[Any], wanted: Any) -> Selected:
        return _grouped(relationship, parent, columns, (wanted, *criteria))

    return Computed("count", relationship, statement, lambda rows: rows[0][0], int)


def exists(relationship: Any, *criteria: ColumnElement[bool] | bool) -> Computed[bool]:
    """Whether there is one: `await load(users, exists(User.tasks, Task.done))`, a list of booleans."""
    _check("exists", relationship)

    def statement(parent: Any, columns: list[Any], wanted: Any) -> Selected:
        leads = getattr(parent, relationship.key)
        condition = and_(*cast("Any", criteria)) if criteria else None
        found = leads.any(condition) if relationship.property.uselist else leads.has(condition)
        return select(*columns).where(wanted, found)

    return Computed("exists", relationship, statement, lambda _: True, bool)


def total(relationship: Any, column: Any, *criteria: ColumnElement[bool] | bool) -> Computed[Any]:
    """The sum of a column: `await load(users, total(User.orders, Order.amount))`.

    Of the column's Python type: a Decimal of a Numeric column, and `Decimal(0)` where there is none.
    """
    _check("total", relationship)
    kind = _summed_type(column)

    def statement(parent: Any, columns: list[Any], wanted: Any) -> Selected:
        return _grouped(relationship, parent, columns, (wanted, *criteria), column)

    def collect(rows: list[Row[Any]]) -> Any:
        sum_ = rows[0][0]
        if sum_ is None:
            return kind()
        return int(sum_) if kind is int else sum_  # PostgreSQL's sum of a bigint is numeric

    return Computed("total", relationship, statement, collect, kind)


@overload
def top(
    relationship: InstrumentedAttribute[list[C]] | list[C],
    n: int,
    *criteria: ColumnElement[bool] | bool,
    order_by: Any = (),
) -> Computed[list[C]]: ...
@overload
def top(
    relationship: Any, n: int, *criteria: ColumnElement[bool] | bool, order_by: Any = ()
) -> Computed[list[Any]]: ...
def top(
    relationship: Any, n: int, *criteria: ColumnElement[bool] | bool, order_by: Any = ()
) -> Computed[list[Any]]:
    """The first `n` of each: `await load(users, top(User.tasks, 3, order_by=Task.created_at.desc()))`.

    A list of lists of instances, in their order; ties go by the primary key.

    Raises:
        ArgumentError: `n` is less than one.
    """
    _check("top", relationship)
    if n < 1:
        raise ArgumentError(f"top() takes the first n of each, with n at least 1; it was given {n}.")
    entity: Any = target_of(relationship.property)
    order: list[Any] = [*order_by] if isinstance(order_by, list | tuple) else [order_by]
    identity = _identity(relationship)

    def statement(parent: Any, columns: list[Any], wanted: Any) -> Selected:
        # One place for what an association table holds twice.
        place = func.dense_rank().over(partition_by=columns, order_by=[*order, *identity]).label("place")
        keys = [*_labelled("parent", columns), *_labelled("child", identity)]
        placed = _joined(relationship, parent, (wanted, *criteria), [*keys, place]).subquery()
        first = select(*[placed.c[f"parent_{i}"] for i in range(len(columns))], entity)
        same = [own == placed.c[f"child_{i}"] for i, own in enumerate(identity)]
        return first.join(placed, and_(*same)).where(placed.c.place <= n).order_by(placed.c.place)

    return Computed("top", relationship, statement, lambda rows: [each for (each,) in rows], list)


def _check(name: str, relationship: Any) -> None:
    prop = getattr(relationship, "property", None)
    if not is_relationship(prop) or not is_whole(relationship):
        raise ArgumentError(
            f"{name}() takes a relationship, as in {name}(Group.memberships); criteria come after it, not in and_()."
        )


def _summed_type(column: Any) -> Callable[[], Any]:
    try:
        kind = func.sum(column).type.python_type
    except NotImplementedError:  # a type of the user's need not say
        return int
    return kind if kind in (float, Decimal, timedelta) else int


def _grouped(
    relationship: Any, parent: Any, columns: list[Any], criteria: Sequence[Any], summed: Any = None
) -> Selected:
    """The number of children of each parent, or the sum of a column of theirs."""
    if relationship.property.secondary is None:
        number = func.count() if summed is None else func.sum(summed)
        return _joined(relationship, parent, criteria, [*columns, number]).group_by(*columns)
    # A collection has each once, whatever an association table holds.
    wanted = [*_labelled("parent", columns), *_labelled("child", _identity(relationship))]
    wanted += [] if summed is None else _labelled("summed", [summed])
    each = _joined(relationship, parent, criteria, wanted).distinct().subquery()
    keys = [each.c[f"parent_{i}"] for i in range(len(columns))]
    return select(*keys, func.count() if summed is None else func.sum(each.c.summed_0)).group_by(*keys)


def _identity(relationship: Any) -> list[Any]:
    target: Mapper[Any] = relationship.property.mapper
    entity = target_of(relationship.property)
    return [getattr(entity, target.get_property_by_column(c).key) for c in target.primary_key]


def _labelled(name: str, columns: Sequence[Any]) -> list[Any]:
    return [column.label(f"{name}_{i}") for i, column in enumerate(columns)]


def _joined(relationship: Any, parent: Any, criteria: Sequence[Any], columns: Sequence[Any]) -> Selected:
    statement = select(*columns).select_from(parent)
    if relationship.property.secondary is None:
        return statement.join(getattr(parent, relationship.key)).where(*criteria)
    return joined_through(statement, relationship.property, parent).where(*criteria)
