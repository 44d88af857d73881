"""The plan of a statement that was recorded, as a page shows it; nothing that must be masked gets out of here."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import SingletonThreadPool, StaticPool

from catalysis.database import Database
from catalysis.errors import ExplainError
from catalysis.inspector.masking import mask
from catalysis.inspector.records import Statement
from catalysis.tools.explain_sql import explain_sql
from catalysis.tools.query_plans.boxes import boxes
from catalysis.tools.query_plans.tree import QueryPlan, QueryPlanNode

LONGEST = 5.0
"""Seconds that a page waits for a plan, with a connection; ANALYZE may take four times as long."""


@dataclass(frozen=True, slots=True)
class PlanStep:
    """A node of the plan."""

    number: int
    depth: int
    label: str
    conditions: tuple[tuple[str, str], ...]
    """`Filter` and its like, each with what the database says."""
    estimated_rows: float | None
    actual_rows: float | None
    loops: int | None
    cost: float | None
    milliseconds: float | None
    """Of all its executions, its children included."""
    left: float
    width: float
    """Where it is in the picture, as shares of 1."""
    level: int
    share: float
    """Of the plan's time or cost that is its own."""
    is_expensive: bool


@dataclass(frozen=True, slots=True)
class Remark:
    """A finding."""

    code: str
    message: str
    evidence: str
    severity: str
    step: int | None


@dataclass(frozen=True, slots=True)
class Explained:
    """A plan, or why there is none."""

    problem: str | None = None
    steps: tuple[PlanStep, ...] = ()
    levels: int = 0
    remarks: tuple[Remark, ...] = ()
    analyzed: bool = False
    is_generic: bool = True
    has_cost: bool = False
    planning_ms: float | None = None
    execution_ms: float | None = None


async def explained(
    database: Database, statement: Statement, *, shows_values: bool, analyze: bool = False
) -> Explained:
    """Ask the database; what it says is masked unless `shows_values`.  Never raises."""
    if statement.database is not None and statement.database not in database.addresses:
        return Explained("It was sent to another database than the inspector's.")
    if statement.is_cut:
        return Explained("It is too long to be kept whole, and so cannot be explained.")
    if has_one_connection(database):
        return Explained(ONE_CONNECTION)
    values = statement.parameters if shows_values else None
    try:
        async with asyncio.timeout(LONGEST * 4 if analyze else LONGEST):
            plan = await explain_sql(database.engine, statement.sent, values, analyze=analyze)
    except ExplainError as failure:
        # What it says may quote a literal of the statement.
        return Explained(str(failure) if shows_values or not _has_literals(statement) else _UNEXPLAINED)
    except TimeoutError:
        return Explained("The database did not answer in time, or no connection was free.")
    except (SQLAlchemyError, OSError) as failure:
        return Explained(f"The database could not be asked: {type(failure).__name__}.")
    return _readable(plan, masked=not shows_values, is_generic=values is None)


ONE_CONNECTION = "The database has one connection for all, and asking would roll back what is running on it."


def has_one_connection(database: Database) -> bool:
    """Whether to lend a connection is to share it, as with SQLite in memory; giving it back rolls back."""
    return isinstance(database.engine.pool, StaticPool | SingletonThreadPool)


_UNEXPLAINED = "The database cannot explain it."


def _has_literals(statement: Statement) -> bool:
    """Whether masking took something out of it."""
    return mask(statement.sent) != statement.sent


def _readable(plan: QueryPlan, *, masked: bool, is_generic: bool) -> Explained:
    # Also for a statement without literals: there are those of views, policies and functions too.
    def clean(text: str) -> str:
        return mask(text) if masked else text

    # SQLite's root stands for the whole and says nothing.
    hidden = 1 if plan.root.kind == "QUERY PLAN" and plan.root.children else 0
    placed = boxes(plan)[hidden:]
    numbers = {id(each.node): n for n, each in enumerate(placed, 1)}
    steps = tuple(
        PlanStep(
            n,
            min(box.depth - hidden, 12),
            clean(box.node.label),
            tuple((name, clean(text)) for name, text in _conditions(box.node)),
            box.node.estimated_rows,
            box.node.actual_rows,
            box.node.loops,
            box.node.total_cost,
            box.node.total_ms,
            box.left,
            box.width,
            box.depth - hidden,
            box.share,
            box.is_expensive,
        )
        for n, box in enumerate(placed, 1)
    )
    remarks = tuple(
        Remark(
            each.code,
            clean(each.message),
            clean(each.evidence),
            each.severity,
            numbers.get(id(each.node)) if each.node else None,
        )
        for each in plan.findings
    )
    return Explained(
        None,
        steps,
        max((each.level for each in steps), default=-1) + 1,
        remarks,
        plan.analyzed,
        is_generic,
        any(each.cost is not None for each in steps),
        plan.planning_time_ms,
        plan.execution_time_ms,
    )


_TOLD = ("Hash Cond", "Merge Cond", "Join Filter", "Recheck Cond", "Sort Key", "Group Key", "Sort Method")
_COUNTED = ("Rows Removed by Filter", "Rows Removed by Index Recheck", "Heap Fetches", "Sort Space Used")


def _conditions(node: QueryPlanNode) -> Iterator[tuple[str, str]]:
    if node.loops is not None or node.total_cost is not None:  # SQLite says them in the label
        if node.index_condition:
            yield "Index Cond", node.index_condition
        if node.filter:
            yield "Filter", node.filter
    for name in (*_TOLD, *_COUNTED):
        if value := node.details.get(name):
            yield name, _joined(value)


def _joined(value: Any) -> str:
    return ", ".join(map(str, cast("list[Any]", value))) if isinstance(value, list) else str(value)
