"""PostgreSQL by asyncpg."""

from typing import Any

from catalysis.settings import DatabaseSettings


def connect_args(settings: DatabaseSettings) -> dict[str, Any]:
    """What asyncpg is told when it connects."""
    connect: dict[str, Any] = {"timeout": settings.connect_timeout}
    if settings.statement_timeout is not None:
        milliseconds = round(settings.statement_timeout * 1000)
        connect["server_settings"] = {"statement_timeout": str(milliseconds)}
    return connect
