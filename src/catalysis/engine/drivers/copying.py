"""COPY by asyncpg: whether a table takes it as it takes an INSERT, and the rows sent."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none

from catalysis.engine.alchemy.adapters import begin, driver_connection, is_begun, turn_on


class CopyTarget(NamedTuple):
    """A table and those of its columns that rows are for."""

    schema: str | None
    table: str
    columns: tuple[str, ...]
    casts: tuple[str, ...]
    """The types, in SQL, of the parameters that an INSERT would have."""

    @property
    def sql(self) -> str:
        """The statement, as events and errors show it."""
        names = [f'"{name}"' for name in (self.schema, self.table) if name]
        columns = ", ".join(f'"{name}"' for name in self.columns)
        return f"COPY {'.'.join(names)} ({columns}) FROM STDIN (FORMAT binary)"


_TYPES = """
SELECT array(
    SELECT a.atttypid
    FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS w (name, kind, place)
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = w.name AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_type item ON item.oid = t.typelem AND t.typcategory = 'A'
    WHERE a.attgenerated = '' AND a.attidentity <> 'a'
        AND (COALESCE(item.typnamespace, t.typnamespace) = 'pg_catalog'::regnamespace
             OR COALESCE(item.typtype, t.typtype) = 'e')
        AND (t.oid = to_regtype(w.kind)
             OR t.oid IN ('text'::regtype, 'varchar'::regtype)
                AND to_regtype(w.kind) IN ('text'::regtype, 'varchar'::regtype))
    ORDER BY w.place)
FROM pg_class c
WHERE c.oid = to_regclass(CASE WHEN $4::text IS NULL THEN '' ELSE quote_ident($4) || '.' END || quote_ident($1))
    AND c.relkind IN ('r', 'p') AND NOT c.relhasrules AND NOT row_security_active(c.oid)
    AND has_table_privilege(c.oid, 'SELECT')
"""
"""The columns' types, unless COPY would do otherwise than INSERT.

It knows nothing of rules and views, refuses where rows are secured, writes over "generated always" keys, and encodes
for the column what an INSERT would encode for its cast.  asyncpg asks the table for the types, by a SELECT.
Source: PostgreSQL documentation, "COPY".
"""

FIRST_VERSION = (12,)
"""Of the catalogs that the query above reads."""

_SEEN = "catalysis_copied_types"


async def takes_copy(connection: Any, target: CopyTarget, info: dict[Any, Any]) -> bool:
    """Whether COPY does for these columns what an INSERT would; `info` lives as long as the driver's connection.

    asyncpg keeps the types of a table once it has seen them, and would encode for types that are there no more.

    Raises:
        Exception: whatever the driver raises, untranslated.
    """
    raw = driver_connection(connection)
    if raw.get_server_version() < FIRST_VERSION:
        return False
    async with turn_on(connection):
        if not is_begun(connection):
            await begin(connection)
        types = await raw.fetchval(_TYPES, target.table, target.columns, target.casts, target.schema)
    if types is None or len(types) != len(target.columns):
        return False
    return info.setdefault(_SEEN, {}).setdefault(target[:3], types) == types


async def copy_rows(connection: Any, target: CopyTarget, rows: Sequence[Sequence[Any]]) -> int:
    """Send all rows by one COPY and return how many.  In a transaction, which is lost if it fails.

    Raises:
        Exception: whatever the driver raises, untranslated; `line_of` gives the row's number, if it is known.
    """
    line = 0

    def counted() -> Iterator[Sequence[Any]]:
        nonlocal line
        for line, row in enumerate(rows, 1):  # noqa: B007 - asked for when it fails
            yield row

    async with turn_on(connection):
        if not is_begun(connection):
            await begin(connection)
        try:
            status = await _copy(driver_connection(connection), target, counted())
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            raise
        except Exception as unfit:  # an encoder's
            error: Any = asyncpg.DataError(f"a value cannot be sent: {unfit}")
            error.context = f"COPY {target.table}, line {line}"
            raise error from unfit
    return int(status.rpartition(" ")[2])


async def _copy(raw: Any, target: CopyTarget, rows: Iterable[Sequence[Any]]) -> str:
    return await raw.copy_records_to_table(
        target.table, schema_name=target.schema, columns=target.columns, records=rows
    )
