"""The order of a statement's rows, made total: what the statement says, then what tells its rows apart.

Offset pages and cursor pages order by the same terms, so both give the same rows in the same order.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2s
from typing import Any

from sqlalchemy import Alias, Column, ColumnElement, FromClause, Join, Select, Table, inspect
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.elements import BinaryExpression, BooleanClauseList
from sqlalchemy.sql.functions import cube, grouping_sets, rollup
from sqlalchemy.sql.operators import and_, eq
from sqlalchemy.sql.visitors import iterate

from catalysis.engine.alchemy.statements import (
    Pageable,
    distinct_on,
    groups,
    is_distinct,
    leaves,
    orders,
    origins,
    plain,
    read_order,
    unnameable,
)


@dataclass(frozen=True, slots=True)
class Term:
    """One term of an order."""

    expression: ColumnElement[Any]
    descending: bool = False
    nulls_first: bool | None = None
    """None: where the database puts them."""
    nullable: bool = True

    def clause(self, *, backward: bool = False) -> ColumnElement[Any]:
        """The element of ORDER BY, or the one that gives exactly the reverse."""
        clause: Any = self.expression.desc() if self.descending != backward else self.expression.asc()
        if self.nulls_first is None:
            return clause
        return clause.nulls_first() if self.nulls_first != backward else clause.nulls_last()

    def puts_nulls_first(self, nulls_are_largest: bool) -> bool:
        """Where NULLs stand; `nulls_are_largest` tells what the database does unless told."""
        return self.descending == nulls_are_largest if self.nulls_first is None else self.nulls_first


@dataclass(frozen=True, slots=True)
class Order:
    """How a statement's rows are ordered once every two of them are told apart."""

    given: list[Term | None]
    """The terms of its ORDER BY; None for one that only the database can read."""
    added: list[Term]
    """What to append so that no two rows are equal, in the direction of the last given term.

    One direction throughout lets an index over the terms serve, and rows be compared as a whole.
    """
    repeating: list[ColumnElement[Any]]
    """Key columns of tables that were only joined, and repeat what is selected."""


def order_of(statement: Pageable) -> Order:
    """The order of a statement."""
    froms = list(origins(statement)) if isinstance(statement, Select) else []
    solid = [] if _has_grouping_sets(statement) else _never_null(froms)
    given: list[Term | None] = []
    for clause in orders(statement):
        expression, descending, nulls_first = read_order(clause, statement)
        nullable = expression is None or _nullable(expression, solid)
        given.append(None if expression is None else Term(expression, descending, nulls_first, nullable))
    if not isinstance(statement, Select):
        return Order(given, [], [])

    identity = _identity(statement)
    repeating = _repeating(statement, froms, identity)
    descending = bool(given) and (given[-1] is not None and given[-1].descending)
    known = [term.expression for term in given if term is not None]
    added: list[Term] = []
    for expression in identity + repeating:
        if not any(same(expression, other) for other in known):
            known.append(expression)
            added.append(Term(expression, descending, nullable=_nullable(expression, solid)))
    return Order(given, added, repeating)


def same(one: ColumnElement[Any], other: ColumnElement[Any]) -> bool:
    """Whether two expressions are one, over the same tables; SQLAlchemy takes two aliases of one table for equal."""
    return one.compare(other) and _tables(one) == _tables(other)


def _tables(expression: ColumnElement[Any]) -> list[FromClause]:
    return [part.table for part in iterate(expression) if isinstance(part, Column)]


def fingerprint(terms: list[Term], dialect: Dialect) -> str:
    """A short hash of the order, its parameters included; equal in every process."""
    spelled: list[str] = []
    for term in terms:
        compiled = term.expression.compile(dialect=dialect)
        spelled.append(f"{compiled} {sorted(compiled.params.items())} {term.descending} {term.nulls_first}")
    return blake2s("\n".join(spelled).encode(), digest_size=6).hexdigest()


# --- What tells rows apart ------------------------------------------------------------------------


def _identity(statement: Select[*tuple[Any, ...]]) -> list[ColumnElement[Any]]:
    """Expressions that tell what is selected apart, as far as that is known, and that ORDER BY may hold."""
    if _has_grouping_sets(statement):
        return []
    if grouped := groups(statement):
        expressions = [read_order(clause, statement)[0] for clause in grouped]
        return [expression for expression in expressions if expression is not None]
    identity = distinct_on(statement)
    only_selected = is_distinct(statement) and not identity
    for described in statement.column_descriptions:
        if only_selected and described["expr"] is not described.get("entity"):
            identity.append(plain(described["expr"]))
        else:
            identity.extend(_key(described))
    return identity


