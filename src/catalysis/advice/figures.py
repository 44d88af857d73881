"""One figure for a plan, to compare plans by; and what is assumed of values that nobody gave.  No waiting here.

PostgreSQL's is the planner's total cost.  SQLite tells none: its figure ranks plans by how they go about it, and is
good for nothing else, so it is never shown.
"""

import re
from collections.abc import Iterator, Mapping

from catalysis.tools.query_plans.tree import QueryPlan, QueryPlanNode

ASSUMED_LIMIT = 100
"""Rows of a page whose LIMIT is a parameter.  The planner would take it for a tenth of all rows there are."""

_SCAN, _SORT, _WALK = 100.0, 10.0, 5.0
"""A walk along an index for the first rows may go far before it meets a row that a further condition lets through: an
index that leads to the rows, in their order, must be more than twice as good, or the simpler one is taken."""
_LIMIT = re.compile(r"\b(LIMIT|OFFSET) \$(\d+)(?:::\w+)?", re.IGNORECASE)


def with_assumed_limit(sql: str) -> str:
    """The statement with a LIMIT of 100 and an OFFSET of 0 where these are parameters of their own."""
    for found in reversed(list(_LIMIT.finditer(sql))):
        number = int(found[2])
        if len(re.findall(rf"\${number}\b", sql)) > 1:
            continue
        value = ASSUMED_LIMIT if found[1].upper() == "LIMIT" else 0
        sql = f"{sql[: found.start()]}{found[1]} {value}{sql[found.end() :]}"
        sql = re.sub(r"\$(\d+)", lambda each, gone=number: f"${int(each[1]) - (int(each[1]) > gone)}", sql)
    return sql


def figure_of(plan: QueryPlan, *, limited: bool = False) -> float:
    """The plan's cost, or its rank on SQLite; more than 0.  `limited`: only the first rows are wanted."""
    if plan.root.total_cost is not None:
        return max(plan.root.total_cost, 0.01)
    figure = 1.0
    for node in plan.nodes():
        if node.label.startswith("SCAN ") and node.relation:
            figure *= _WALK if node.index and limited else _SCAN
        elif "AUTOMATIC" in node.label:
            figure *= _SCAN
        elif limited and node.label.startswith("USE TEMP B-TREE FOR ORDER BY"):
            figure *= _SORT
    return figure


def outline_of(plan: QueryPlan, names: Mapping[str, str] | None = None) -> str:
    """The steps of a plan with their costs, a line each, and no conditions: these show the values of parameters.

    `names` are those to show for certain indexes.
    """
    return "\n".join(_outline(plan.root, 0, names or {}))


def _outline(node: QueryPlanNode, depth: int, names: Mapping[str, str]) -> Iterator[str]:
    cost = "" if node.total_cost is None else f"  (cost={node.startup_cost:.2f}..{node.total_cost:.2f})"
    label = node.label.replace(node.index, names.get(node.index, node.index)) if node.index else node.label
    yield f"{'  ' * depth}{label}{cost}"
    for child in node.children:
        yield from _outline(child, depth + 1, names)
