"""A live SQLite database: what is switched off, what is broken, what waits for others."""

from collections.abc import Iterator

from catalysis.doctor.complaint import Complaint, Rule
from catalysis.doctor.live import Case, LiveCheck, Rows
from catalysis.doctor.tables import NO_KEY

_SOURCE = "https://www.sqlite.org/"

OFF = Rule(
    "D401",
    "foreign-keys-off",
    "error",
    "foreign keys are not enforced",
    _SOURCE + "foreignkeys.html#fk_enable",
)
VIOLATED = Rule(
    "D402",
    "foreign-key-violated",
    "error",
    "rows that refer to nothing",
    _SOURCE + "pragma.html#pragma_foreign_key_check",
)
DAMAGED = Rule("D403", "file-damaged", "error", "a damaged file", _SOURCE + "pragma.html#pragma_quick_check")
JOURNAL = Rule("D404", "journal-not-wal", "warning", "a file without a write-ahead log", _SOURCE + "wal.html")


def _off(rows: Rows, case: Case) -> Iterator[Complaint]:
    if not rows[0].foreign_keys:
        yield OFF.complain(
            "PRAGMA foreign_keys",
            "SQLite enforces foreign keys only where a connection asks for it, and ours do not: something switched it "
            "off again.",
            "PRAGMA foreign_keys = ON, on each new connection",
        )


def _violated(rows: Rows, case: Case) -> Iterator[Complaint]:
    for row in rows:
        yield VIOLATED.complain(
            row.child,
            f"{row.number:,} rows refer to rows of {row.parent} that are not there.",
            f"PRAGMA foreign_key_check({row.child}) lists them: correct or delete them",
        )


def _mismatched(reason: str) -> Complaint | None:
    if "mismatch" not in reason:
        return None
    return VIOLATED.complain(
        "schema",
        f"The keys cannot be checked, and writing to these tables fails: {reason}",
        "a primary key or a unique constraint on the columns that are referred to",
    )


def _damaged(rows: Rows, case: Case) -> Iterator[Complaint]:
    found = [str(row.quick_check) for row in rows]
    if found != ["ok"]:
        number = "one fault" if len(found) == 1 else f"{len(found)} faults"
        more = " or more" if len(found) == _FAULTS else ""
        yield DAMAGED.complain("file", f"The check of its pages finds {number}{more}.", _RECOVER)


def _broken(reason: str) -> Complaint | None:
    return (
        DAMAGED.complain("file", f"It cannot be read: {reason}", _RECOVER) if "malformed" in reason else None
    )


def _journal(rows: Rows, case: Case) -> Iterator[Complaint]:
    for row in rows:
        if row.journal_mode != "wal":
            yield JOURNAL.complain(
                "PRAGMA journal_mode",
                f"It is {row.journal_mode!r}: readers wait for the writer, and the writer for readers.  WAL was asked "
                "for and refused, as on a network's file system, or was switched off again.",
                "PRAGMA journal_mode = WAL, on a local disk",
            )


def _without_key(rows: Rows, case: Case) -> Iterator[Complaint]:
    for row in rows:
        yield NO_KEY.complain(
            row.name,
            "It has no primary key: its rows cannot be told apart for certain.",
            "a primary key in the model, and a revision",
        )


_FAULTS = 10
_RECOVER = "restore a backup, or save what can be read: sqlite3 file.db .recover | sqlite3 new.db"

CHECKS = (
    LiveCheck(OFF, "PRAGMA foreign_keys", _off),
    LiveCheck(
        VIOLATED,
        'SELECT "table" AS child, parent, count(*) AS number FROM pragma_foreign_key_check GROUP BY 1, 2 ORDER BY 1, 2',
        _violated,
        refused=_mismatched,
    ),
    LiveCheck(DAMAGED, "PRAGMA quick_check(10)", _damaged, refused=_broken),
    LiveCheck(
        JOURNAL,
        "SELECT journal_mode FROM pragma_journal_mode, pragma_database_list"
        " WHERE pragma_database_list.name = 'main' AND file <> ''",
        _journal,
    ),
    LiveCheck(
        NO_KEY,
        "SELECT name FROM pragma_table_list AS listed WHERE type = 'table' AND schema = 'main'"
        " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND NOT EXISTS"
        " (SELECT 1 FROM pragma_table_info(listed.name) AS part WHERE part.pk > 0) ORDER BY name",
        _without_key,
    ),
)
