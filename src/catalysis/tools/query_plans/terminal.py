"""A query plan for the terminal: a tree with the expensive steps marked, and its findings under it.

Marks are in words too, so that they read without colour.
"""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from catalysis.tools.query_plans.boxes import Box, boxes
from catalysis.tools.query_plans.text import number, remarks_of
from catalysis.tools.query_plans.tree import Finding, QueryPlan, QueryPlanNode

MARK = "<<<"
"""Stands after an expensive step, with its share of the whole."""
_SHOWN_SHARE = 0.01
_LEFT_OUT = frozenset(
    {
        *("Inner Unique", "Index Searches", "Hash Buckets", "Original Hash Buckets", "Original Hash Batches"),
        *(
            "Hash Batches",
            "Peak Memory Usage",
            "Sort Space Used",
            "Sort Space Type",
            "Storage",
            "Maximum Storage",
        ),
        *("Planned Partitions", "HashAgg Batches", "Disk Usage", "Workers Launched"),
    }
)
"""Remarks that `text` has and a reader of the tree hardly needs: what there is to say of memory, findings say."""


def rendered(plan: QueryPlan) -> RenderableType:
    """The plan as rich prints it."""
    numbers: dict[int, list[int]] = {}
    for place, finding in enumerate(plan.findings, 1):
        numbers.setdefault(id(finding.node), []).append(place)
    unit = "time" if plan.root.self_ms is not None else "cost"
    drawn = iter(boxes(plan))

    def grown(node: QueryPlanNode, above: Tree | None) -> Tree:
        box = next(drawn)
        label = _label(box, unit, numbers.get(id(node), []))
        tree = Tree(label, guide_style="dim") if above is None else above.add(label)
        for child in node.children:
            grown(child, tree)
        return tree

    return Group(grown(plan.root, None), *_totals(plan), *_findings(plan))


def _label(box: Box, unit: str, findings: list[int]) -> Text:
    node = box.node
    label = Text()
    if subplan := node.details.get("Subplan Name"):
        label.append(f"{subplan}: ", "dim")
    label.append(node.label, "bold red" if box.is_expensive else "bold")
    label.append("".join(f" [{place}]" for place in findings), "bold yellow")
    label.append("".join(f"  {figure}" for figure in _figures(node)))
    if box.is_expensive:
        label.append(f"  {MARK} {box.share:.0%} of the {unit}", "bold red")
    elif box.share >= _SHOWN_SHARE:
        label.append(f"  {box.share:.0%}", "dim")
    for remark in remarks_of(node):
        if remark.partition(":")[0] not in _LEFT_OUT:
            label.append(f"\n{remark}", "dim")
    return label


def _figures(node: QueryPlanNode) -> Iterator[str]:
    """Rows and time as they came, else as they are expected."""
    if node.loops == 0:
        yield "never executed"
    elif node.loops is not None and node.actual_rows is not None:
        yield f"{_rows(node.actual_rows)} ({number(node.estimated_rows, ',')} estimated)"
        if node.loops > node.processes:
            yield f"in each of {node.loops:,} executions"
        if node.total_ms is not None:
            yield f"{node.total_ms:,.2f} ms"
    elif node.estimated_rows is not None:
        yield f"{_rows(node.estimated_rows)} estimated"
        yield f"cost {node.total_cost:,.0f}"
    if node.processes > 1:
        yield f"{node.processes} processes"


def _rows(rows: float) -> str:
    return f"{number(rows, ',')} row{'' if rows == 1 else 's'}"


def _totals(plan: QueryPlan) -> Iterator[Text]:
    for trigger in plan.triggers:
        name = trigger.constraint or trigger.name
        yield Text(f"Trigger {name}: {trigger.ms:,.2f} ms in {trigger.calls:,} calls")
    if plan.execution_time_ms is not None:
        planning = f"{plan.planning_time_ms:,.2f} ms to plan, " if plan.planning_time_ms is not None else ""
        yield Text(f"{planning}{plan.execution_time_ms:,.2f} ms to execute")


_LOOKS = {"warning": ("bold yellow", "Warning"), "info": ("bold blue", "Note")}


def _findings(plan: QueryPlan) -> Iterator[Text]:
    for place, finding in enumerate(plan.findings, 1):
        yield Text("\n").append(_finding(place, finding))


def _finding(place: int, finding: Finding) -> Text:
    style, word = _LOOKS[finding.severity]
    where = f" in {finding.node.label}" if finding.node is not None else ""
    text = Text().append(f"[{place}] {word}: {finding.code}", style).append(where)
    return text.append(f"\n    {finding.message}").append(f"\n    {finding.evidence}", "dim")
