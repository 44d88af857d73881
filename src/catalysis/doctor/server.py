"""A live PostgreSQL server: its sessions, connections, transactions and replicas.

Of a session its number, age and `application_name` are told, never what it runs.
"""

from collections.abc import Iterator
from typing import Any

from catalysis.doctor.complaint import Complaint, Rule, Skipped
from catalysis.doctor.live import Case, Limits, LiveCheck, Rows, duration, size
from catalysis.doctor.tables import POSTGRESQL

IDLE = Rule(
    "D301",
    "idle-in-transaction",
    "warning",
    "a transaction in which nothing happens: it keeps its locks, and dead rows of all tables",
    POSTGRESQL + "runtime-config-client.html#GUC-IDLE-IN-TRANSACTION-SESSION-TIMEOUT",
)
RUNNING = Rule(
    "D302",
    "long-running-statement",
    "warning",
    "a statement that runs for long, or waits for a lock",
    POSTGRESQL + "monitoring-stats.html#MONITORING-PG-STAT-ACTIVITY-VIEW",
)
PREPARED = Rule(
    "D303",
    "prepared-transaction-forgotten",
    "warning",
    "a prepared transaction that nobody ends",
    POSTGRESQL + "sql-prepare-transaction.html",
)
CONNECTIONS = Rule(
    "D304",
    "pools-exceed-server",
    "error",
    "pools that may open more connections than the server has",
    POSTGRESQL + "runtime-config-connection.html#GUC-MAX-CONNECTIONS",
)
WRAPAROUND = Rule(
    "D305",
    "transaction-ids-run-out",
    "warning",
    "a database whose oldest transaction id is old, so that vacuum does not keep up",
    POSTGRESQL + "routine-vacuuming.html#VACUUM-FOR-WRAPAROUND",
)
LAG = Rule(
    "D306",
    "replica-behind",
    "warning",
    "a replica that is behind its primary",
    POSTGRESQL + "monitoring-stats.html#MONITORING-PG-STAT-REPLICATION-VIEW",
)
UNREACHABLE = Rule(
    "D307",
    "replica-unreachable",
    "error",
    "a replica of DATABASE_REPLICAS that does not answer",
    POSTGRESQL + "hot-standby.html",
)
SLOT = Rule(
    "D308",
    "replication-slot-unused",
    "warning",
    "a replication slot that nobody reads and that keeps the log from being removed",
    POSTGRESQL + "view-pg-replication-slots.html",
)

# --- Sessions -------------------------------------------------------------------------------------

_IDLE = """
SELECT pid, application_name, usename AS role,
    CAST(extract(epoch FROM clock_timestamp() - state_change) AS float8) AS idle,
    CAST(extract(epoch FROM clock_timestamp() - xact_start) AS float8) AS age
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND state LIKE 'idle in transaction%'
    AND state_change <= clock_timestamp() - make_interval(secs => :idle)
ORDER BY state_change
"""


def _idle(rows: Rows, case: Case) -> Iterator[Complaint]:
    for row in rows:
        yield IDLE.complain(
            f"process {row.pid}",
            f"{_who(row)} does nothing for {duration(row.idle)}, in a transaction that is {duration(row.age)} old.",
            f"SELECT pg_terminate_backend({row.pid}); and for all that follow: ALTER ROLE … SET "
            "idle_in_transaction_session_timeout = '60s';",
        )


_RUNNING = """
SELECT pid, application_name, CAST(extract(epoch FROM clock_timestamp() - query_start) AS float8) AS age,
    pg_blocking_pids(pid) AS blocking
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND state = 'active'
    AND backend_type = 'client backend' AND query_start <= clock_timestamp() - make_interval(secs => :running)
ORDER BY query_start
"""


def _running(rows: Rows, case: Case) -> Iterator[Complaint]:
    for row in rows:
        waits = ", waiting for a lock of " + ", ".join(map(str, row.blocking)) if row.blocking else ""
        yield RUNNING.complain(
            f"process {row.pid}",
            f"{_who(row)} is in one statement for {duration(row.age)}{waits}.",
            f"SELECT pg_cancel_backend({row.pid}); and for all that follow: DATABASE_STATEMENT_TIMEOUT",
        )


_PREPARED = """
SELECT quote_literal(gid) AS gid, CAST(extract(epoch FROM clock_timestamp() - prepared) AS float8) AS age
FROM pg_prepared_xacts
WHERE database = current_database() AND prepared <= clock_timestamp() - make_interval(secs => :prepared)
ORDER BY prepared
"""


def _prepared(rows: Rows, case: Case) -> Iterator[Complaint]:
    for row in rows:
        yield PREPARED.complain(
            f"prepared transaction {row.gid}",
            f"It waits for {duration(row.age)}; it keeps its locks and dead rows of all tables, over restarts too.",
            f"ROLLBACK PREPARED {row.gid}; or COMMIT PREPARED {row.gid};",
        )


def _who(row: Any) -> str:
    return f"{row.application_name!r}" if row.application_name else "A client without a name"


# --- The server's own limits ----------------------------------------------------------------------

_CONNECTIONS = """
SELECT CAST(current_setting('max_connections') AS int) AS all,
    CAST(current_setting('superuser_reserved_connections') AS int)
        + coalesce(CAST(current_setting('reserved_connections', true) AS int), 0) AS reserved,
    d.datconnlimit AS of_database, r.rolconnlimit AS of_role
FROM pg_database d, pg_roles r
WHERE d.datname = current_database() AND r.rolname = current_user
"""


