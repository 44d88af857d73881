"""A query plan as text: lines, as psql shows it, or a document for JSON."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from typing import Any, Literal, cast

from catalysis.tools.query_plans.tree import QueryPlan, QueryPlanNode

_PLACE = ("Parent Relationship", "Subplan Name")


def lines_of(node: QueryPlanNode, indent: int = 0) -> Iterator[str]:
    """The step and those below it, with figures and remarks."""
    arrow = "->  " if indent else ""
    yield f"{'':{indent}}{arrow}{node.label}{_figures(node)}"
    indent += 6 if indent else 2
    yield from (f"{'':{indent}}{remark}" for remark in remarks_of(node))
    for child in node.children:
        if name := child.details.get("Subplan Name"):
            yield f"{'':{indent}}{name}"
        yield from lines_of(child, indent + 2 if name else indent)


def _figures(node: QueryPlanNode) -> str:
    said = ""
    if node.total_cost is not None:
        rows = number(node.estimated_rows)
        said = f"  (cost={node.startup_cost:.2f}..{node.total_cost:.2f} rows={rows} width={node.width})"
    if node.loops == 0:
        return f"{said} (never executed)"
    if node.loops is not None:
        time = "" if node.actual_ms is None else f"time={node.actual_startup_ms:.3f}..{node.actual_ms:.3f} "
        said += f" (actual {time}rows={number(node.actual_rows)} loops={node.loops})"
    return said


def remarks_of(node: QueryPlanNode) -> Iterator[str]:
    """What else is told of the step, a line each: conditions, keys, rows removed, buffers."""
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


def number(value: float | None, grouped: Literal["", ","] = "") -> str:
    """With two decimals at most; `?` for none."""
    if value is None:
        return "?"
    text = f"{value:{grouped}.2f}"
    return text.rstrip("0").rstrip(".")


# --- JSON -----------------------------------------------------------------------------------------


def document_of(plan: QueryPlan) -> dict[str, Any]:
    """The plan as plain values for JSON; a finding names its step by its number, from 0, in the tree's order."""
    numbers = {id(node): place for place, node in enumerate(plan.nodes())}
    return {
        "analyzed": plan.analyzed,
        "planning_time_ms": plan.planning_time_ms,
        "execution_time_ms": plan.execution_time_ms,
        "plan": _step(plan.root, numbers),
        "triggers": [asdict(trigger) for trigger in plan.triggers],
        "findings": [
            {
                "code": each.code,
                "severity": each.severity,
                "message": each.message,
                "evidence": each.evidence,
                "step": None if each.node is None else numbers[id(each.node)],
            }
            for each in plan.findings
        ],
    }


def _step(node: QueryPlanNode, numbers: Mapping[int, int]) -> dict[str, Any]:
    """Without what the database did not tell."""
    said: dict[str, Any] = {each.name: getattr(node, each.name) for each in fields(node)}
    said |= {"buffers": dict(node.buffers), "details": dict(node.details)}
    del said["children"]
    children = [_step(child, numbers) for child in node.children]
    known = {name: value for name, value in said.items() if value is not None and value != {}}
    return {"step": numbers[id(node)], **known, "children": children}
