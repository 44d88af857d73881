"""Which server a session's reads outside a transaction go to: a replica that has what they must see, or the primary.

Nothing here waits: `catalysis.replicas` asks the servers, and notes here what they say.  A *position* is one in the
log of changes that PostgreSQL's replicas replay (an LSN), as a number of bytes; times are of the monotonic clock.
"""

import re
from collections import deque
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import monotonic
from typing import NamedTuple

from sqlalchemy import Engine

from catalysis.errors import InvalidToken

HISTORY = 32
"""How many of the primary's positions are kept of as many seconds as a replica may be behind."""


class Sample(NamedTuple):
    """Where the primary's log was."""

    asked: float
    """When the question was sent: what was committed before is behind the position."""
    position: int
    flushed: int
    """How much of that replicas can have by now."""


class Lag(NamedTuple):
    """How far a replica is behind the primary, as far as is known."""

    seconds: float | None
    """The age of what it has not got, at most; None if that is older than what is remembered."""
    size: int
    """Bytes of the log."""


@dataclass(slots=True)
class Writes:
    """When a task, or one that it shares this with, last wrote to each database that has replicas."""

    at: dict[str, float] = field(default_factory=dict[str, float])


_writes: ContextVar[Writes | None] = ContextVar("catalysis_writes", default=None)


def shared_writes() -> Writes:
    """Those of the running task; the tasks that it starts from now on share them, and what they write is its own."""
    found = _writes.get()
    if found is None:
        found = Writes()
        _writes.set(found)
    return found


def note_write(database: str) -> None:
    """The running task has written to a database (`Rotation.database`), or perhaps has."""
    shared_writes().at[database] = monotonic()


def share_no_more() -> None:
    """A request begins, or an activity: what it writes is not for whoever started its task to read."""
    before = _writes.get()
    _writes.set(Writes() if before is None else Writes(dict(before.at)))


@dataclass(slots=True, eq=False)
class Replica:
    """A replica as it was found last."""

    engine: Engine
    position: int | None = None
    """What it had replayed when it was asked; it has no less now."""
    lag: Lag | None = None
    trouble: str | None = "not asked yet"
    """Why nothing is read from it; None if it is in rotation."""

    def lost(self, failure: BaseException) -> None:
        """It let nobody in, or went away: it is left alone until it answers again."""
        cause = getattr(failure, "orig", None) or failure
        cause = getattr(cause, "driver_exception", None) or cause
        self.leave(type(cause).__name__)

    def leave(self, trouble: str) -> None:
        """Take it out of rotation; how far behind it is now is not known."""
        self.trouble, self.lag = trouble, None

    def serves(self, position: int) -> bool:
        """Whether it is in rotation and has replayed the log as far as that."""
        return self.trouble is None and self.position is not None and self.position >= position


@dataclass(slots=True, eq=False)
class Rotation:
    """The replicas of a database, and those that are read from now, in turn."""

    primary: Engine
    replicas: Sequence[Replica]
    max_lag: float
    """Seconds."""
    database: str = ""
    """Its name, the same in each event loop of the process."""
    latest: Sample | None = None
    _earlier: deque[Sample] = field(default_factory=lambda: deque[Sample](maxlen=HISTORY + 2))
    _turn: int = 0

    def primary_is_at(self, sample: Sample) -> None:
        """What the primary says."""
        if self.latest is not None and sample.flushed < self.latest.flushed:
            self._earlier.clear()  # another server was promoted, which never had what came after
        self.latest = sample
        if not self._earlier or sample.asked - self._earlier[-1].asked >= self.max_lag / HISTORY:
            self._earlier.append(sample)

    def replica_is_at(self, replica: Replica, position: int, now: float) -> None:
        """What a replica says: it comes into rotation, or leaves it for being behind."""
        replica.position = position
        replica.lag = self._lag(position, now)
        if replica.lag is None:
            replica.trouble = "the primary's position is not known yet"
        elif replica.lag.seconds is None or replica.lag.seconds > self.max_lag:
            replica.trouble = "behind the primary"
        else:
            replica.trouble = None

    def _lag(self, position: int, now: float) -> Lag | None:
        if self.latest is None:
            return None
        size = self.latest.flushed - position
        if size <= 0:
            return Lag(0.0, 0)
        passed = (each for each in reversed(self._earlier) if each.flushed <= position)
        since = next(passed, None)
        return Lag(None if since is None else now - since.asked, size)

    def _bound(self, time: float) -> int | None:
        """The least position known behind which everything is that was committed by then; None if none is known."""
        if self.latest is None or self.latest.asked <= time:
            return None
        return next(each.position for each in (*self._earlier, self.latest) if each.asked > time)

    def choose(self, route: "Route") -> Replica | None:
        """Where the session's next read goes; None for the primary.

        A session stays with its replica, since another may be behind that one; and after it has met the primary, a
        replica must have what was there.  So nothing that it has seen or written disappears again.
        """
        if route.only_primary:
            return None
        route.heed(shared_writes().at.get(self.database, 0.0))
        if route.met_primary_at is not None:
            position = self._bound(route.met_primary_at)
            if position is None:
                return None
            route.after, route.met_primary_at = max(route.after, position), None
        if route.replica is not None:
            return route.replica if route.replica.serves(route.after) else None
        able = [each for each in self.replicas if each.serves(route.after)]
        if able:
            self._turn += 1
            route.replica = able[self._turn % len(able)]
        return route.replica


@dataclass(slots=True, eq=False)
class Route:
    """What one session has seen, and so where its reads may go."""

    rotation: Rotation
    after: int = 0
    """The position that a replica must have replayed."""
    met_primary_at: float | None = None
    """When it last wrote to or read from the primary, until it is known at which position that was."""
    only_primary: bool = False
    replica: Replica | None = None
    """The replica of its last read."""
    _heeded: float = 0.0

    def choose(self) -> Replica | None:
        """Where the next read goes; None for the primary."""
        return self.rotation.choose(self)

    def heed(self, written: float) -> None:
        """Its task has written at that time, or one that it started, maybe in another session."""
        if written > self._heeded:
            self._heeded = written
            self.met_primary_at, self.replica = max(written, self.met_primary_at or 0.0), None

    def met_primary(self) -> None:
        """It has just seen what the primary has."""
        self.met_primary_at, self.replica = monotonic(), None


# --- Tokens ---------------------------------------------------------------------------------------

_TOKEN = re.compile(r"([0-9A-F]{1,8})/([0-9A-F]{1,8})")


def token_of(position: int) -> str:
    """A position as PostgreSQL writes it: `16/B374D848`."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def position_of(token: str | None) -> int:
    """The position that a token stands for; 0 for none.

    Raises:
        InvalidToken: it was not made by `write_token()`.
    """
    if not token:
        return 0
    found = _TOKEN.fullmatch(token)
    if found is None:
        raise InvalidToken(
            "after=… is no write token.  Pass on what `await session.write_token()` returned, or None."
        )
    return (int(found[1], 16) << 32) + int(found[2], 16)
