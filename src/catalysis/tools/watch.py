"""Watching the statements of one block of code: a list of events, and the questions one asks of it."""

from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import overload

from catalysis.events import CallSite, QueryEvent, heard_in_context


@dataclass(frozen=True, slots=True)
class Repeated:
    """One statement sent several times from one line: a query in a loop."""

    sql: str
    site: CallSite
    count: int

    @property
    def file(self) -> str:
        """The file of the line that sends it."""
        return self.site.file

    @property
    def line(self) -> int:
        """The line that sends it."""
        return self.site.line

    def __str__(self) -> str:
        return f"{self.count} times from {self.site} in {self.site.function}: {self.sql}"


class QueryLog(Sequence[QueryEvent]):
    """The statements heard so far, in the order they ended; at most `limit` are kept, `len` is of those kept."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.dropped = 0
        """Statements heard after the log was full."""
        self._events: list[QueryEvent] = []

    @overload
    def __getitem__(self, index: int) -> QueryEvent: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[QueryEvent]: ...
    def __getitem__(self, index: int | slice) -> QueryEvent | Sequence[QueryEvent]:
        return self._events[index]

    def __len__(self) -> int:
        return len(self._events)

    def hear(self, happened: QueryEvent) -> None:
        """Keep one more event, or count it as dropped."""
        if len(self._events) < self.limit:
            self._events.append(happened)
        else:
            self.dropped += 1

    def repeated(self, at_least: int = 3) -> list[Repeated]:
        """Statements sent `at_least` times from the same line, most frequent first."""
        counts = Counter((event.sql, event.site) for event in self._events if event.site is not None)
        return [Repeated(sql, site, n) for (sql, site), n in counts.most_common() if n >= at_least]


@contextmanager
def watch_queries(*, limit: int = 10_000) -> Generator[QueryLog]:
    """Hear the statements of this task, and of the tasks it starts, for the length of the block.

    Yields:
        A `QueryLog`, which fills while the block runs and keeps its events after it.
    """
    log = QueryLog(limit)
    with heard_in_context(log.hear):
        yield log
