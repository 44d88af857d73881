"""The flame-like picture of a query plan as geometry: a box a step, children under their parent, as wide as they cost.

Pure; who draws it multiplies by the size of the picture.
"""

from dataclasses import dataclass

from catalysis.tools.query_plans.tree import QueryPlan, QueryPlanNode

EXPENSIVE = 0.25
"""The share of the whole from which a step by itself is marked: there are four such steps at most."""


@dataclass(frozen=True, slots=True)
class Box:
    """One step's place in the picture."""

    node: QueryPlanNode
    depth: int
    """0 for the root, which is the top row."""
    left: float
    """A fraction of the picture's width; so is `width`."""
    width: float
    share: float
    """What the step takes by itself of the time of the whole; of its cost where there is no time."""
    is_expensive: bool


def boxes(plan: QueryPlan) -> tuple[Box, ...]:
    """A box for each step, in the order of `plan.nodes()`.

    A step is as wide as it and all below it take of the whole; children lie side by side under their parent, from its
    left edge on.  Where a database gives no figures (SQLite), or only zeros, each last step is equally wide and no
    share is above 0.
    """
    weights = _weights(plan)
    total = sum(weights)
    measured = total > 0
    if not measured:
        weights = [0.0 if node.children else 1.0 for node in plan.nodes()]
        total = sum(weights)
    found: list[Box] = []

    def place(node: QueryPlanNode, depth: int, left: float) -> float:
        """Put the step and all below it from `left` on; their width."""
        number = len(found)
        share = weights[number] / total
        expensive = measured and share >= EXPENSIVE
        found.append(Box(node, depth, left, 0, share if measured else 0.0, expensive))
        edge = left
        for child in node.children:
            edge += place(child, depth + 1, edge)
        width = min(edge - left + share, 1 - left)
        found[number] = Box(node, depth, left, width, found[number].share, expensive)
        return width

    place(plan.root, 0, 0.0)
    return tuple(found)


def _weights(plan: QueryPlan) -> list[float]:
    """Own milliseconds, else own cost, of each step."""
    if plan.root.self_ms is not None and any(node.self_ms for node in plan.nodes()):
        return [node.self_ms or 0.0 for node in plan.nodes()]
    return [node.self_cost or 0.0 for node in plan.nodes()]
