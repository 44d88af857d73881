"""Numbers that run out in a live PostgreSQL database: sequences and integer keys."""

from collections.abc import Iterator
from typing import Any

from catalysis.doctor.complaint import Complaint, Rule, Skipped
from catalysis.doctor.live import Case, LiveCheck, Rows
from catalysis.doctor.tables import POSTGRESQL, short

BEHIND = Rule(
    "D325",
    "sequence-behind",
    "error",
    "a sequence whose next number is taken",
    POSTGRESQL + "functions-sequence.html",
)
RUNS_OUT = Rule(
    "D326",
    "integers-run-out",
    "warning",
    "an integer key or sequence that has used more than half of its range",
    POSTGRESQL + "datatype-numeric.html#DATATYPE-INT",
)

_NUMBERED = """
SELECT format('%I.%I', n.nspname, t.relname) AS owner, format('%I', a.attname) AS column,
    CASE a.atttypid WHEN CAST('int2' AS regtype) THEN 32767 WHEN CAST('int4' AS regtype) THEN 2147483647
        ELSE 9223372036854775807 END AS type_limit,
    q.name AS sequence, quote_literal(q.name) AS literal, q.seqmax AS sequence_limit, q.seqincrement AS step,
    q.seqcycle AS cycles,
    has_column_privilege(t.oid, a.attnum, 'SELECT')
        AND (q.oid IS NULL OR has_sequence_privilege(q.oid, 'SELECT')) AS is_readable
FROM pg_class t
JOIN pg_namespace n ON n.oid = t.relnamespace
JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
    AND a.atttypid IN (CAST('int2' AS regtype), CAST('int4' AS regtype), CAST('int8' AS regtype))
LEFT JOIN LATERAL (
    SELECT c.oid, format('%I.%I', m.nspname, c.relname) AS name, s.seqmax, s.seqincrement, s.seqcycle
    FROM pg_depend d
    JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'S'
    JOIN pg_namespace m ON m.oid = c.relnamespace
    JOIN pg_sequence s ON s.seqrelid = c.oid
    WHERE d.classid = CAST('pg_class' AS regclass) AND d.refclassid = CAST('pg_class' AS regclass)
        AND d.refobjid = t.oid AND d.refobjsubid = a.attnum AND d.deptype IN ('a', 'i')
    LIMIT 1
) AS q ON true
WHERE t.relkind IN ('r', 'p') AND NOT t.relispartition
    AND n.nspname = ANY (current_schemas(false) || CAST(:schemas AS name[]))
    AND EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = t.oid AND i.indisvalid
        AND i.indkey[0] = a.attnum AND (q.oid IS NOT NULL OR (i.indisprimary AND i.indnkeyatts = 1)))
ORDER BY 1, 2
"""
"""Columns with a sequence of their own, and integer primary keys; with an index, since their maximum is asked for."""


def _read_numbers(row: Any) -> str | None:
    """The greatest number there is and the next one of the sequence; names are quoted by the server."""
    if not row.is_readable:
        return None
    upcoming = "CAST(NULL AS numeric)"
    if row.sequence is not None:
        upcoming = (
            f"(SELECT CASE WHEN is_called THEN CAST(last_value AS numeric) + {int(row.step)} ELSE last_value END"  # noqa: S608 - quoted by the server
            f" FROM {row.sequence})"
        )
    return f"SELECT (SELECT max({row.column}) FROM {row.owner}) AS greatest, {upcoming} AS upcoming"  # noqa: S608 - quoted by the server


def _unreadable(row: Any) -> str:
    return f"{short(row.owner)}.{row.column} may not be read: GRANT SELECT on the table and its sequence to this role"


def _behind(rows: Rows, case: Case) -> Iterator[Complaint | Skipped]:
    for row, numbers in rows:
        if row.sequence is None or row.step < 0:
            continue
        if numbers is None:
            yield BEHIND.skip(_unreadable(row))
        elif numbers.greatest is not None and numbers.upcoming <= numbers.greatest:
            yield BEHIND.complain(
                f"sequence {short(row.sequence)}",
                f"Its next number is {int(numbers.upcoming):,}, and {short(row.owner)}.{row.column} goes up to "
                f"{int(numbers.greatest):,}: an INSERT will take a number that is there.",
                f"SELECT setval({row.literal}, (SELECT max({row.column}) FROM {row.owner}));",  # noqa: S608 - shown, not sent
            )


def _runs_out(rows: Rows, case: Case) -> Iterator[Complaint | Skipped]:
    for row, numbers in rows:
        limit = min(row.type_limit, row.sequence_limit or row.type_limit)
        if limit == _BIGINT or row.cycles or (row.step or 1) < 0:
            continue
        if numbers is None:
            yield RUNS_OUT.skip(_unreadable(row))
            continue
        used = max(int(numbers.greatest or 0), int(numbers.upcoming or 1) - int(row.step or 1))
        if used > limit / 2:
            yield RUNS_OUT.complain(
                f"{short(row.owner)}.{row.column}",
                f"It is at {used:,} of {limit:,} ({used / limit:.0%}); at the end every INSERT fails.",
                f"ALTER SEQUENCE {row.sequence} AS bigint;"
                if row.type_limit == _BIGINT
                else f"ALTER TABLE {row.owner} ALTER COLUMN {row.column} TYPE bigint; and the columns that refer to it "
                "(the table is rewritten under a lock)",
                severity="error" if used > limit * 0.9 else None,
            )


_BIGINT = 2**63 - 1

CHECKS: tuple[LiveCheck, ...] = (
    LiveCheck(BEHIND, _NUMBERED, _behind, then=_read_numbers),
    LiveCheck(RUNS_OUT, _NUMBERED, _runs_out, then=_read_numbers),
)
