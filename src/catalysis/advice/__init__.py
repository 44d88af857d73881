"""Advice on indexes, over the statements an application really sent, each proved before it is given.

`workload` is what was sent, `predicates` what a statement asks of each table, `candidates` what may help,
`choosing` which of it, `proving` the trials at the database, `redundancy` what could go, `revision` the migration.
"""

from catalysis.advice.advise import (
    Advice,
    Gain,
    ProposedIndex,
    Skipped,
    StatementCost,
    UnprovedIndex,
    advise,
)
from catalysis.advice.definitions import IndexDefinition
from catalysis.advice.redundancy import IndexToDrop
from catalysis.advice.workload import Statement, Workload, gather_workload, workload_from_statistics

__all__ = [
    "Advice",
    "Gain",
    "IndexDefinition",
    "IndexToDrop",
    "ProposedIndex",
    "Skipped",
    "Statement",
    "StatementCost",
    "UnprovedIndex",
    "Workload",
    "advise",
    "gather_workload",
    "workload_from_statistics",
]
