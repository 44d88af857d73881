"""What is wrong with a query plan, and what shows it.  Pure: each finding is a function of plan, statement and facts.

| code | |
| --- | --- |
| `sequential-scan` | a table is read from end to end for a small part of it |
| `foreign-key-without-index` | that is for the columns of a foreign key, in a condition, a join or a DELETE |
| `spilled-to-disk` | a sort, hash table or intermediate result did not fit into work_mem |
| `estimate-off` | the planner expected more than ten times as many rows, or less than a tenth |
| `nested-loop` | the inner side of a loop was executed very often, and it took long |
| `filter-after-index` | an index led to rows of which a condition threw most away |
| `deep-offset` | rows were made only to be passed over |

Evidence quotes the plan: with values bound, a condition shows them.
"""

from catalysis.tools.query_plans.case import Case, Finder, Statement
from catalysis.tools.query_plans.facts import Facts
from catalysis.tools.query_plans.scans import filter_after_index, foreign_key_without_index, sequential_scan
from catalysis.tools.query_plans.sqlite import SQLITE
from catalysis.tools.query_plans.tree import Finding, QueryPlan
from catalysis.tools.query_plans.work import deep_offset, estimate_off, nested_loop, spilled_to_disk

POSTGRESQL: tuple[Finder, ...] = (
    sequential_scan,
    foreign_key_without_index,
    spilled_to_disk,
    estimate_off,
    nested_loop,
    filter_after_index,
    deep_offset,
)


def findings_of(
    plan: QueryPlan, statement: Statement, facts: Facts, finders: tuple[Finder, ...]
) -> tuple[Finding, ...]:
    """All findings of a plan: warnings first, and what takes most of the time or cost before the rest."""
    case = Case(plan, statement, facts)
    found = [finding for finder in finders for finding in finder(case)]
    keys = {id(each.node) for each in found if each.code == "foreign-key-without-index"}
    found = [each for each in found if each.code != "sequential-scan" or id(each.node) not in keys]

    def place(finding: Finding) -> tuple[bool, float]:
        return finding.severity != "warning", -case.share(finding.node) if finding.node else 0

    return tuple(sorted(found, key=place))


__all__ = ["POSTGRESQL", "SQLITE", "Case", "Finder", "Finding", "Statement", "findings_of"]
