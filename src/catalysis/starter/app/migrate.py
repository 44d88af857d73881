"""Where the migrations of this application are, whatever the current folder is."""

from pathlib import Path

from alembic.config import Config

FOLDER = Path(__file__).resolve().parents[1] / "migrations"


def migration_config() -> Config:
    """For `catalysis.migrations.upgrade(database, config=migration_config())` and its like."""
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    return config
