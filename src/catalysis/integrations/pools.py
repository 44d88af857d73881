"""The pools that metrics show, read from whichever thread exports them."""

from collections.abc import Iterable

from catalysis.database import Database, PoolFigures
from catalysis.events import DatabaseAddress


def pool_name(address: DatabaseAddress) -> str:
    """`server.address:server.port/db.namespace`, as OpenTelemetry's conventions name a pool that has no name.

    Of an embedded database: its file.
    """
    port = "" if address.port is None else f":{address.port}"
    server = "" if address.host is None else f"{address.host}{port}/"
    return f"{server}{address.name or ''}" or address.system


def pools_of(databases: Iterable[Database]) -> dict[str, PoolFigures]:
    """How the pools stand, by their names, those of all event loops together."""
    found: dict[str, PoolFigures] = {}
    for database in list(databases):
        name, figures = pool_name(database.address), database.pool_figures(all_loops=True)
        if (other := found.get(name)) is not None:  # several `Database`s of one database
            limit = None if other.limit is None or figures.limit is None else other.limit + figures.limit
            figures = PoolFigures(other.open + figures.open, other.lent + figures.lent, limit)
        found[name] = figures
    return found
