"""What a check of a live database is: one statement that reads, and a pure function over its rows.

The statements are constants; what they are told are the limits, never a value of a row.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from catalysis.doctor.complaint import Complaint, Rule, Skipped
from catalysis.doctor.models import Models

Rows = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on the doctor complains.  Times in seconds, sizes in bytes."""

    processes: int = 1
    """Of the application, each with a pool of its own."""
    idle: float = 60
    """A transaction in which nothing happens."""
    running: float = 300
    """A statement."""
    prepared: float = 300
    """A transaction that waits for COMMIT PREPARED."""
    lag: float = 30
    """A replica behind its primary."""
    lag_bytes: int = 64 << 20
    """The log that a replica or a slot is behind."""
    transaction_ids: int = 500_000_000
    """The age of the oldest id; from twice that on it is an error."""
    dead_rows: int = 10_000
    """Of a table, and more than a fifth of its rows."""
    bloat: int = 10 << 20
    """What an index wastes, and more than half of it."""
    unused: int = 1 << 20
    """An index that nobody read."""

    def parameters(self) -> dict[str, Any]:
        """For the statements, by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Case:
    """What the doctor was told beside the database's own answers."""

    models: Models
    limits: Limits
    pool: int | None
    """The most connections one process opens; None: no bound is known."""
    is_pooled: bool
    """Whether a pooler stands between the application and the server."""


@dataclass(frozen=True, slots=True)
class LiveCheck:
    """One check of a live database."""

    rule: Rule
    sql: str
    read: Callable[[Rows, Case], Iterator[Complaint | Skipped]]
    then: Callable[[Any], str | None] | None = None
    """A statement to send for each row; its first row is told as a pair with that row."""
    skip: Callable[[Case], str | None] | None = None
    """Why it makes no sense here; None: it does."""
    refused: Callable[[str], Complaint | None] | None = None
    """What it means that the database refuses the statement, by its reason; None: nothing, the check is skipped."""
    needs_statistics: bool = False
    """Whether a role without pg_read_all_stats sees only its own part."""


def all_rules(checks: Iterable[LiveCheck]) -> tuple[Rule, ...]:
    """The rules of some checks, each once."""
    return tuple(dict.fromkeys(check.rule for check in checks))


def size(count: float) -> str:
    """Bytes, for people."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(count) < 1024 or unit == "GB":
            break
        count /= 1024
    return f"{count:,.0f} {unit}"


def duration(seconds: float) -> str:
    """A length of time, for people: `45 s`, `12 min`, `3 h`, `5 days`."""
    for length, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:,.0f} s"
