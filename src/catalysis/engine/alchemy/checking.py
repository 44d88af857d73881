"""Compilers that look at what a statement reads, and one that refuses what the session's condition does not reach.

SQLAlchemy adds criteria where it knows that a mapped class is meant.  A bare table, a FULL JOIN, a class hidden in a
join that was put together by hand: those it renders without.  So a statement is compiled once more, by a compiler that
looks at every table it is about to write, and fails unless the condition stands beside it.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Engine
from sqlalchemy.sql.elements import BinaryExpression, BooleanClauseList, Grouping
from sqlalchemy.sql.operators import and_
from sqlalchemy.sql.selectable import AliasedReturnsRows, Join, TableClause
from sqlalchemy.util import LRUCache

LOOKED_AT = 1_000
"""The most statements that an engine remembers to have looked at, for each thing that is looked for."""


@dataclass(frozen=True, slots=True)
class Guarded:
    """The tables that may be met only beside their condition."""

    name: str
    """Told apart by it from what else is checked on the same engine."""
    column_of: Callable[[TableClause], str | None]
    """The column of a table that its condition is on; None for a table without one."""
    is_condition: Callable[[BinaryExpression[Any]], bool]
    """Whether a comparison says of its left side what it must."""
    refuse: Callable[[str], Exception]
    """The error, from what is wrong."""
    attached: frozenset[str] = frozenset()
    """Tables that say whose they are only beside a guarded one: association tables, and those of joined subclasses."""
    looked_through: frozenset[Any] = frozenset()
    """Tables that need no condition where they do not stand for a class."""
    allows_textual: bool = False
    """Whether SQL that nobody can look into passes."""
    keeps_outer_rows: bool = False
    """Whether the condition on what an outer join may lack has to stand in its ON: in WHERE it takes rows away."""


def check(
    statement: Any, engine: Engine, guarded: Guarded, columns: Sequence[str] = (), *, many: bool = False
) -> None:
    """Let the statement pass, or raise; what passed once passes again by its cache key.

    Raises:
        Exception: what `guarded.refuse` makes, or what SQLAlchemy raises for a statement that does not compile.
    """
    looked_at(statement, engine, _Checks, guarded.name, guarded, columns, many=many)


def looked_at(
    statement: Any,
    engine: Engine,
    looking: type["Looking"],
    name: str,
    sought: Any,
    columns: Sequence[str],
    *,
    many: bool,
) -> Any:
    """The statement as such a compiler has compiled it, once a cache key for as long as the same is sought.

    Raises:
        Exception: what the compiler raises.
    """
    kept = engine.__dict__.setdefault(_LOOKS, {}).setdefault(name, {})
    if not kept or kept["sought"] is not sought:
        dialect: Any = copy(engine.dialect)
        dialect.statement_compiler = type(
            "LookingCompiler", (looking, dialect.statement_compiler), {"sought": sought}
        )
        kept.update(sought=sought, dialect=dialect, seen=LRUCache(LOOKED_AT))
    compiled, *_ = statement._compile_w_cache(
        dialect=kept["dialect"],
        compiled_cache=kept["seen"],
        column_keys=list(columns),
        for_executemany=many,
        schema_translate_map=None,
    )
    return compiled


_LOOKS = "_catalysis_looks"
"""Under this name an engine keeps them, as the dialect in them is a copy of its own."""


class Looking:
    """Before SQLAlchemy's compiler, in the order of its bases: is shown what each SELECT, UPDATE and DELETE reads."""

    sought: Any

    def look(self, froms: Iterable[Any], where: Iterable[Any]) -> None:
        """At its sources and what stands in its WHERE."""
        raise NotImplementedError

    def _compose_select_body(
        self, text: Any, select: Any, compile_state: Any, inner_columns: Any, froms: Any, *rest: Any
    ) -> Any:
        self.look(froms, select._where_criteria)
        parent: Any = super()
        return parent._compose_select_body(text, select, compile_state, inner_columns, froms, *rest)

    def update_tables_clause(self, update_stmt: Any, from_table: Any, extra_froms: Any, **kw: Any) -> Any:
        self.look([from_table, *(extra_froms or ())], update_stmt._where_criteria)
        parent: Any = super()
        return parent.update_tables_clause(update_stmt, from_table, extra_froms, **kw)

    def delete_table_clause(self, delete_stmt: Any, from_table: Any, extra_froms: Any, **kw: Any) -> Any:
        self.look([from_table, *(extra_froms or ())], delete_stmt._where_criteria)
        parent: Any = super()
        return parent.delete_table_clause(delete_stmt, from_table, extra_froms, **kw)