def _has_grouping_sets(statement: Pageable) -> bool:
    return any(isinstance(plain(clause), cube | grouping_sets | rollup) for clause in groups(statement))


def _key(described: Any) -> list[ColumnElement[Any]]:
    """The primary key behind one selected entity or plain column; nothing behind other expressions.

    An aggregate has none: to order its one row by a key would be an error.
    """
    entity, expression = described.get("entity"), plain(described["expr"])
    if entity is None:
        return list(expression.table.primary_key) if isinstance(expression, Column) else []
    if described["expr"] is not entity and not isinstance(expression, Column):
        return []
    mapper: Any = inspect(entity).mapper
    keys = [mapper.get_property_by_column(column).key for column in mapper.primary_key]
    return [getattr(entity, key).expression for key in keys]


# --- What a join repeats --------------------------------------------------------------------------


def _repeating(
    statement: Select[*tuple[Any, ...]], froms: list[FromClause], identity: list[ColumnElement[Any]]
) -> list[ColumnElement[Any]]:
    """Key columns of the tables whose row is not settled by the selected ones.

    `select(Task).join(Task.user)` has none: the task settles its user.  `select(Task).join(Task.tags)` repeats
    a task for each tag.
    """
    if not identity or is_distinct(statement) or groups(statement):
        return []
    equations = [equation for origin in froms for equation in _equations_of_join(origin)]
    filters = list(_equations(statement.whereclause))
    settled: list[FromClause] = [column.table for column in identity if isinstance(column, Column)]
    open_ = [leaf for origin in froms for leaf in leaves(origin)]
    open_ += [column.table for column, _ in filters if column.table not in open_]  # FROM a, b WHERE …
    equations += filters

    def is_fixed(column: ColumnElement[Any]) -> bool:
        return any(
            same(one, column) and (not isinstance(other, Column) or other.table in settled)
            for one, other in equations
        )

    repeating: list[ColumnElement[Any]] = []
    while open_ := [leaf for leaf in open_ if leaf not in settled]:
        followed = [leaf for leaf in open_ if all(map(is_fixed, leaf.primary_key))]
        nameable = [leaf for leaf in open_ if not unnameable(statement, leaf)]
        if not (ready := followed or nameable):
            break
        repeating += [column for column in ready[0].primary_key if not is_fixed(column)]
        settled.append(ready[0])
    return repeating


def _equations_of_join(origin: FromClause) -> Iterator[tuple[Column[Any], Any]]:
    """What ON equates; of an outer join only what settles its far side, since the far side may be missing."""
    if not isinstance(origin, Join):
        return
    yield from _equations_of_join(origin.left)
    yield from _equations_of_join(origin.right)
    far = list(leaves(origin.right))
    for one, other in _equations(origin.onclause):
        if not origin.full and (not origin.isouter or one.table in far):
            yield one, other


def _equations(condition: Any) -> Iterator[tuple[Column[Any], Any]]:
    """Column and what it must equal, each way round."""
    if isinstance(condition, BooleanClauseList) and condition.operator is and_:
        for clause in condition.clauses:
            yield from _equations(clause)
    elif isinstance(condition, BinaryExpression) and condition.operator is eq:
        for one, other in ((condition.left, condition.right), (condition.right, condition.left)):
            if isinstance(one, Column):
                yield one, other


# --- Which columns are never NULL -----------------------------------------------------------------


def _nullable(expression: ColumnElement[Any], solid: list[FromClause]) -> bool:
    return not (isinstance(expression, Column) and not expression.nullable and expression.table in solid)


def _never_null(froms: list[FromClause]) -> list[FromClause]:
    """The tables and their aliases whose rows are always there: not on the far side of an outer join."""
    return [leaf for origin in froms for leaf in _inner(origin) if _is_table(leaf)]


def _inner(origin: FromClause) -> Iterator[FromClause]:
    if not isinstance(origin, Join):
        yield origin
    elif not origin.full:
        yield from _inner(origin.left)
        if not origin.isouter:
            yield from _inner(origin.right)


def _is_table(origin: FromClause) -> bool:
    """A subquery is none: its column may be NOT NULL in the table and NULL in an outer join inside."""
    return isinstance(origin, Table) or (isinstance(origin, Alias) and isinstance(origin.element, Table))
