"""What each step of a query plan takes by itself: PostgreSQL's figures are of a step and all below it.

A step's time or cost is shared out from the root down, and no step gives its children more than it has: so the own
figures are never negative and add up to what the root takes, however the server rounds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

from catalysis.tools.query_plans.tree import QueryPlanNode


def with_own_figures(root: QueryPlanNode) -> QueryPlanNode:
    """The same tree with `self_ms` and `self_cost`, as far as there are times and costs."""
    nodes = list(root.nodes())
    tree = _Tree(nodes, _children_of(root))
    ms = _own(tree.where_it_was_spent()) if root.total_ms is not None else [None] * len(nodes)
    cost = _own(tree.with_costs()) if root.total_cost is not None else [None] * len(nodes)
    numbers = count()

    def rebuilt(node: QueryPlanNode) -> QueryPlanNode:
        number = next(numbers)
        children = tuple(rebuilt(child) for child in node.children)
        return replace(node, self_ms=ms[number], self_cost=cost[number], children=children)

    return rebuilt(root)


def _children_of(root: QueryPlanNode) -> list[list[int]]:
    """The numbers of each step's children; steps are numbered as `nodes()` gives them."""
    numbers = count()
    below: list[list[int]] = []

    def number(node: QueryPlanNode) -> int:
        own = next(numbers)
        below.append([])
        for child in node.children:
            below[own].append(number(child))
        return own

    number(root)
    return below


@dataclass(frozen=True, slots=True)
class _Sharing:
    """`whole` of a step is for one execution of its parent's, its children's included."""

    whole: Sequence[float]
    times: Sequence[float]
    """How often a step is executed for one execution of its parent."""
    below: Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class _Tree:
    nodes: Sequence[QueryPlanNode]
    below: Sequence[Sequence[int]]

    def with_costs(self) -> _Sharing:
        times = [1.0] * len(self.nodes)
        for number, children in enumerate(self.below):
            for place, child in enumerate(children):
                times[child] = max(1.0, self._expected(number, place))
        return _Sharing([node.total_cost or 0 for node in self.nodes], times, self.below)

    def _expected(self, number: int, place: int) -> float:
        """How often the planner expects a child to be executed, at most."""
        node = self.nodes[number]
        child = self.nodes[self.below[number][place]]
        match child.details.get("Parent Relationship"):
            case "Inner" if node.kind == "Nested Loop":
                return self.nodes[self.below[number][place - 1]].estimated_rows or 0
            case "SubPlan" if "hashed" not in f"{node.filter}":
                return node.estimated_rows or 0
            case _:
                return 1

    def where_it_was_spent(self) -> _Sharing:
        """WITH queries and subqueries without outer references are executed by the step that asks for their rows.

        So their time is in that step's, while the plan shows them further up.  Source: PostgreSQL, `ExecCteScan` and
        `ExecSetParamPlan`.
        """
        whole = [node.total_ms or 0 for node in self.nodes]
        below = [list(children) for children in self.below]
        for number, children in enumerate(self.below):
            for child in children:
                asking = self._asking(number, child, whole)
                if asking != number:
                    below[number].remove(child)
                    below[asking].append(child)
        return _Sharing(whole, [1.0] * len(whole), below)

    def _asking(self, number: int, child: int, whole: Sequence[float]) -> int:
        node = self.nodes[child]
        if node.details.get("Parent Relationship") != "InitPlan":
            return number
        name = str(node.details.get("Subplan Name", ""))
        own = set(self._under(child))
        within = [other for other in self._under(number) if other not in own]
        if name.startswith("CTE "):
            asking = [n for n in within if self.nodes[n].cte == name.removeprefix("CTE ")]
        else:
            beside = sum(whole[other] for other in self.below[number] if other != child)
            if beside + whole[child] <= whole[number]:
                return number
            asking = within
        return next((n for n in reversed(asking) if whole[n] >= whole[child]), number)

    def _under(self, number: int) -> Iterator[int]:
        yield number
        for child in self.below[number]:
            yield from self._under(child)


def _own(sharing: _Sharing) -> list[float]:
    own = [0.0] * len(sharing.whole)
    waiting = [(0, sharing.whole[0])]
    while waiting:
        number, has = waiting.pop()
        # What a step gets may be less than its figure, as below a Limit; then its children get so much less.
        part = has / sharing.whole[number] if sharing.whole[number] else 0
        shares = {
            child: sharing.whole[child] * sharing.times[child] * part for child in sharing.below[number]
        }
        left = has
        # What is executed again is cheaper than the first time, and the planner's figure is of the first.
        for repeated in (False, True):
            some = [child for child in shares if (sharing.times[child] > 1) == repeated]
            wanted = sum(shares[child] for child in some)
            scale = min(1, left / wanted) if wanted else 0
            waiting += [(child, shares[child] * scale) for child in some]
            left = max(0.0, left - wanted * scale)
        own[number] = left
    return own