_PLAIN_LITERAL = re.compile(r"\*|\w+|'[^'\\]*'")
"""What `literal_column()` may say: nothing that could hold a subquery, or an OR that swallows the condition."""


class _Checks(Looking):
    """Seeks what is `Guarded`."""

    def look(self, froms: Iterable[Any], where: Iterable[Any]) -> None:
        check_sources(self.sought, froms, where)

    def visit_textclause(self, textclause: Any, *args: Any, **kw: Any) -> Any:
        self._meet_textual("has textual SQL in it, which may read or write any row")
        parent: Any = super()
        return parent.visit_textclause(textclause, *args, **kw)

    def visit_textual_select(self, taf: Any, *args: Any, **kw: Any) -> Any:
        self._meet_textual("has textual SQL in it, which may read or write any row")
        parent: Any = super()
        return parent.visit_textual_select(taf, *args, **kw)

    def visit_column(self, column: Any, *args: Any, **kw: Any) -> Any:
        if column.is_literal and not _PLAIN_LITERAL.fullmatch(str(column.name)):
            self._meet_textual("has SQL in a literal_column(), which may read any row")
        parent: Any = super()
        return parent.visit_column(column, *args, **kw)

    def _meet_textual(self, what: str) -> None:
        if not self.sought.allows_textual:
            raise self.sought.refuse(what)


# --- What a SELECT, UPDATE or DELETE reads --------------------------------------------------------


def check_sources(guarded: Guarded, froms: Iterable[Any], where: Iterable[Any]) -> None:
    """Whether each table among these has its condition in WHERE, or in the ON of the join that brings it."""
    overall = list(conditions_in(where))
    leaves = [leaf for each in froms for leaf in leaves_of(each, overall, guarded.keeps_outer_rows)]
    some = False
    for table, leaf, conditions in leaves:
        if (column := guarded.column_of(table)) is None:
            continue
        if table in guarded.looked_through and "parententity" not in leaf._annotations:
            continue
        if not any(_is_on(each, leaf, column) and guarded.is_condition(each) for each in conditions):
            raise guarded.refuse(f"reads or writes table {table.name!r} where the condition cannot be added")
        some = True
    for table, _, _ in leaves:
        if table.name in guarded.attached and not some:
            raise guarded.refuse(
                f"names table {table.name!r} by itself, which does not say whose its rows are without what it "
                "belongs to"
            )


def leaves_of(
    source: Any, conditions: list[Any], keeps_outer_rows: bool = False
) -> Iterator[tuple[Any, Any, list[Any]]]:
    """The tables under it: the table, itself or its alias as it stands there, and what every row of it has met.

    `keeps_outer_rows`: whether a condition must leave the rows of an outer join there that it takes the partner of.
    """
    if isinstance(source, Join):
        left, right = _met_in(cast("Any", source), conditions, keeps_outer_rows)
        yield from leaves_of(source.left, left, keeps_outer_rows)
        yield from leaves_of(source.right, right, keeps_outer_rows)
        return
    if source.__visit_name__ in ("grouping", "fromgrouping"):
        yield from leaves_of(source.element, conditions, keeps_outer_rows)
        return
    table = source
    while isinstance(table, AliasedReturnsRows):
        table = cast("Any", table).element
    if isinstance(table, TableClause):
        yield cast("Any", table), source, conditions


def _met_in(join: Any, conditions: list[Any], keeps_outer_rows: bool) -> tuple[list[Any], list[Any]]:
    """What every row of a join's left side has met, and of its right."""
    if join.full:
        return ([], []) if keeps_outer_rows else (conditions, conditions)
    own = list(conditions_in([join.onclause]))
    if join.isouter:
        return conditions, own if keeps_outer_rows else [*conditions, *own]
    return [*conditions, *own], [*conditions, *own]


def conditions_in(clauses: Iterable[Any]) -> Iterator[Any]:
    """What is ANDed in them."""
    for each in clauses:
        if isinstance(each, Grouping):
            yield from conditions_in([cast("Any", each).element])
        elif isinstance(each, BooleanClauseList) and cast("Any", each).operator is and_:
            yield from conditions_in(cast("Any", each).clauses)
        else:
            yield each


def _is_on(condition: Any, leaf: Any, column: str) -> bool:
    """Whether it compares the column of this very table or alias."""
    if not isinstance(condition, BinaryExpression):
        return False
    left = cast("Any", condition).left
    owner = getattr(left, "table", None)
    # Annotated copies of one element have its hash.
    return owner is not None and hash(owner) == hash(leaf) and left.name == column
