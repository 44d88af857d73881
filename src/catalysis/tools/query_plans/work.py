"""Findings of PostgreSQL's plans about what is done with rows: sorts and hash tables, estimates, loops, offsets."""

import re
from collections.abc import Iterator

from catalysis.tools.query_plans.case import (
    COSTLY,
    LEAST_MS,
    MANY_LOOPS,
    OFF,
    ROWS_THAT_MATTER,
    THROWN_AWAY,
    Case,
    counted,
    figure,
)
from catalysis.tools.query_plans.tree import Finding, QueryPlanNode

# --- Memory ---------------------------------------------------------------------------------------


def spilled_to_disk(case: Case) -> Iterator[Finding]:
    """A sort, a hash table or rows that were put by did not fit into work_mem."""
    for node in case.steps:
        if (evidence := _spill_of(node)) is None:
            continue
        mend = "Raise work_mem for this statement, or have it handle fewer rows or columns"
        if "Sort" in node.kind:
            mend += "; an index that has the order needs no sort"
        what = {"Hash": "The hash table", "Sort": "The sort"}.get(node.kind, f"What {node.label} keeps")
        yield Finding("spilled-to-disk", f"{what} did not fit into memory.  {mend}.", evidence, node)


_PUTS_BY = ("Materialize", "CTE Scan", "WindowAgg", "Function Scan", "Recursive Union", "SetOp")


def _spill_of(node: QueryPlanNode) -> str | None:
    said = node.details
    for sort in (said, *said.get("Workers", ())):
        if sort.get("Sort Space Type") == "Disk":
            return f"Sort Method: {sort['Sort Method']}, {sort['Sort Space Used']:,} kB on disk"
    for groups in ("Full-sort Groups", "Pre-sorted Groups"):
        if disk := said.get(groups, {}).get("Sort Space Disk"):
            return f"{groups}: {disk['Peak Sort Space Used']:,} kB on disk"
    if said.get("Hash Batches", 1) > 1:
        return f"{said['Hash Batches']} batches, {said.get('Original Hash Batches', 1)} expected"
    if said.get("Disk Usage"):
        return f"{said['Disk Usage']:,} kB on disk in {said.get('HashAgg Batches', '?')} batches"
    if said.get("Storage") == "Disk":
        return f"Storage: Disk, {said.get('Maximum Storage', 0):,} kB"
    if node.kind in _PUTS_BY:
        written = node.buffers.get("temp written", 0)
        written -= sum(child.buffers.get("temp written", 0) for child in node.children)
        return f"{written:,} temporary blocks written" if written > 0 else None
    return None


# --- Estimates ------------------------------------------------------------------------------------


def estimate_off(case: Case) -> Iterator[Finding]:
    """The planner was wrong by more than ten times; told of the lowest steps, above which the error goes on."""
    wrong: set[int] = set()
    for node in reversed(case.steps):  # children come before their parents
        if any(id(child) in wrong for child in node.children):
            wrong.add(id(node))
        elif _is_off(case, node):
            wrong.add(id(node))
            estimated, actual = node.estimated_rows or 0, node.actual_rows or 0
            loops = f" in each of {node.loops:,} executions" if (node.loops or 1) > 1 else ""
            table = _table_of(case, node)
            yield Finding(
                "estimate-off",
                "The planner expected another number of rows, and may have chosen another plan than it would.  "
                f"{f'ANALYZE {table}' if table else 'ANALYZE the tables'} brings its statistics up to date; CREATE "
                "STATISTICS tells it of columns that go together.",
                f"{counted(estimated)} estimated, {figure(actual)} came{loops}",
                node,
            )


_COUNT_OTHERWISE = (
    "BitmapAnd",
    "BitmapOr",
    "ModifyTable",
    "Gather",
    "Gather Merge",
    "Materialize",
    "Memoize",
)
"""Steps whose rows are not counted, counted again with each rewind, or those of the step below."""


def _is_off(case: Case, node: QueryPlanNode) -> bool:
    if node.kind in _COUNT_OTHERWISE or not node.loops or node.actual_rows is None:
        return False
    estimated, actual = max(1.0, node.estimated_rows or 0), max(1.0, node.actual_rows)
    if max(estimated, actual) <= OFF * min(estimated, actual):
        return False
    if max(estimated, actual) * node.loops < ROWS_THAT_MATTER:
        return False
    return not _is_cut_short(case, node, less=actual < estimated)


