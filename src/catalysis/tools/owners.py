"""Rows of bulk operations in a session that has a tenant: each gets it, and those of another are refused."""

from collections.abc import Iterable
from typing import Any

from catalysis.engine.alchemy.owning import Owned
from catalysis.errors import TenantError
from catalysis.tenancy.models import required
from catalysis.tools.rows import Row, RowReader
from catalysis.unit_of_work import UnitOfWork


def owned_rows_of(session: Any, reader: RowReader) -> Owned | None:
    """Whose the rows are to be; None where nobody asks.

    Raises:
        TenantRequired: the model belongs to tenants, and the session has none.
    """
    sync, mapper = session.sync_session, reader.mapper
    if not isinstance(sync, UnitOfWork):
        return None
    required(mapper, sync.tenancy)
    return sync.owned_by(mapper)


def claim_rows(owned: Owned | None, reader: RowReader, rows: Iterable[Row]) -> None:
    """Fill the tenant in.

    Raises:
        TenantError: a row has another.
    """
    if owned is None:
        return
    for row in rows:
        given = row.values.get(owned.attribute)
        if given is None:
            row.values[owned.attribute] = owned.owner
        elif given != owned.owner:
            raise TenantError(
                f"{reader.at(row.number)} has another tenant than the session's in {owned.attribute!r}; this chunk "
                "was not sent."
            )
