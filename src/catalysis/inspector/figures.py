"""Numbers, times and places as people read them."""

import os
import sys
from datetime import datetime
from functools import lru_cache

from catalysis.events import CallSite


def duration(seconds: float | None) -> str:
    """`0.42 ms`, `12.3 ms`, `345 ms`, `2.10 s`, `3 min 05 s`; three figures are enough to compare."""
    if seconds is None:
        return "—"
    if seconds == 0:
        return "0 ms"
    ms = seconds * 1000
    if ms < 9.995:
        return f"{ms:.2f} ms"
    if ms < 99.95:
        return f"{ms:.1f} ms"
    if ms < 999.5:
        return f"{ms:.0f} ms"
    if seconds < 99.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s"


def number(value: float | None) -> str:
    """`12,345`; `—` for what nobody knows."""
    if value is None:
        return "—"
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 1 else f"{value:.2g}"


def percent(share: float) -> str:
    """Of a share of 1: `< 1 %` for what is little and not nothing."""
    whole = round(share * 100)
    return f"{whole} %" if whole or share <= 0 else "< 1 %"


def of_100(share: float) -> str:
    """The same for the attributes of a picture: `12.5`."""
    return f"{share * 100:.3f}".rstrip("0").rstrip(".")


def clock(timestamp: float) -> str:
    """The time of day here, to the second."""
    return datetime.fromtimestamp(timestamp).strftime("%H:%M:%S")


def iso(timestamp: float) -> str:
    """For machines, to the millisecond."""
    return datetime.fromtimestamp(timestamp).astimezone().isoformat(timespec="milliseconds")


def place(site: CallSite | None) -> str:
    """`app/routers/tasks.py:31`: from the folder that the project runs in or is imported from."""
    return "" if site is None else f"{_short_path(site.file)}:{site.line}"


@lru_cache(maxsize=1_000)
def _short_path(file: str) -> str:
    roots = [
        root for root in (os.getcwd(), *sys.path) if root and file.startswith(root.rstrip(os.sep) + os.sep)
    ]
    if roots:
        return os.path.relpath(file, max(roots, key=len))
    return os.sep.join(file.split(os.sep)[-3:])
