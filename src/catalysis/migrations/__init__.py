"""Migrations: Alembic, with an asynchronous environment that serves SQLite and PostgreSQL alike.

`run_environment` is what a project's `env.py` calls; the rest does from Python what `catalysis migrate` does.
Importing this package teaches Alembic, for the whole process, to compare indexes and enum types.
"""

from catalysis.migrations.environment import Step, run_environment
from catalysis.migrations.policies import TenantPolicy, tenant_policies
from catalysis.migrations.project import init_project, load_config
from catalysis.migrations.runner import check, current, downgrade, revise, upgrade

__all__ = [
    "Step",
    "TenantPolicy",
    "check",
    "current",
    "downgrade",
    "init_project",
    "load_config",
    "revise",
    "run_environment",
    "tenant_policies",
    "upgrade",
]
