"""Catalysis: an async data layer that leaves your SQLAlchemy and SQLModel code as it is.

The face: what is imported from here is public, and nothing else is.
"""

from typing import TYPE_CHECKING, Any

from catalysis.database import Database, DatabaseService, Health, PoolFigures
from catalysis.errors import (
    ActivityError,
    AttributeNotLoaded,
    BulkError,
    CannotConnect,
    CatalysisError,
    CommitOutcomeUnknown,
    CrossShardQuery,
    DistributionError,
    ExplainError,
    InvalidPage,
    InvalidToken,
    LoadedWhenTouched,
    MigrationError,
    ModelError,
    NoAnswer,
    PoolExhausted,
    RelationshipNotLoaded,
    RepeatedQuery,
    SettingsError,
    TenantError,
    TenantRequired,
    TransactionMisused,
    UncommittedChanges,
    UnsupportedStatement,
)
from catalysis.events import CallSite, QueryEvent, subscribe
from catalysis.integrations.temporal import activity
from catalysis.loading.computed import Computed, count, exists, top, total
from catalysis.loading.load import load
from catalysis.loading.managed import managed, run
from catalysis.models import DTO, NAMING_CONVENTION, ModelWithIdAndTimestamps, uuid7
from catalysis.replicas import ReplicaHealth
from catalysis.session import Session
from catalysis.settings import DatabaseSettings
from catalysis.soft_delete import SoftDelete, hard_delete, include_deleted
from catalysis.tenancy import ALL_TENANTS, TenantScoped
from catalysis.tools.bulk import bulk_insert, bulk_update, upsert
from catalysis.tools.bulk_load import Loaded, bulk_load
from catalysis.tools.explain import explain, explain_sql
from catalysis.tools.keyset import KeysetPage, paginate_keyset
from catalysis.tools.paginate import Page, paginate
from catalysis.tools.query_plans.tree import Finding, QueryPlan, QueryPlanNode
from catalysis.tools.sets import delete_where, update_where
from catalysis.tools.watch import QueryLog, Repeated, watch_queries

if TYPE_CHECKING:
    from catalysis.integrations.fastapi import DatabaseDep
else:

    def __getattr__(name: str) -> Any:
        """`DatabaseDep` needs the extra `fastapi`, which everything else does without."""
        if name == "DatabaseDep":
            from catalysis.integrations.fastapi import DatabaseDep

            return DatabaseDep
        raise AttributeError(f"module 'catalysis' has no attribute {name!r}")


__all__ = [
    "ALL_TENANTS",
    "DTO",
    "NAMING_CONVENTION",
    "ActivityError",
    "AttributeNotLoaded",
    "BulkError",
    "CallSite",
    "CannotConnect",
    "CatalysisError",
    "CommitOutcomeUnknown",
    "Computed",
    "CrossShardQuery",
    "Database",
    "DatabaseDep",
    "DatabaseService",
    "DatabaseSettings",
    "DistributionError",
    "ExplainError",
    "Finding",
    "Health",
    "InvalidPage",
    "InvalidToken",
    "KeysetPage",
    "Loaded",
    "LoadedWhenTouched",
    "MigrationError",
    "ModelError",
    "ModelWithIdAndTimestamps",
    "NoAnswer",
    "Page",
    "PoolExhausted",
    "PoolFigures",
    "QueryEvent",
    "QueryLog",
    "QueryPlan",
    "QueryPlanNode",
    "RelationshipNotLoaded",
    "Repeated",
    "RepeatedQuery",
    "ReplicaHealth",
    "Session",
    "SettingsError",
    "SoftDelete",
    "TenantError",
    "TenantRequired",
    "TenantScoped",
    "TransactionMisused",
    "UncommittedChanges",
    "UnsupportedStatement",
    "activity",
    "bulk_insert",
    "bulk_load",
    "bulk_update",
    "count",
    "delete_where",
    "exists",
    "explain",
    "explain_sql",
    "hard_delete",
    "include_deleted",
    "load",
    "managed",
    "paginate",
    "paginate_keyset",
    "run",
    "subscribe",
    "top",
    "total",
    "update_where",
    "upsert",
    "uuid7",
    "watch_queries",
]
