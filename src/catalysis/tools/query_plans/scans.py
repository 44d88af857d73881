"""Findings of PostgreSQL's plans about how rows are found: by reading tables from end to end, or by the wrong index."""

import re
from collections.abc import Iterator

from catalysis.tools.query_plans.case import SELECTIVE, THROWN_AWAY, Case, counted, divisor
from catalysis.tools.query_plans.facts import ROWS_WORTH_AN_INDEX, ForeignKey, removed_rows
from catalysis.tools.query_plans.tree import Finding, QueryPlanNode


def sequential_scan(case: Case) -> Iterator[Finding]:
    """All of a table is read for a small part; its size is known from the figures, else from the catalog."""
    for node in case.steps:
        if node.kind != "Seq Scan" or not node.filter or _is_a_subplan(node.filter):
            continue
        if (seen := _selective(case, node)) is not None:
            yield Finding(
                "sequential-scan",
                f"All of {node.relation} is read for a small part of it.  An index on the columns that the condition "
                "compares would lead to the rows.",
                f"{seen}; Filter: {node.filter}",
                node,
            )


def _is_a_subplan(condition: str) -> bool:
    """`NOT IN (SELECT …)` and the like, for which no index leads to rows."""
    return "SubPlan" in condition and " AND " not in condition


def _selective(case: Case, node: QueryPlanNode) -> str | None:
    """How few of many rows a scan keeps, in words; None where it keeps much, or reads little."""
    if node.actual_rows is not None and node.loops:
        kept = node.actual_rows * node.processes
        read, verb = kept + removed_rows(node) * node.processes, "read"
    elif (rows := _rows_of(case, node.relation)) is not None:
        kept = (node.estimated_rows or 0) * divisor(node.processes)
        read, verb = rows * _walked(case, node), "to be read"
    else:
        return None
    if read < ROWS_WORTH_AN_INDEX or kept > read * SELECTIVE:
        return None
    return f"{counted(read)} {verb}, {kept:,.0f} kept"


def _rows_of(case: Case, relation: str | None) -> float | None:
    table = case.facts.get(relation or "")
    return None if table is None else table.rows


def _walked(case: Case, node: QueryPlanNode) -> float:
    """The part of a scan that a LIMIT right above it needs."""
    parent = next((above for above, _ in case.above(node)), None)
    if parent is None or parent.kind != "Limit" or not node.total_cost:
        return 1
    return min(1.0, (parent.total_cost or 0) / node.total_cost)


def filter_after_index(case: Case) -> Iterator[Finding]:
    """Most of the rows that an index led to are thrown away by a condition that it does not hold."""
    for node in case.steps:
        if node.kind not in ("Index Scan", "Index Only Scan", "Bitmap Heap Scan") or not node.filter:
            continue
        led, kept = _led_and_kept(node)
        if led - kept < THROWN_AWAY or kept > led * SELECTIVE:
            continue
        index = node.index or next((below.index for below in node.nodes() if below.index), "the index")
        yield Finding(
            "filter-after-index",
            f"{index} leads to rows that a further condition throws away.  An index that has the columns of that "
            "condition too would leave them out.",
            f"{counted(led)} by the index, {kept:,.0f} kept; Filter: {node.filter}",
            node,
        )


def _led_and_kept(node: QueryPlanNode) -> tuple[float, float]:
    if node.total_rows is not None:
        return node.total_rows + removed_rows(node) * (node.loops or 0), node.total_rows
    bitmap = node.children[0].estimated_rows if node.kind == "Bitmap Heap Scan" and node.children else None
    return bitmap or 0, (node.estimated_rows or 0) * divisor(node.processes)


# --- Foreign keys ---------------------------------------------------------------------------------


def foreign_key_without_index(case: Case) -> Iterator[Finding]:
    """A table is read from end to end for what an index on its foreign key would find."""
    for node in case.steps:
        if node.kind == "Seq Scan" and (table := case.facts.get(node.relation or "")) is not None:
            for key in table.unindexed_keys():
                if (evidence := _asked_by_key(case, node, key)) is not None:
                    yield _key_finding(table.name, key, f"All of {table.name} is read", evidence, node)
        elif node.operation == "Delete" and node.relation is not None:
            yield from _deleted(case, node)


def _key_finding(table: str, key: ForeignKey, what: str, evidence: str, node: QueryPlanNode) -> Finding:
    columns = ", ".join(key.columns)
    return Finding(
        "foreign-key-without-index",
        f"{what}, since no index begins with its foreign key ({columns}).  Add one on {table} ({columns}).",
        evidence,
        node,
    )


def _asked_by_key(case: Case, node: QueryPlanNode, key: ForeignKey) -> str | None:
    """What shows that a scan is for rows with certain values of the key; None if it is not."""
    if all(_compares(node.filter, None, column) for column in key.columns):
        seen = _selective(case, node)
        return f"{seen}; Filter: {node.filter}" if seen else None
    for join, _ in case.above(node):
        conditions = [str(join.details[name]) for name in _JOINS if name in join.details]
        if conditions:
            if not all(_compares(conditions[0], node.alias, column) for column in key.columns):
                return None
            return _few_joined(case, node, join, conditions[0])
    return None


_JOINS = ("Hash Cond", "Merge Cond", "Join Filter")


def _compares(condition: str | None, alias: str | None, column: str) -> bool:
    """Whether a condition asks for equality of the column; with an alias, of its table's."""
    name = rf'"?{re.escape(column)}"?'
    name = rf"(?:\w+\.)?{name}" if alias is None else rf'"?{re.escape(alias)}"?\.{name}'
    cast = r"\)?(?:::[\w ]+(?:\(\d+\))?)?"
    return bool(
        condition and re.search(rf"(?<![\w.\"]){name}{cast} = |= \(?{name}{cast}(?![\w.])", condition)
    )


def _few_joined(case: Case, node: QueryPlanNode, join: QueryPlanNode, condition: str) -> str | None:
    """A join that keeps much of the table is best served by reading it whole."""
    if node.actual_rows is not None and join.actual_rows is not None and node.loops:
        loops = node.loops / node.processes
        read = (node.actual_rows + removed_rows(node)) * node.processes
        kept = (join.total_rows or 0) / loops
    else:
        read, kept = _rows_of(case, node.relation) or 0, (join.estimated_rows or 0) * divisor(join.processes)
    if read < ROWS_WORTH_AN_INDEX or kept > read * SELECTIVE:
        return None
    return f"{counted(read)} read, {kept:,.0f} joined; {join.label}: {condition}"


def _deleted(case: Case, node: QueryPlanNode) -> Iterator[Finding]:
    """A DELETE looks for rows that refer to those it removes, in each table with a foreign key."""
    for table in case.facts.values():
        for key in table.unindexed_keys():
            if key.refers_to != node.relation or (table.rows or 0) < ROWS_WORTH_AN_INDEX:
                continue
            evidence = f"{table.name} has {counted(table.rows or 0)}"
            for trigger in case.plan.triggers:
                if trigger.constraint == key.name:
                    evidence += f"; Trigger {key.name}: {trigger.ms:,.1f} ms in {trigger.calls:,} calls"
            what = f"For each row deleted from {node.relation} all of {table.name} is read"
            yield _key_finding(table.name, key, what, evidence, node)
