"""A query plan as lines of text, as psql shows it."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from catalysis.tools.query_plan import QueryPlanNode

_PLACE = ("Parent Relationship", "Subplan Name")


def lines_of(node: QueryPlanNode, indent: int = 0) -> Iterator[str]:
    """The step and those below it, with figures and remarks."""
    arrow = "->  " if indent else ""
    yield f"{'':{indent}}{arrow}{node.label}{_figures(node)}"
    indent += 6 if indent else 2
    yield from (f"{'':{indent}}{remark}" for remark in _remarks(node))
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


def number(value: float | None) -> str:
    """With two decimals at most; `?` for none."""
    return "?" if value is None else f"{value:.2f}".rstrip("0").rstrip(".")
