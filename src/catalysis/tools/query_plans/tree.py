"""What the database says it will do, or did, for a statement: a frozen tree.

Nothing is read or worked out here.  `QueryPlan` has nothing to do with the engine's own plans.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class QueryPlanNode:
    """One step.  What the database does not tell is None."""

    kind: str
    """`Seq Scan`, `Hash Join`…; on SQLite the first word of the step: `SCAN`, `SEARCH`, `USE`…"""
    label: str
    """The step in the database's words, with its table and index."""
    relation: str | None = None
    """The table."""
    alias: str | None = None
    """The name by which the statement calls what is read."""
    cte: str | None = None
    """The WITH query that is read."""
    operation: str | None = None
    """`Insert`, `Update`, `Delete` or `Merge`, of the step that writes."""
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
    processes: int = 1
    """How many processes executed it side by side, or will: more than 1 below a Gather."""
    self_ms: float | None = None
    """Milliseconds by the clock in the step itself, all its executions together and its children left out.

    Those of all steps add up to the time of the root.
    """
    self_cost: float | None = None
    """The cost of the step itself, reckoned in the same way; it is a part of what the root costs."""
    index_condition: str | None = None
    filter: str | None = None
    buffers: Mapping[str, int] = field(default_factory=dict[str, int], hash=False)
    """Blocks by what happened to them (`shared hit`, `temp written`…), those of the children included; no zeros."""
    details: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)
    """Whatever else the database says of the step, under its own names."""
    children: tuple["QueryPlanNode", ...] = ()

    @property
    def total_rows(self) -> float | None:
        """The rows of all executions; None if it was not executed."""
        return None if self.actual_rows is None else self.actual_rows * (self.loops or 0)

    @property
    def total_ms(self) -> float | None:
        """Milliseconds by the clock of all executions, the children's included; None without times."""
        return None if self.actual_ms is None else self.actual_ms * (self.loops or 0) / self.processes

    def nodes(self) -> Iterator["QueryPlanNode"]:
        """The step and all below it, each before its children."""
        yield self
        for child in self.children:
            yield from child.nodes()


@dataclass(frozen=True, slots=True)
class PlanTrigger:
    """What a trigger, also one that keeps a foreign key, cost an executed statement."""

    name: str
    constraint: str | None
    """The foreign key it keeps."""
    relation: str
    """The table it is on: of a foreign key the referring or the referred one."""
    ms: float
    """Of all calls; PostgreSQL counts it beside the steps, and in `execution_time_ms`."""
    calls: int


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a plan, and what shows it."""

    code: str
    """Which kind of fault, `seq-scan` for one; see `catalysis.tools.query_plans.findings`."""
    message: str
    """What is wrong and what to do, in a sentence or two."""
    evidence: str
    """The figures or the condition of the plan that show it."""
    node: QueryPlanNode | None
    """The step at fault; None if it is in none of them."""
    severity: Literal["info", "warning"] = "warning"


@dataclass(frozen=True, slots=True)
class QueryPlan:
    """The plan of one statement; printing it prints `text`, and `terminal.rendered` gives rich a tree."""

    text: str
    """The tree as lines, as psql shows it."""
    root: QueryPlanNode
    analyzed: bool
    """Whether the statement was executed and the actual figures are there."""
    planning_time_ms: float | None = None
    execution_time_ms: float | None = None
    triggers: tuple[PlanTrigger, ...] = ()
    findings: tuple[Finding, ...] = ()
    """What is wrong with it, the gravest first; empty where it is good."""

    def __str__(self) -> str:
        return self.text

    def nodes(self) -> Iterator[QueryPlanNode]:
        """All steps, each before its children."""
        return self.root.nodes()
