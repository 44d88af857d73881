"""A compiler that refuses what a condition of the session's own does not reach.

SQLAlchemy adds criteria where it knows that a mapped class is meant.  A bare table, a FULL JOIN, a class hidden in a
join that was put together by hand: those it renders without.  So a statement is compiled once more, by a compiler that
looks at every table it is about to write, and fails unless the condition stands beside it.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Engine
from sqlalchemy.sql.elements import BinaryExpression, BooleanClauseList, Grouping
from sqlalchemy.sql.operators import and_, eq
from sqlalchemy.sql.selectable import AliasedReturnsRows, Join, TableClause
from sqlalchemy.util import LRUCache

from catalysis.engine.alchemy.criteria import OwnParameter

CHECKED = 1_000
"""The most statements that an engine remembers as checked."""


@dataclass(frozen=True, slots=True)
class Guarded:
    """The tables whose rows have owners; a table is known by its name, however it was made."""

    columns: Mapping[str, str]
    """Table → the column that says whose the row is."""
    attached: frozenset[str]
    """Tables that say so only beside one of those: association tables, and those of joined subclasses."""
    refuse: Callable[[str], Exception]
    """The error, from what is wrong."""


def check(
    statement: Any, engine: Engine, guarded: Guarded, columns: Sequence[str] = (), *, many: bool = False
) -> None:
    """Let the statement pass, or raise; what passed once passes again by its cache key.

    Raises:
        Exception: what `guarded.refuse` makes, or what SQLAlchemy raises for a statement that does not compile.
    """
    kept = engine.__dict__.setdefault(_CHECKS, {})
    if kept.get("guarded") is not guarded:
        kept.update(guarded=guarded, dialect=_checking(engine.dialect, guarded), passed=LRUCache(CHECKED))
    statement._compile_w_cache(
        dialect=kept["dialect"],
        compiled_cache=kept["passed"],
        column_keys=list(columns),
        for_executemany=many,
        schema_translate_map=None,
    )


_CHECKS = "_catalysis_checks"
"""Under this name an engine keeps them, as the dialect in them is a copy of its own."""


def _checking(dialect: Any, guarded: Guarded) -> Any:
    made = copy(dialect)
    made.statement_compiler = type(
        "CheckingCompiler", (_Checks, dialect.statement_compiler), {"guarded": guarded}
    )
    return made


_PLAIN_LITERAL = re.compile(r"\*|\w+|'[^'\\]*'")
"""What `literal_column()` may say: nothing that could hold a subquery, or an OR that swallows the condition."""


class _Checks:
    """Before SQLAlchemy's compiler, in the order of its bases."""

    guarded: Guarded

    def _compose_select_body(
        self,
        text: Any,
        select: Any,
        compile_state: Any,
        inner_columns: Any,
        froms: Any,
        *rest: Any,
    ) -> Any:
        check_sources(self.guarded, froms, select._where_criteria)
        parent: Any = super()
        return parent._compose_select_body(text, select, compile_state, inner_columns, froms, *rest)

    def update_tables_clause(self, update_stmt: Any, from_table: Any, extra_froms: Any, **kw: Any) -> Any:
        check_sources(self.guarded, [from_table, *(extra_froms or ())], update_stmt._where_criteria)
        parent: Any = super()
        return parent.update_tables_clause(update_stmt, from_table, extra_froms, **kw)

    def delete_table_clause(self, delete_stmt: Any, from_table: Any, extra_froms: Any, **kw: Any) -> Any:
        check_sources(self.guarded, [from_table, *(extra_froms or ())], delete_stmt._where_criteria)
        parent: Any = super()
        return parent.delete_table_clause(delete_stmt, from_table, extra_froms, **kw)

    def visit_textclause(self, textclause: Any, *args: Any, **kw: Any) -> Any:
        raise self.guarded.refuse("has textual SQL in it, which may read or write any row")

    def visit_textual_select(self, taf: Any, *args: Any, **kw: Any) -> Any:
        raise self.guarded.refuse("has textual SQL in it, which may read or write any row")

    def visit_column(self, column: Any, *args: Any, **kw: Any) -> Any:
        if column.is_literal and not _PLAIN_LITERAL.fullmatch(str(column.name)):
            raise self.guarded.refuse("has SQL in a literal_column(), which may read any row")
        parent: Any = super()
        return parent.visit_column(column, *args, **kw)


# --- What a SELECT, UPDATE or DELETE reads --------------------------------------------------------


def check_sources(guarded: Guarded, froms: Iterable[Any], where: Iterable[Any]) -> None:
    """Whether each table among these has its condition in WHERE, or in the ON of the join that brings it."""
    overall = list(conditions_in(where))
    leaves = [leaf for each in froms for leaf in leaves_of(each, overall)]
    some = False
    for table, leaf, conditions in leaves:
        if (column := guarded.columns.get(table.name)) is None:
            continue
        if not any(_is_on(each, leaf, column) for each in conditions):
            raise guarded.refuse(f"reads or writes table {table.name!r} where the condition cannot be added")
        some = True
    for table, _, _ in leaves:
        if table.name in guarded.attached and not some:
            raise guarded.refuse(
                f"names table {table.name!r} by itself, which does not say whose its rows are without what it "
                "belongs to"
            )


def leaves_of(source: Any, conditions: list[Any]) -> Iterator[tuple[Any, Any, list[Any]]]:
    """The tables under it: the table, itself or its alias as named, and the conditions that every row of it has met."""
    if isinstance(source, Join):
        join = cast("Any", source)
        own = [] if join.full else list(conditions_in([join.onclause]))
        yield from leaves_of(join.left, conditions if join.full or join.isouter else [*conditions, *own])
        yield from leaves_of(join.right, [*conditions, *own])
        return
    if source.__visit_name__ in ("grouping", "fromgrouping"):
        yield from leaves_of(source.element, conditions)
        return
    table = source
    while isinstance(table, AliasedReturnsRows):
        table = cast("Any", table).element
    if isinstance(table, TableClause):
        yield cast("Any", table), source, conditions


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
    """Whether it says that the column of this very table or alias has the session's value."""
    if not (isinstance(condition, BinaryExpression) and cast("Any", condition).operator is eq):
        return False
    left, right = cast("Any", condition).left, cast("Any", condition).right
    owner = getattr(left, "table", None)
    # Annotated copies of one element have its hash.
    return (
        isinstance(right, OwnParameter)
        and owner is not None
        and hash(owner) == hash(leaf)
        and left.name == column
    )
