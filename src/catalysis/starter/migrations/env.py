"""Alembic's environment: whoever migrates, the tables are those of `app.models`."""

from catalysis.migrations import run_environment

run_environment("catalysis.starter.app.models")
