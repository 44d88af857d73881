"""How many rows a statement gives: counted, counted up to a limit, or as the planner expects.

The statements made here stay ORM statements over the same entities and keep the options of the one counted, so
that a session's criteria (soft delete) hold for them as they do for the page.
"""

from typing import Any

from sqlalchemy import JSON, Column, Select, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.ext.compiler import compiles

from catalysis.engine.alchemy.statements import (
    Pageable,
    groups,
    is_distinct,
    is_selecting_from,
    options,
    plain,
    unordered,
)


async def count_rows(session: AsyncSession, statement: Pageable, *, limit: int | None = None) -> int:
    """The number of rows, by one statement; with `limit`, no more than that and one are looked at."""
    result = await session.execute(plan_count(statement, limit))
    return result.scalar_one()


async def estimate_rows(session: AsyncSession, statement: Pageable) -> int:
    """The number of rows that PostgreSQL's planner expects; it executes nothing.

    Source: PostgreSQL documentation, "Row Estimation Examples".
    """
    explained = _Explained(literal_column("1", JSON)).select_from(unordered(statement).subquery())
    result = await session.execute(_as_for(statement, explained))
    return int(result.scalar_one()[0]["Plan"]["Plan Rows"])


def plan_count(statement: Pageable, limit: int | None = None) -> Select[int]:
    """A statement that counts the rows of another; without its ORDER BY, loader options and FOR UPDATE."""
    rows: Any = unordered(statement)
    if isinstance(statement, Select) and _has_a_row_for_each_row_of_from(statement):
        if limit is None:
            return _as_for(statement, rows.with_only_columns(func.count(), maintain_column_froms=True))
        rows = rows.with_only_columns(literal_column("1"), maintain_column_froms=True)
    if limit is not None:
        rows = rows.limit(limit + 1)
    return _as_for(statement, select(func.count()).select_from(rows.subquery()))


def _as_for(statement: Pageable, counting: Select[Any]) -> Select[Any]:
    return counting.options(*options(statement)).execution_options(**statement.get_execution_options())


def _has_a_row_for_each_row_of_from(statement: Select[*tuple[Any, ...]]) -> bool:
    """Whether its columns can be replaced by `count(*)`.

    Not if they make rows (DISTINCT, GROUP BY, an aggregate, a function that returns a set), nor with an explicit
    `select_from`, whose entities SQLAlchemy may know by the columns only.
    """
    if is_distinct(statement) or groups(statement) or is_selecting_from(statement):
        return False
    return all(
        described["expr"] is described.get("entity") or isinstance(plain(described["expr"]), Column)
        for described in statement.column_descriptions
    )


class _Explained(Select[Any]):
    """A SELECT sent behind EXPLAIN; its one column becomes the plan."""

    inherit_cache = True


@compiles(_Explained, "postgresql")
def _explain(explained: _Explained, compiler: Any, **options: Any) -> str:
    return "EXPLAIN (FORMAT JSON) " + compiler.visit_select(explained, **options)
