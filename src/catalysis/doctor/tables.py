"""The tables of a live PostgreSQL database: indexes, constraints, keys, dead rows.

Of the schemas on the search path and of those that the models name; what belongs to an extension is its own affair.
"""

from collections.abc import Iterator
from typing import Any

from catalysis.doctor.complaint import Complaint, Rule
from catalysis.doctor.live import Case, LiveCheck, Rows, duration, size

POSTGRESQL = "https://www.postgresql.org/docs/current/"

INVALID = Rule(
    "D321",
    "index-invalid",
    "error",
    "an index that a failed CREATE INDEX CONCURRENTLY or REINDEX left behind",
    POSTGRESQL + "sql-createindex.html#SQL-CREATEINDEX-CONCURRENTLY",
)
BLOATED = Rule(
    "D322",
    "index-bloated",
    "warning",
    "an index that by estimate is more than half empty",
    POSTGRESQL + "routine-reindex.html",
)
DEAD = Rule(
    "D323",
    "dead-rows",
    "warning",
    "a table of which more than a fifth are dead rows, by the server's estimate",
    POSTGRESQL + "routine-vacuuming.html#VACUUM-FOR-SPACE-RECOVERY",
)
UNCHECKED = Rule(
    "D324",
    "constraint-not-valid",
    "warning",
    "a constraint that older rows were never checked against",
    POSTGRESQL + "sql-altertable.html#SQL-ALTERTABLE-DESC-VALIDATE-CONSTRAINT",
)
DUPLICATE = Rule(
    "D327",
    "index-duplicate",
    "warning",
    "an index that another one repeats",
    POSTGRESQL + "indexes-intro.html",
)
UNUSED = Rule(
    "D328",
    "index-unused",
    "info",
    "an index that was never read on this server",
    POSTGRESQL + "monitoring-stats.html#MONITORING-PG-STAT-ALL-INDEXES-VIEW",
)
NAIVE = Rule(
    "D329",
    "naive-timestamp-in-database",
    "warning",
    "a column without a time zone that the models do not know",
    "https://wiki.postgresql.org/wiki/Don%27t_Do_This#Don.27t_use_timestamp_.28without_time_zone.29",
)
NO_KEY = Rule(
    "D330",
    "table-without-primary-key",
    "warning",
    "a table without a primary key",
    POSTGRESQL + "ddl-constraints.html#DDL-CONSTRAINTS-PRIMARY-KEYS",
)

# --- Indexes --------------------------------------------------------------------------------------

_INVALID = """
SELECT format('%I.%I', n.nspname, c.relname) AS index, format('%I.%I', n.nspname, t.relname) AS owner,
    c.relkind = 'I' AS is_partitioned, i.indisunique AS is_unique
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_class t ON t.oid = i.indrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT (i.indisvalid AND i.indisready)
    AND n.nspname = ANY (current_schemas(false) || CAST(:schemas AS name[]))
    AND NOT EXISTS (SELECT 1 FROM pg_stat_progress_create_index p WHERE p.datname = current_database()
        AND (p.relid = i.indrelid OR p.relid IS NULL))
ORDER BY 1
"""
"""What is being built is invalid meanwhile; of whom a role may not see what is built, it may be any."""


def _invalid(rows: Rows, case: Case) -> Iterator[Complaint]:
    for row in rows:
        kept = " Rows that repeat may be there." if row.is_unique else ""
        yield INVALID.complain(
            f"index {short(row.index)}",
            f"It is invalid: no query uses it, and each write to {short(row.owner)} keeps it up.{kept}",
            f"ALTER INDEX {row.index} ATTACH PARTITION …; one for each partition"
            if row.is_partitioned
            else f"REINDEX INDEX CONCURRENTLY {row.index}; or DROP INDEX CONCURRENTLY {row.index};",
        )


_BLOATED = """
WITH measured AS (
    SELECT format('%I.%I', n.nspname, c.relname) AS index, c.relpages, c.reltuples,
        current_setting('block_size')::int AS block,
        coalesce((SELECT option_value::int FROM pg_options_to_table(c.reloptions)
            WHERE option_name = 'fillfactor'), 90) / 100.0 AS fill,
        CASE WHEN max(s.null_frac) > 0 THEN 16 ELSE 8 END
            + ceil(sum(s.avg_width * (1 - s.null_frac)) / 8) * 8 + 4 AS entry
    FROM pg_index i
    JOIN pg_class c ON c.oid = i.indexrelid
    JOIN pg_am m ON m.oid = c.relam AND m.amname = 'btree'
    JOIN pg_class t ON t.oid = i.indrelid
    JOIN pg_namespace n ON n.oid = t.relnamespace
    CROSS JOIN LATERAL unnest(CAST(i.indkey AS int2[])) AS k (number)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
    JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = t.relname AND s.attname = a.attname
        AND NOT s.inherited
    WHERE i.indisvalid AND c.reltuples >= 0 AND c.relkind = 'i'
        AND n.nspname = ANY (current_schemas(false) || CAST(:schemas AS name[]))
    GROUP BY n.nspname, c.relname, c.relpages, c.reltuples, c.reloptions, i.indnatts
    HAVING count(*) = i.indnatts
), judged AS (
    SELECT index, CAST(relpages AS float8) * block AS bytes,
        (relpages - 2 - ceil(reltuples * entry / ((block - 40) * fill))) * CAST(block AS float8) AS wasted
    FROM measured
)
SELECT index, bytes, wasted FROM judged WHERE wasted >= :bloat AND wasted > bytes / 2 ORDER BY wasted DESC
"""
"""Pages an index has, against those its entries would fill: 8 bytes of header each, 16 with NULLs, the columns'
average widths rounded up to 8, 4 for the pointer; 40 bytes of each page are its own.  Duplicates that the server packs
together make the real index smaller than this, so that bloat may go unseen but is not made up.

Source: PostgreSQL documentation, "Database Page Layout" and "B-Tree Indexes"; the method is that of the estimates
that go round (ioguix's `pgsql-bloat-estimation`, `check_postgres`).
"""


