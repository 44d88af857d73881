"""Watching the statements of one block of code: a list of events, and the questions one asks of it."""

import re
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import overload

from catalysis.events import CallSite, QueryEvent, attribute_for, heard_in_context


@dataclass(frozen=True, slots=True)
class Repeated:
    """One statement sent several times from one line: a query in a loop."""

    sql: str
    site: CallSite
    count: int
    entity: str | None = None
    """The mapped class it is about, where that is known."""

    @property
    def file(self) -> str:
        """The file of the line that sends it."""
        return self.site.file

    @property
    def line(self) -> int:
        """The line that sends it."""
        return self.site.line

    @property
    def replacement(self) -> str:
        """What to write in its place."""
        return _replacement(self.sql, self.entity)

    def __str__(self) -> str:
        sql = " ".join(self.sql.split())
        return f"{self.count} times from {self.site} in {self.site.function}: {sql}\n{self.replacement}"


_LOOKUP = re.compile(
    r"SELECT (?P<selected>(?:(?!\bFROM\b).)*?)\s+FROM \S+\s+WHERE (?P<table>[\w.\"]+)\.(?P<column>\w+|\"[^\"]+\") "
    r"(?:= (?:\?|\$\d+(?:::\w+)*)|IN \((?:\?|\$\d+(?:::\w+)*)\))"
    r"(?:\s+AND [\w.\"]+ IS NULL)?(?:\s+ORDER BY (?:(?!LIMIT).)*)?\s*(?P<limit>LIMIT .*)?$",
    re.DOTALL,
)
"""A statement over one table that asks for one value of one column, and may leave deleted rows out."""
_AGGREGATE = re.compile(
    r"(?P<function>count|sum|avg|min|max)\((?:\*|[\w.\"]+\.(?P<column>\w+|\"[^\"]+\"))\)(?: AS \w+)?$"
)
"""One function of a column, or of whole rows."""
_COMPUTES = re.compile(rf"(?!{_AGGREGATE.pattern})\w+\(")
"""Something else that cannot be written down again."""


def _replacement(sql: str, entity: str | None) -> str:
    verb = sql.split(None, 1)[0].upper() if sql.strip() else ""
    if verb == "INSERT":
        rows = f"`await bulk_insert(session, {entity or '…'}, rows)`"
        return f"It writes one row at a time.  Add all objects and flush once, or {rows}."
    if verb in ("UPDATE", "DELETE"):
        return f"It is a write in a loop: change all objects and flush once, or send one {verb} with in_(…)."
    if (lookup := _LOOKUP.match(sql.strip())) is not None and not _COMPUTES.match(lookup["selected"]):
        return _replacement_of_lookup(lookup, entity)
    return (
        "It is a query in a loop: send it once for all, with in_(…) or a join; for counts, sums and the first "
        "few of each there is `await load(objects, count(…))`."
    )


def _replacement_of_lookup(lookup: re.Match[str], entity: str | None) -> str:
    column = lookup["column"].strip('"')
    said = f"by {lookup['table']}.{column}, one at a time."
    if entity is None:
        return f"It looks rows up {said}  Collect the values, and send one statement with IN (…)."
    attribute = f"{entity}.{attribute_for(entity, column)}"
    aggregate = _AGGREGATE.match(lookup["selected"])
    if aggregate is not None:
        of = aggregate["column"]
        argument = "" if of is None else f"{entity}.{attribute_for(entity, of.strip(chr(34)))}"
        number = f"func.{aggregate['function']}({argument})"
        one = f"select({attribute}, {number}).where({attribute}.in_(values)).group_by({attribute})"
        return (
            f"It computes {said}  Collect the values and send one statement, `{one}`; or for a relationship "
            "`await load(objects, count(…))`, and `total(…)` for a sum."
        )
    few = "" if lookup["limit"] is None else "  The first few of each are `await load(objects, top(…, n))`."
    return (
        f"It looks rows up {said}  Collect the values and send one statement, "
        f"`select({entity}).where({attribute}.in_(values))`; or touch or `load` a relationship that leads there, for "
        f"all at once.{few}"
    )


def _line_of(event: QueryEvent) -> str:
    path = "native" if event.native else f"SQLAlchemy: {event.reason}"
    rows = "" if event.rows is None else f"{event.rows} rows"
    sql = " ".join(event.sql.split())
    return f"{event.seconds * 1000:8.2f} ms  {rows:>10}  [{path}]  {event.site or ''}  {sql}"


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

    def assert_statements(self, expected: int) -> None:
        """Raise AssertionError, with a list of the statements, unless so many were sent."""
        sent = len(self) + self.dropped
        if sent != expected:
            raise AssertionError(
                f"{sent} statements were sent where {expected} are expected:\n{self.report()}"
            )

    def report(self) -> str:
        """The statements, a line each: number, milliseconds, rows, path, call site, SQL."""
        lines = [f"{n:4}  {_line_of(event)}" for n, event in enumerate(self, 1)]
        return "\n".join([*lines, f"and {self.dropped} more"] if self.dropped else lines)

    def repeated(self, at_least: int = 3) -> list[Repeated]:
        """Statements sent `at_least` times from the same line, most frequent first."""
        events = [(each.sql, each.site, each.entity) for each in self._events]
        return repeated(Counter((sql, site, entity) for sql, site, entity in events if site), at_least)


def repeated(counts: Mapping[tuple[str, CallSite, str | None], int], at_least: int = 3) -> list[Repeated]:
    """Those sent `at_least` times, most frequent first, of statements counted by SQL, line and mapped class."""
    return [
        Repeated(sql, site, n, entity)
        for (sql, site, entity), n in Counter(counts).most_common()
        if n >= at_least
    ]


LIMIT = 10_000
"""Statements a log keeps, unless told otherwise."""


@contextmanager
def watch_queries(*, limit: int = LIMIT) -> Generator[QueryLog]:
    """Hear the statements of this task, and of the tasks it starts, for the length of the block.

    Yields:
        A `QueryLog`, which fills while the block runs and keeps its events after it.
    """
    log = QueryLog(limit)
    with heard_in_context(log.hear):
        yield log
