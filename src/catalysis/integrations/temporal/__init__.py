"""Temporal: activities whose effects happen once, workflows that call them, and the worker that runs both.

Nothing here needs the extra `temporal` to be imported, or for an activity or workflow to be called directly; with it
installed both are Temporal's own, and run by any of its workers.
"""

from catalysis.integrations.temporal.attempts import attempt_number
from catalysis.integrations.temporal.decorator import activity
from catalysis.integrations.temporal.definition import Retry, per_worker, with_options
from catalysis.integrations.temporal.effects import create_effects, effects_table, prune_effects
from catalysis.integrations.temporal.executing import execute, local
from catalysis.integrations.temporal.heartbeats import heartbeat, last_heartbeat
from catalysis.integrations.temporal.workers import connect, worker
from catalysis.integrations.temporal.workflows import workflow

__all__ = [
    "Retry",
    "activity",
    "attempt_number",
    "connect",
    "create_effects",
    "effects_table",
    "execute",
    "heartbeat",
    "last_heartbeat",
    "local",
    "per_worker",
    "prune_effects",
    "with_options",
    "worker",
    "workflow",
]
