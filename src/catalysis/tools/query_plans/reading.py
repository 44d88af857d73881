"""EXPLAIN's answer becomes a `QueryPlan`: JSON from PostgreSQL, rows from SQLite.  It needs no database."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

from catalysis.errors import ExplainError
from catalysis.tools.query_plans.own import with_own_figures
from catalysis.tools.query_plans.text import lines_of
from catalysis.tools.query_plans.tree import PlanTrigger, QueryPlan, QueryPlanNode

S = TypeVar("S")

# --- PostgreSQL: EXPLAIN (FORMAT JSON) ------------------------------------------------------------

_AGGREGATES = {"Sorted": "GroupAggregate", "Hashed": "HashAggregate", "Mixed": "MixedAggregate"}
_FIELDS = {
    "relation": "Relation Name",
    "alias": "Alias",
    "cte": "CTE Name",
    "operation": "Operation",
    "index": "Index Name",
    "startup_cost": "Startup Cost",
    "total_cost": "Total Cost",
    "estimated_rows": "Plan Rows",
    "width": "Plan Width",
    "actual_rows": "Actual Rows",
    "loops": "Actual Loops",
    "actual_startup_ms": "Actual Startup Time",
    "actual_ms": "Actual Total Time",
    "index_condition": "Index Cond",
    "filter": "Filter",
}
_BUFFERS = re.compile(r"(Shared|Local|Temp) (Hit|Read|Dirtied|Written) Blocks")
_KNOWN = {
    *_FIELDS.values(),
    *("Node Type", "Plans", "Schema", "Join Type", "Strategy", "Partial Mode", "Parallel Aware"),
    *("Scan Direction", "Function Name", "Command"),
}
"""What a field or the label says; all else is in `details`."""


def read_postgresql(answer: Sequence[Any]) -> QueryPlan:
    """The plan in the one row that EXPLAIN (FORMAT JSON) returns, decoded by the driver or not.

    Raises:
        ExplainError: it is nested deeper than Python's JSON reads, which is many hundred levels.
    """
    document = _decoded(answer[0][0])
    root = with_own_figures(_node(document["Plan"], 1))
    planning, execution = document.get("Planning Time"), document.get("Execution Time")
    triggers = tuple(_trigger(said) for said in cast("list[dict[str, Any]]", document.get("Triggers", [])))
    lines = list(lines_of(root))
    lines += [
        f"Trigger {each.constraint or each.name}: time={each.ms:.3f} calls={each.calls}" for each in triggers
    ]
    lines += [
        f"{name} Time: {ms:.3f} ms" for name, ms in (("Planning", planning), ("Execution", execution)) if ms
    ]
    return QueryPlan("\n".join(lines), root, execution is not None, planning, execution, triggers)


def _decoded(value: Any) -> dict[str, Any]:
    try:
        return (json.loads(value) if isinstance(value, str | bytes) else value)[0]
    except RecursionError:
        raise ExplainError(
            "The plan is nested too deep to be read.  EXPLAIN it in psql, or take the statement apart."
        ) from None


def _trigger(said: dict[str, Any]) -> PlanTrigger:
    name, constraint = str(said.get("Trigger Name", "")), said.get("Constraint Name")
    return PlanTrigger(name, constraint, said.get("Relation", ""), said.get("Time", 0.0), int(said["Calls"]))


DEEPEST = 100
"""Levels of a plan, since who draws or copies it goes down by recursion; the last says how many steps it hides."""
_HIDDEN = "Steps Left Out"


def _node(said: dict[str, Any], processes: int, level: int = 1) -> QueryPlanNode:
    below: list[dict[str, Any]] = said.get("Plans", [])
    if level == DEEPEST and below:
        said, below = {**said, _HIDDEN: _count(below, lambda step: step.get("Plans", []))}, []
    buffers = {
        f"{m[1]} {m[2]}".lower(): said[key] for key in said if (m := _BUFFERS.fullmatch(key)) and said[key]
    }
    return QueryPlanNode(
        kind=said["Node Type"],
        label=_label(said),
        buffers=buffers,
        details={
            key: value for key, value in said.items() if key not in _KNOWN and not _BUFFERS.fullmatch(key)
        },
        processes=processes,
        children=tuple(_node(child, _processes(said, child, processes), level + 1) for child in below),
        **{name: said.get(key) for name, key in _FIELDS.items()},
    )


def _count(steps: Iterable[S], below: Callable[[S], Iterable[S]]) -> int:
    """How many steps these are, with all below them."""
    waiting, count = [*steps], 0
    while waiting:
        count += 1
        waiting += below(waiting.pop())
    return count


def _processes(said: dict[str, Any], child: dict[str, Any], above: int) -> int:
    """How many processes execute a child side by side: below a Gather the workers, and the leader if it helps."""
    if said["Node Type"] not in ("Gather", "Gather Merge") or child.get("Parent Relationship") == "InitPlan":
        return above
    if child.get("Actual Loops") and said.get("Actual Loops"):
        return max(1, round(child["Actual Loops"] / said["Actual Loops"]))
    leader = 0 if said.get("Single Copy") else 1
    return max(1, said.get("Workers Planned", 0) + leader)


def _label(said: dict[str, Any]) -> str:
    """The step as psql's first line of it.  Source: PostgreSQL, `ExplainNode` in `explain.c`."""
    kind: str = said["Node Type"]
    if kind == "Aggregate":
        kind = _AGGREGATES.get(said.get("Strategy", ""), kind)
    if (mode := said.get("Partial Mode", "Simple")) != "Simple":
        kind = f"{mode} {kind}"
    if kind == "ModifyTable":
        kind = said["Operation"]
    if (join := said.get("Join Type", "Inner")) != "Inner":
        kind = f"{kind.removesuffix(' Join')} {join} Join"
    if said.get("Parallel Aware"):
        kind = f"Parallel {kind}"
    if said.get("Scan Direction") == "Backward":
        kind = f"{kind} Backward"
    if index := said.get("Index Name"):
        kind = f"{kind} {'on' if said['Node Type'] == 'Bitmap Index Scan' else 'using'} {index}"
    alias = said.get("Alias")
    if table := said.get("Relation Name") or said.get("Function Name") or said.get("CTE Name") or alias:
        kind = f"{kind} on {table}" if alias in (None, table) else f"{kind} on {table} {alias}"
    return kind


