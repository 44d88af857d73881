"""Settings of the database for one transaction, where it has such: what row-level security policies read."""

from sqlalchemy import Connection, text

from catalysis.engine.alchemy.owning import LocalSetting

SET_LOCALLY = "SELECT set_config($1, $2, true)"
"""As asyncpg binds it.  Source: PostgreSQL documentation, "Configuration Settings Functions"."""

_SET = text("SELECT set_config(:name, :value, true)")
_HAVE_SETTINGS = frozenset({"postgresql"})


def set_locally(connection: Connection, setting: LocalSetting) -> None:
    """Set it until the end of the transaction that has begun on the connection; inside a greenlet.

    A database without settings is left alone.

    Raises:
        DBAPIError: the database refused.
    """
    if connection.dialect.name in _HAVE_SETTINGS:
        connection.execute(_SET, {"name": setting.name, "value": setting.value})
