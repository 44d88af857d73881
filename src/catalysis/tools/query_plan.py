"""What the database says it will do, or did, for a statement: a frozen tree and its text.

Only reading of EXPLAIN's answer is done here, so it needs no database: JSON from PostgreSQL, rows from SQLite.
`QueryPlan` has nothing to do with the engine's own plans.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast


@dataclass(frozen=True, slots=True)
class QueryPlanNode:
    """One step.  What the database does not tell is None."""

    kind: str
    """`Seq Scan`, `Hash Join`…; on SQLite the first word of the step: `SCAN`, `SEARCH`, `USE`…"""
    label: str
    """The step in the database's words, with its table and index."""
    relation: str | None = None
    index: str | None = None
    startup_cost: float | None = None
    """Until the first row, in the planner's units; so is `total_cost`, until the last."""
    total_cost: float | None = None
    estimated_rows: float | None = None
    """For one execution of the step; so is `actual_rows`."""
    width: int | None = None
    """The estimated bytes of a row."""
    actual_rows: float | None = None
    loops: int | None = None
    """How often the step was executed."""
    actual_startup_ms: float | None = None
    """Milliseconds until the first row, the mean of all executions; so is `actual_ms`, until the last."""
    actual_ms: float | None = None
    index_condition: str | None = None
    filter: str | None = None
    buffers: Mapping[str, int] = field(default_factory=dict[str, int], hash=False)
    """Blocks by what happened to them (`shared hit`, `temp written`…), those of the children included; no zeros."""
    details: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)
    """Whatever else the database says of the step, under its own names."""
    children: tuple["QueryPlanNode", ...] = ()

    def nodes(self) -> Iterator["QueryPlanNode"]:
        """The step and all below it, each before its children."""
        yield self
        for child in self.children:
            yield from child.nodes()


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a plan, and what shows it."""

    code: str
    """Which kind of fault, `seq-scan` for one; see `catalysis.tools.findings`."""
    message: str
    """What is wrong and what to do, in a sentence or two."""
    evidence: str
    """The figures or the condition of the plan that show it."""
    node: QueryPlanNode | None
    """The step at fault; None if it is in none of them."""
    severity: Literal["info", "warning"] = "warning"


@dataclass(frozen=True, slots=True)
class QueryPlan:
    """The plan of one statement; printing it prints `text`."""

    text: str
    """The tree as lines, as psql shows it."""
    root: QueryPlanNode
    analyzed: bool
    """Whether the statement was executed and the actual figures are there."""
    planning_time_ms: float | None = None
    execution_time_ms: float | None = None
    findings: tuple[Finding, ...] = ()
    """What is wrong with it, the gravest first; empty where it is good."""

    def __str__(self) -> str:
        return self.text

    def nodes(self) -> Iterator[QueryPlanNode]:
        """All steps, each before its children."""
        return self.root.nodes()


# --- PostgreSQL: EXPLAIN (FORMAT JSON) ------------------------------------------------------------

_AGGREGATES = {"Sorted": "GroupAggregate", "Hashed": "HashAggregate", "Mixed": "MixedAggregate"}
_FIELDS = {
    "relation": "Relation Name",
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
    *(
        "Node Type",
        "Plans",
        "Alias",
        "Schema",
        "Join Type",
        "Strategy",
        "Partial Mode",
        "Operation",
        "Parallel Aware",
    ),
    *("Scan Direction", "Function Name", "CTE Name", "Command"),
}


def read_postgresql(answer: Sequence[Any]) -> QueryPlan:
    """The plan in the one row that EXPLAIN (FORMAT JSON) returns, decoded by the driver or not."""
    value = answer[0][0]
    document: dict[str, Any] = (json.loads(value) if isinstance(value, str | bytes) else value)[0]
    root = _node(document["Plan"])
    planning, execution = document.get("Planning Time"), document.get("Execution Time")
    lines = list(_lines(root))
    for trigger in cast("list[dict[str, Any]]", document.get("Triggers", [])):
        name = trigger.get("Constraint Name") or trigger["Trigger Name"]
        lines.append(f"Trigger {name}: time={trigger['Time']:.3f} calls={_number(trigger['Calls'])}")
    lines += [
        f"{name} Time: {ms:.3f} ms" for name, ms in (("Planning", planning), ("Execution", execution)) if ms
    ]
    return QueryPlan("\n".join(lines), root, execution is not None, planning, execution)


def _node(said: dict[str, Any]) -> QueryPlanNode:
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
        children=tuple(_node(child) for child in said.get("Plans", [])),
        **{name: said.get(key) for name, key in _FIELDS.items()},
    )


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

    def below(parent: int) -> tuple[QueryPlanNode, ...]:
        return tuple(
            QueryPlanNode(detail.split(" ")[0], detail, children=below(number), **_parts(detail))
            for number, detail in steps.get(parent, [])
        )

    root = QueryPlanNode("QUERY PLAN", "QUERY PLAN", children=below(0))
    return QueryPlan("\n".join(_lines(root)), root, analyzed=False)


def _parts(detail: str) -> dict[str, Any]:
    found = _STEP.match(detail)
    return found.groupdict() if found else {}


# --- Text -----------------------------------------------------------------------------------------

_PLACE = ("Parent Relationship", "Subplan Name")


def _lines(node: QueryPlanNode, indent: int = 0) -> Iterator[str]:
    arrow = "->  " if indent else ""
    yield f"{'':{indent}}{arrow}{node.label}{_figures(node)}"
    indent += 6 if indent else 2
    yield from (f"{'':{indent}}{remark}" for remark in _remarks(node))
    for child in node.children:
        if name := child.details.get("Subplan Name"):
            yield f"{'':{indent}}{name}"
        yield from _lines(child, indent + 2 if name else indent)


def _figures(node: QueryPlanNode) -> str:
    said = ""
    if node.total_cost is not None:
        rows = _number(node.estimated_rows)
        said = f"  (cost={node.startup_cost:.2f}..{node.total_cost:.2f} rows={rows} width={node.width})"
    if node.loops == 0:
        return f"{said} (never executed)"
    if node.loops is not None:
        time = "" if node.actual_ms is None else f"time={node.actual_startup_ms:.3f}..{node.actual_ms:.3f} "
        said += f" (actual {time}rows={_number(node.actual_rows)} loops={node.loops})"
    return said


def _remarks(node: QueryPlanNode) -> Iterator[str]:
    said = {"Index Cond": node.index_condition, "Filter": node.filter, **node.details}
    if node.loops is None and not node.details:
        return  # SQLite says its conditions in the label
    for name, value in said.items():
        if isinstance(value, list):
            parts = cast("list[Any]", value)
            value = ", ".join(parts) if all(isinstance(part, str) for part in parts) else None
        if value and name not in _PLACE and not isinstance(value, Mapping):
            yield f"{name}: {'true' if value is True else value}"
    if node.buffers:
        yield f"Buffers: {', '.join(f'{what}={blocks}' for what, blocks in node.buffers.items())}"


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.2f}".rstrip("0").rstrip(".")