def _bloated(rows: Rows, case: Case) -> Iterator[Complaint]:
    for row in rows:
        yield BLOATED.complain(
            f"index {short(row.index)}",
            f"By estimate {size(row.wasted)} of its {size(row.bytes)} are empty.",
            f"REINDEX INDEX CONCURRENTLY {row.index};",
        )


_DUPLICATE = """
SELECT * FROM (
    SELECT format('%I.%I', n.nspname, c.relname) AS index, format('%I.%I', n.nspname, t.relname) AS owner,
        quote_ident(k.conname) AS constraint, k.conname IS NOT NULL AS is_constraint,
        CAST(pg_relation_size(c.oid) AS float8) AS bytes,
        row_number() OVER same AS place, first_value(format('%I.%I', n.nspname, c.relname)) OVER same AS kept
    FROM pg_index i
    JOIN pg_class c ON c.oid = i.indexrelid
    JOIN pg_class t ON t.oid = i.indrelid
    JOIN pg_namespace n ON n.oid = t.relnamespace
    LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u')
    WHERE i.indisvalid AND NOT i.indisexclusion AND NOT c.relispartition
        AND n.nspname = ANY (current_schemas(false) || CAST(:schemas AS name[]))
    WINDOW same AS (
        PARTITION BY i.indrelid, c.relam, CAST(i.indkey AS text), i.indnkeyatts, CAST(i.indclass AS text),
            CAST(i.indcollation AS text), CAST(i.indoption AS text), i.indimmediate,
            to_jsonb(i) ->> 'indnullsnotdistinct',
            pg_get_expr(i.indexprs, i.indrelid), pg_get_expr(i.indpred, i.indrelid)
        ORDER BY i.indisprimary DESC, i.indisreplident DESC, k.conname IS NOT NULL DESC, i.indisunique DESC, c.relname
    )
) AS found WHERE place > 1 ORDER BY index
"""


def _duplicate(rows: Rows, case: Case) -> Iterator[Complaint]:
    for row in rows:
        yield DUPLICATE.complain(
            f"index {short(row.index)}",
            f"{short(row.kept)} is the same index of {short(row.owner)}; this one takes {size(row.bytes)} and a "
            "part of each write.",
            f"ALTER TABLE {row.owner} DROP CONSTRAINT {row.constraint};"
            if row.is_constraint
            else f"DROP INDEX CONCURRENTLY {row.index};",
        )


_UNUSED = """
SELECT format('%I.%I', s.schemaname, s.indexrelname) AS index, CAST(pg_relation_size(s.indexrelid) AS float8) AS bytes,
    CAST(extract(epoch FROM clock_timestamp() - d.stats_reset) AS float8) AS counted
FROM pg_stat_user_indexes s
JOIN pg_index i ON i.indexrelid = s.indexrelid
JOIN pg_class c ON c.oid = s.indexrelid
JOIN pg_stat_database d ON d.datname = current_database()
WHERE s.idx_scan = 0 AND NOT i.indisunique AND NOT i.indisexclusion AND i.indisvalid AND NOT c.relispartition
    AND pg_relation_size(s.indexrelid) >= :unused
    AND NOT EXISTS (SELECT 1 FROM pg_constraint k
        WHERE k.conrelid = i.indrelid AND k.contype = 'f' AND i.indkey[0] = ANY (k.conkey))
    AND s.schemaname = ANY (current_schemas(false) || CAST(:schemas AS name[]))
ORDER BY 2 DESC
"""
"""An index that a foreign key may need stays, whether or not a row was deleted yet: see D101."""


def _unused(rows: Rows, case: Case) -> Iterator[Complaint]:
    for row in rows:
        since = "since counting began" if row.counted is None else f"in {duration(row.counted)}"
        yield UNUSED.complain(
            f"index {short(row.index)}",
            f"Nothing read it on this server {since}, and it takes {size(row.bytes)}.  Replicas count for themselves.",
            f"DROP INDEX CONCURRENTLY {row.index}; once you know that nothing needs it",
        )


# --- Rows and constraints -------------------------------------------------------------------------