# --- SQLite: EXPLAIN QUERY PLAN -------------------------------------------------------------------

_STEP = re.compile(
    r"(?:SCAN|SEARCH) (?:TABLE )?(?!\d* ?CONSTANT ROW)(?P<relation>\S+)(?: AS \S+)?"
    r"(?: USING (?:INTEGER PRIMARY KEY|(?:AUTOMATIC )?(?:PARTIAL )?(?:COVERING )?INDEX(?: (?P<index>[^\s(]+))?))?"
    r"(?: \((?P<index_condition>.*)\))?"
)


def read_sqlite(answer: Iterable[Sequence[Any]]) -> QueryPlan:
    """The plan in the rows (id, parent, unused, detail) of EXPLAIN QUERY PLAN; SQLite gives no figures."""
    steps: dict[int, list[tuple[int, str]]] = {}
    for number, parent, _, detail in answer:
        steps.setdefault(parent, []).append((number, detail))

    def below(parent: int, level: int = 1) -> tuple[QueryPlanNode, ...]:
        return tuple(made(number, detail, level + 1) for number, detail in steps.get(parent, []))

    def made(number: int, detail: str, level: int) -> QueryPlanNode:
        hidden = steps.get(number, []) if level == DEEPEST else []
        said = {_HIDDEN: _count(hidden, lambda step: steps.get(step[0], []))} if hidden else {}
        children = () if hidden else below(number, level)
        return QueryPlanNode(detail.split(" ")[0], detail, details=said, children=children, **_parts(detail))

    root = QueryPlanNode("QUERY PLAN", "QUERY PLAN", children=below(0))
    return QueryPlan("\n".join(lines_of(root)), root, analyzed=False)


def _parts(detail: str) -> dict[str, Any]:
    found = _STEP.match(detail)
    return found.groupdict() if found else {}