def _connections(rows: Rows, case: Case) -> Iterator[Complaint]:
    row, processes = rows[0], case.limits.processes
    limits = {
        f"max_connections leaves {row.all - row.reserved}": row.all - row.reserved,
        f"the database allows {row.of_database}": row.of_database,
        f"the role is allowed {row.of_role}": row.of_role,
    }
    reason, room = min(
        ((said, limit) for said, limit in limits.items() if limit >= 0), key=lambda each: each[1]
    )
    if case.pool is not None and case.pool * processes > room:
        yield CONNECTIONS.complain(
            "connections",
            f"{processes} times {case.pool} connections may be opened, by as many processes, and {reason}.",
            f"DATABASE_POOL_SIZE + DATABASE_MAX_OVERFLOW of {max(room // processes, 1)} at most, fewer processes, or a "
            "pooler",
        )


def _no_bound(case: Case) -> str | None:
    if case.is_pooled:
        return "a pooler stands before the server, and its own limits count"
    return "the pool has no bound that is known" if case.pool is None else None


_WRAPAROUND = """
SELECT datname AS name, age(datfrozenxid) AS transactions, mxid_age(datminmxid) AS locks
FROM pg_database
WHERE greatest(age(datfrozenxid), mxid_age(datminmxid)) >= :transaction_ids
ORDER BY 2 DESC
"""


def _wraparound(rows: Rows, case: Case) -> Iterator[Complaint]:
    for row in rows:
        oldest = max(row.transactions, row.locks)
        what = "transaction id" if row.transactions >= row.locks else "multixact id"
        yield WRAPAROUND.complain(
            f"database {row.name}",
            f"Its oldest {what} is {oldest:,} old; at two thousand million the whole server refuses to write.",
            "VACUUM (FREEZE); in that database, and end what holds vacuum back: old transactions, prepared ones, slots",
            severity="error" if oldest >= 2 * case.limits.transaction_ids else None,
        )


# --- Replicas -------------------------------------------------------------------------------------

_LAG = """
SELECT pid, application_name, CAST(extract(epoch FROM replay_lag) AS float8) AS lag,
    CAST(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END,
        replay_lsn) AS float8) AS bytes
FROM pg_stat_replication
WHERE state <> 'backup'
ORDER BY 1
"""


def _lag(rows: Rows, case: Case) -> Iterator[Complaint]:
    for row in rows:
        late, far = (row.lag or 0) >= case.limits.lag, (row.bytes or 0) >= case.limits.lag_bytes
        if late or far:
            behind = " and ".join(
                [*[duration(row.lag or 0)][: row.lag is not None], *[size(row.bytes or 0)][: bool(row.bytes)]]
            )
            yield LAG.complain(
                f"replica {row.application_name!r} of process {row.pid}",
                f"It is {behind} behind.",
                "look at the replica: its load, its disk, long queries there, "
                "SELECT pg_get_wal_replay_pause_state();",
            )


_SLOT = """
SELECT slot_name AS name, quote_literal(slot_name) AS quoted,
    CAST(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END,
        restart_lsn) AS float8) AS bytes
FROM pg_replication_slots
WHERE NOT active AND restart_lsn IS NOT NULL
ORDER BY 1
"""


def _slot(rows: Rows, case: Case) -> Iterator[Complaint]:
    for row in rows:
        if row.bytes >= case.limits.lag_bytes:
            yield SLOT.complain(
                f"replication slot {row.name}",
                f"Nobody reads it, and for its sake {size(row.bytes)} of the log are kept, more with each write.",
                f"SELECT pg_drop_replication_slot({row.quoted}); if its reader will not come back",
            )


REPLICA = """
SELECT pg_is_in_recovery() AS is_standby,
    CASE WHEN pg_is_in_recovery()
        THEN CAST(pg_wal_lsn_diff(CAST(CAST(:position AS text) AS pg_lsn), pg_last_wal_replay_lsn()) AS float8)
    END AS bytes,
    CAST(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) AS float8) AS age
"""
"""For a replica, with the primary's position as it was just before."""

POSITION = (
    "SELECT CAST(CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_lsn() END AS text) AS position"
)


def judge_replica(row: Any, number: int, limits: Limits) -> Iterator[Complaint | Skipped]:
    """The time since the last transaction counts only where there is something left to replay."""
    if not row.is_standby:
        yield LAG.skip(f"replica {number} is no physical standby, so its lag is not known")
    elif row.bytes is None:
        yield LAG.skip(f"replica {number} has replayed nothing yet, or the database is a replica itself")
    elif row.bytes > 0 and ((row.age or 0) >= limits.lag or row.bytes >= limits.lag_bytes):
        late = "" if row.age is None else f"; its last transaction is {duration(row.age)} old"
        yield LAG.complain(
            f"replica {number} of DATABASE_REPLICAS",
            f"It is {size(row.bytes)} behind{late}.",
            "look there: load, disk, long queries, SELECT pg_get_wal_replay_pause_state();",
        )


CHECKS: tuple[LiveCheck, ...] = (
    LiveCheck(IDLE, _IDLE, _idle, needs_statistics=True),
    LiveCheck(RUNNING, _RUNNING, _running, needs_statistics=True),
    LiveCheck(PREPARED, _PREPARED, _prepared),
    LiveCheck(CONNECTIONS, _CONNECTIONS, _connections, skip=_no_bound),
    LiveCheck(WRAPAROUND, _WRAPAROUND, _wraparound),
    LiveCheck(LAG, _LAG, _lag, needs_statistics=True),
    LiveCheck(SLOT, _SLOT, _slot),
)