_DEAD = """
SELECT format('%I.%I', s.schemaname, s.relname) AS owner, s.n_dead_tup AS dead, s.n_live_tup AS live,
    CAST(extract(epoch FROM clock_timestamp() - greatest(s.last_vacuum, s.last_autovacuum)) AS float8) AS vacuumed,
    CAST(current_setting('autovacuum') AS bool) AND NOT coalesce('autovacuum_enabled=false' = ANY (c.reloptions), false)
        AS is_automatic
FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid
WHERE s.n_dead_tup >= :dead_rows AND s.n_dead_tup > (s.n_dead_tup + s.n_live_tup) / 5
    AND s.schemaname = ANY (current_schemas(false) || CAST(:schemas AS name[]))
ORDER BY s.n_dead_tup DESC
"""


def _dead(rows: Rows, case: Case) -> Iterator[Complaint]:
    for row in rows:
        last = "it was never vacuumed" if row.vacuumed is None else f"vacuumed {duration(row.vacuumed)} ago"
        off = "" if row.is_automatic else "  Autovacuum is off here."
        again = (
            "SET (autovacuum_vacuum_scale_factor = 0.05)"
            if row.is_automatic
            else "RESET (autovacuum_enabled)"
        )
        yield DEAD.complain(
            short(row.owner),
            f"By the server's estimate {row.dead:,} rows are dead and {row.live:,} live; {last}.{off}",
            f"VACUUM (ANALYZE) {row.owner}; and so that it lasts: ALTER TABLE {row.owner} {again};",
        )


_UNCHECKED = """
SELECT format('%I.%I', n.nspname, t.relname) AS owner, format('%I', k.conname) AS constraint,
    k.contype = 'f' AS is_key
FROM pg_constraint k
JOIN pg_class t ON t.oid = k.conrelid
JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE NOT k.convalidated AND coalesce(CAST(to_jsonb(k) ->> 'conenforced' AS bool), true)
    AND n.nspname = ANY (current_schemas(false) || CAST(:schemas AS name[]))
ORDER BY 1, 2
"""


def _unchecked(rows: Rows, case: Case) -> Iterator[Complaint]:
    for row in rows:
        yield UNCHECKED.complain(
            f"constraint {row.constraint} of {short(row.owner)}",
            "It is NOT VALID: it goes for new rows, and rows from before it may "
            + ("refer to nothing." if row.is_key else "break it."),
            f"ALTER TABLE {row.owner} VALIDATE CONSTRAINT {row.constraint};",
        )


_NAIVE = """
SELECT n.nspname AS schema, t.relname AS table, a.attname AS column,
    format('%I.%I', n.nspname, t.relname) AS owner, format('%I', a.attname) AS quoted
FROM pg_attribute a
JOIN pg_class t ON t.oid = a.attrelid AND t.relkind IN ('r', 'p') AND NOT t.relispartition
JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE a.atttypid = CAST('timestamp' AS regtype) AND a.attnum > 0 AND NOT a.attisdropped
    AND n.nspname = ANY (current_schemas(false) || CAST(:schemas AS name[]))
    AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = t.oid AND d.deptype = 'e')
ORDER BY 1, 2, 3
"""


def _naive(rows: Rows, case: Case) -> Iterator[Complaint]:
    for row in rows:
        if not case.models.has_column(row.table, row.column, row.schema):  # of those D103 and D215 speak
            yield NAIVE.complain(
                f"{short(row.owner)}.{row.quoted}",
                "It is `timestamp without time zone`, so that nobody can tell which moment a value is.",
                f"ALTER TABLE {row.owner} ALTER COLUMN {row.quoted} TYPE timestamptz USING {row.quoted} AT TIME ZONE "
                "'UTC'; if it holds UTC (the table is rewritten)",
            )


_NO_KEY = """
SELECT format('%I.%I', n.nspname, t.relname) AS owner
FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE t.relkind IN ('r', 'p') AND NOT t.relispartition
    AND n.nspname = ANY (current_schemas(false) || CAST(:schemas AS name[]))
    AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conrelid = t.oid AND k.contype = 'p')
    AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = t.oid AND d.deptype = 'e')
ORDER BY 1
"""


def _without_key(rows: Rows, case: Case) -> Iterator[Complaint]:
    for row in rows:
        yield NO_KEY.complain(
            short(row.owner),
            "It has no primary key: its rows cannot be told apart for certain, and logical replication cannot "
            "update or delete them.",
            f"ALTER TABLE {row.owner} ADD PRIMARY KEY (…);",
        )


def short(quoted: Any) -> str:
    """A name as it is said where the schema is the usual one."""
    return str(quoted).removeprefix("public.")


CHECKS: tuple[LiveCheck, ...] = (
    LiveCheck(INVALID, _INVALID, _invalid),
    LiveCheck(BLOATED, _BLOATED, _bloated),
    LiveCheck(DEAD, _DEAD, _dead),
    LiveCheck(UNCHECKED, _UNCHECKED, _unchecked),
    LiveCheck(DUPLICATE, _DUPLICATE, _duplicate),
    LiveCheck(UNUSED, _UNUSED, _unused),
    LiveCheck(NAIVE, _NAIVE, _naive),
    LiveCheck(NO_KEY, _NO_KEY, _without_key),
)
