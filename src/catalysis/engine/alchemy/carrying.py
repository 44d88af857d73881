"""A compiler that looks whether a statement carries the distribution columns of its tables.

A distributed table's rows are on the shard that the value of one column says.  A statement carries that column where
it gives it a value, or ties it to that of another table which does; without one, every shard has to be asked.  Looked
at is what SQLAlchemy is about to write, criteria and eager joins included, SELECT by SELECT.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, cast

from sqlalchemy import Engine
from sqlalchemy.sql.elements import BinaryExpression, BooleanClauseList, ColumnClause, Grouping, Tuple
from sqlalchemy.sql.operators import and_, eq, in_op, or_
from sqlalchemy.sql.visitors import iterate

from catalysis.engine.alchemy.checking import Looking, conditions_in, leaves_of, looked_at
from catalysis.engine.alchemy.compiling import outer_options

DISTRIBUTION = "distribution"
"""The key of `Table.info` under which a table says how it is distributed; what has `by` names a column."""

DISTRIBUTION_CHECK = "distribution_check"
"""Execution option of a statement: "allow", "warn" or "raise", whatever its session says."""


def said_of(options: Mapping[str, Any]) -> Any:
    """What execution options say of it: a statement's, or those of the one whose eager load it is; None for nothing."""
    if DISTRIBUTION_CHECK in options:
        return options[DISTRIBUTION_CHECK]
    return outer_options(options).get(DISTRIBUTION_CHECK)


class Uncarried(NamedTuple):
    """A table that a statement reads or writes without a value for its distribution column."""

    table: str
    column: str
    sql: str = ""
    """The statement, without its parameters' values."""


def uncarried(
    statement: Any, engine: Engine, columns: Iterable[str] = (), *, many: bool = False
) -> Uncarried | None:
    """The first table whose distribution column a statement does not carry; None if it carries all.

    Raises:
        Exception: what SQLAlchemy raises for a statement that does not compile.
    """
    compiled = looked_at(statement, engine, _Looks, DISTRIBUTION, None, sorted(columns), many=many)
    found: Uncarried | None = compiled.uncarried
    return None if found is None else found._replace(sql=compiled.string)


class _Looks(Looking):
    """Seeks a table whose distribution column is not carried."""

    uncarried: Uncarried | None = None

    def look(self, froms: Iterable[Any], where: Iterable[Any]) -> None:
        self.uncarried = self.uncarried or _uncarried_among(froms, where)


class _Leaf(NamedTuple):
    table: Any
    source: Any
    """The same, or its alias."""
    column: Any
    """Its distribution column."""
    conditions: list[Any]
    """What every row of it has met."""


def _uncarried_among(froms: Iterable[Any], where: Iterable[Any]) -> Uncarried | None:
    overall = list(conditions_in(where))
    waiting: list[_Leaf] = []
    for each in froms:
        for table, source, conditions in leaves_of(each, overall):
            if (by := column_of(table)) is not None and by in source.c:
                waiting.append(_Leaf(table, source, source.c[by], conditions))
    if not waiting:
        return None
    carried: set[int] = {hash(leaf.source) for leaf in waiting if _has_value(leaf)}
    here = {hash(leaf.source): leaf for leaf in waiting}
    while True:
        tied = {key for key, leaf in here.items() if key not in carried and _is_tied(leaf, here, carried)}
        if not tied:
            break
        carried |= tied
    left = next((leaf for key, leaf in here.items() if key not in carried), None)
    return None if left is None else Uncarried(str(left.table.name), str(left.column.name))


def column_of(table: Any) -> str | None:
    """The distribution column's name; None for a table that is not distributed."""
    return getattr(getattr(table, "info", {}).get(DISTRIBUTION), "by", None)


def _has_value(leaf: _Leaf) -> bool:
    return any(_gives_value(each, leaf) for each in leaf.conditions)


def _gives_value(condition: Any, leaf: _Leaf) -> bool:
    if isinstance(condition, Grouping):
        return _gives_value(cast("Any", condition).element, leaf)
    if isinstance(condition, BooleanClauseList):
        parts: Any = condition
        some = (_gives_value(each, leaf) for each in parts.clauses)
        return all(some) if parts.operator is or_ else parts.operator is and_ and any(some)
    if not isinstance(condition, BinaryExpression):
        return False
    left, right = cast("Any", condition).left, cast("Any", condition).right
    operator: Any = condition.operator
    if operator is in_op:
        of = cast("Any", left).clauses if isinstance(left, Tuple) else [left]
        return any(_is_column(each, leaf) for each in of) and not _has_columns(right)
    if operator is not eq:
        return False
    return (_is_column(left, leaf) and not _has_columns(right)) or (
        _is_column(right, leaf) and not _has_columns(left)
    )


def _is_tied(leaf: _Leaf, here: dict[int, _Leaf], carried: set[int]) -> bool:
    """Whether its column equals the one of a table that carries, here or in a statement around or within this one."""
    for condition in leaf.conditions:
        if not (isinstance(condition, BinaryExpression) and cast("Any", condition).operator is eq):
            continue
        for own, other in _both_ways(condition):
            if not _is_column(own, leaf):
                continue
            key = hash(getattr(other, "table", None))
            if key in here:
                if key in carried and _is_column(other, here[key]):
                    return True
            elif any(column_of(each.table) == each.name for each in _origins(other)):
                return True
    return False


def _both_ways(condition: Any) -> Iterator[tuple[Any, Any]]:
    yield condition.left, condition.right
    yield condition.right, condition.left


def _origins(column: Any) -> list[Any]:
    """The columns of tables that a column of an alias or a subquery comes from."""
    return [each for each in getattr(column, "base_columns", ()) if getattr(each, "table", None) is not None]


def _is_column(element: Any, leaf: _Leaf) -> bool:
    # Annotated copies of one element have its hash.
    return getattr(element, "name", None) == leaf.column.name and hash(
        getattr(element, "table", None)
    ) == hash(leaf.source)


def _has_columns(element: Any) -> bool:
    return any(isinstance(each, ColumnClause) and each.table is not None for each in iterate(element))