_ALL_FIRST = ("Sort", "Hash", "Aggregate", "Bitmap Heap Scan", "ModifyTable")
"""Steps that take all rows before they give one, so that nothing above them stops those below."""


def _is_cut_short(case: Case, node: QueryPlanNode, *, less: bool) -> bool:
    """Whether a step above may have asked for fewer rows than there are; or, in a merge, for some again."""
    if node.kind == "Limit":
        return True  # its estimate is a bound, and for a parameter a guess
    for above, child in case.above(node):
        if above.kind == "Merge Join" and (less or above.children[1] is child):
            return True
        if above.kind in _ALL_FIRST and "Group" not in above.label and "Subplan Name" not in child.details:
            return False
        stops = above.kind == "Limit" or above.details.get("Inner Unique") or "Semi" in above.label
        if less and (stops or "Anti" in above.label or "Subplan Name" in child.details):
            return True
    return False


def _table_of(case: Case, node: QueryPlanNode) -> str | None:
    """The step's table; of a bitmap, the one of the step above."""
    if node.relation is not None or node.children:
        return node.relation
    return next((above.relation for above, _ in case.above(node) if above.kind == "Bitmap Heap Scan"), None)


# --- Loops and offsets ----------------------------------------------------------------------------


def nested_loop(case: Case) -> Iterator[Finding]:
    """The inner side of a loop is executed for many rows of the outer one, and that takes long."""
    for node in case.steps:
        if node.kind != "Nested Loop":
            continue
        outer, inner = _sides(node)
        if case.plan.analyzed:
            times, took = inner.loops or 0, inner.total_ms or 0
            if times <= MANY_LOOPS or took < LEAST_MS or case.share(inner) < COSTLY:
                continue
            evidence, severity = (
                f"{times:,} executions, {took:,.1f} ms, {case.share(inner):.0%} of all",
                "warning",
            )
        else:
            times = outer.estimated_rows or 0
            if times <= MANY_LOOPS or case.share(inner) < COSTLY * 2:
                continue
            evidence, severity = (
                f"{times:,.0f} executions expected, {case.share(inner):.0%} of the cost",
                "info",
            )
        yield Finding(
            "nested-loop",
            f"{inner.label} is executed for each row of {outer.label}.  If the rows were underestimated, ANALYZE; else "
            "a condition that leaves fewer rows, or an index for the inner side, makes it quick.",
            evidence,
            node,
            severity,
        )


def _sides(loop: QueryPlanNode) -> tuple[QueryPlanNode, QueryPlanNode]:
    sides = {child.details.get("Parent Relationship"): child for child in loop.children}
    return sides["Outer"], sides["Inner"]


def deep_offset(case: Case) -> Iterator[Finding]:
    """OFFSET makes rows and passes them over; seen from the rows below the LIMIT, or expected from its cost."""
    for node in case.steps:
        if node.kind != "Limit" or not node.children:
            continue
        passed, kept = _passed_over(case, node, node.children[0])
        if passed >= THROWN_AWAY and passed >= OFF * kept:
            yield Finding(
                "deep-offset",
                "OFFSET walks over all the rows before the page.  paginate_keyset() goes on where the last page "
                "ended, whatever its number.",
                f"{counted(passed)} passed over for {kept:,.0f}",
                node,
            )


def _passed_over(case: Case, node: QueryPlanNode, child: QueryPlanNode) -> tuple[float, float]:
    if node.actual_rows is not None and child.actual_rows is not None:
        return (child.actual_rows - node.actual_rows) * child.processes, node.actual_rows
    if case.statement.parameters is None and re.search(
        r"OFFSET\s+[(\s]*\$", case.statement.sql, re.IGNORECASE
    ):
        return 0, 1  # the planner takes a tenth of all rows for an offset that it does not know
    span = (child.total_cost or 0) - (child.startup_cost or 0)
    skipped = (node.startup_cost or 0) - (child.startup_cost or 0)
    return (skipped / span * (child.estimated_rows or 0) if span > 0 else 0), node.estimated_rows or 0
