"""The pools that metrics show, read from whichever thread exports them."""

from collections import defaultdict
from collections.abc import Iterable

from catalysis.database import Database
from catalysis.events import DatabaseAddress
from catalysis.pools import PoolFigures, together


def pool_name(address: DatabaseAddress) -> str:
    """`server.address:server.port/db.namespace`, as OpenTelemetry's conventions name a pool that has no name.

    Of an embedded database: its file.
    """
    port = "" if address.port is None else f":{address.port}"
    server = "" if address.host is None else f"{address.host}{port}/"
    return f"{server}{address.name or ''}" or address.system


def pools_of(databases: Iterable[Database]) -> dict[str, PoolFigures]:
    """How the pools stand, by their names, those of all event loops together."""
    found: defaultdict[str, list[PoolFigures]] = defaultdict(list)
    for database in list(databases):
        for address, figures in database.pools().items():
            found[pool_name(address)].append(figures)  # there may be several `Database`s of one database
    return {name: together(figures) for name, figures in found.items()}
