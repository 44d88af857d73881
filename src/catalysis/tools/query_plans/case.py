"""What a finding looks at: a plan, the statement, facts about tables; and from where on a figure is a fault.  Pure."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from catalysis.tools.query_plans.facts import Facts
from catalysis.tools.query_plans.tree import Finding, QueryPlan, QueryPlanNode

SELECTIVE = 0.1
"""Up to this share of a table an index is the cheaper way; with PostgreSQL's default costs, about where it changes."""
OFF = 10
"""Estimates within this factor rarely change a plan; joins multiply the errors of what they join."""
ROWS_THAT_MATTER = 100
"""An estimate of 1 where 12 came is no fault: below so many rows either way, every plan is quick."""
MANY_LOOPS = 1_000
"""Executions of a loop's inner side, from which another join could pay."""
COSTLY = 0.25
"""The share of the time, or cost, of the whole, below which a mend would not be felt."""
LEAST_MS = 10
"""A loop that took less is not worth a finding, however large its share."""
THROWN_AWAY = 1_000
"""Rows that an index led to in vain, or an OFFSET passed over, from which it takes about a millisecond."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What was explained."""

    sql: str
    parameters: Sequence[Any] | None
    """None: the plan is one for any values."""


class Case:
    """One plan with all that its findings look at."""

    def __init__(self, plan: QueryPlan, statement: Statement, facts: Facts) -> None:
        self.plan, self.statement, self.facts = plan, statement, facts
        self.steps = list(plan.nodes())
        self._parents = {id(child): node for node in self.steps for child in node.children}

    def above(self, node: QueryPlanNode) -> Iterator[tuple[QueryPlanNode, QueryPlanNode]]:
        """The step's ancestors, nearest first, each with the child that leads down to the step."""
        while (parent := self._parents.get(id(node))) is not None:
            yield parent, node
            node = parent

    def share(self, node: QueryPlanNode) -> float:
        """What a step and all below it take of the whole."""
        measured = self.plan.root.self_ms is not None
        whole = self.plan.root.total_ms if measured else self.plan.root.total_cost
        parts = (below.self_ms if measured else below.self_cost for below in node.nodes())
        return sum(part or 0 for part in parts) / whole if whole else 0


Finder = Callable[[Case], Iterable[Finding]]


def divisor(processes: int) -> float:
    """By what PostgreSQL divides the rows of parallel steps.  Source: `get_parallel_divisor` in `costsize.c`."""
    workers = processes - 1
    return workers + max(0.0, 1 - 0.3 * workers)


def counted(number: float) -> str:
    """`1,000 rows`."""
    return f"{figure(number)} row{'' if number == 1 else 's'}"


def figure(number: float) -> str:
    """Whole where it is large."""
    return f"{number:,.2f}".rstrip("0").rstrip(".") if number < ROWS_THAT_MATTER else f"{number:,.0f}"
