"""Where instances came from: the statements of the latest loads, for errors to name."""

import re
from dataclasses import dataclass

from catalysis.events.sites import CallSite, CodeLine, call_line


@dataclass(frozen=True, slots=True)
class Origin:
    """The statement that loaded an instance."""

    sql: str
    site: CallSite | None

    def __str__(self) -> str:
        place = "" if self.site is None else f" at {self.site}"
        sql = _EXPANDED_LATER.sub("…", " ".join(self.sql.split()))
        return f"the statement{place}: {sql if len(sql) <= _SHOWN else sql[:_SHOWN] + ' …'}"


_SHOWN = 200
_EXPANDED_LATER = re.compile(r"__\[POSTCOMPILE_[^\]]*\]")
"""Where SQLAlchemy writes the parameters of an IN when their number is known."""
ORIGINS = 4_096
"""The loads that are remembered; an error about an instance of an older one does not name its statement."""
_origins: list[tuple[int, str, CodeLine | None, int] | None] = [None] * ORIGINS


def note_origin(number: int, sql: str, rows: int) -> None:
    """Remember which statement a load was of, and its rows; SQLAlchemy numbers loads through the process."""
    _origins[number % ORIGINS] = (number, sql, call_line(), rows)


def rows_of(number: int | None) -> int:
    """The rows of a load, as long as it is remembered; else 0."""
    found = None if number is None else _origins[number % ORIGINS]
    return found[3] if found is not None and found[0] == number else 0


def origin_of(number: int | None) -> Origin | None:
    """The statement of a load, as long as it is remembered."""
    found = None if number is None else _origins[number % ORIGINS]
    if found is None or found[0] != number:
        return None
    return Origin(found[1], None if found[2] is None else found[2].site)
