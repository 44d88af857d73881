"""Keeps Python's garbage collector from walking what was just loaded, again and again, to find that it is alive.

While many rows become instances nothing is collected, and afterwards the young objects are moved to the oldest
generation at once, which `gc.freeze()` and `gc.unfreeze()` do without a look at them.  Loading 10,000 rows spent
four fifths of its time in collections that freed nothing.  What then is garbage is still found: when the memory in
use has doubled since the last full collection, one is run.
"""

import gc
import sys
from collections.abc import Generator
from contextlib import contextmanager

MANY = 200
"""From so many rows on it is worth it."""
COUNTED_AFTER = 2_000
"""Rows after which the memory in use is looked at again: that takes as long as loading some fifty."""


class _Generations:
    def __init__(self) -> None:
        self.rows = 0
        """How many were loaded since the last look."""
        self.least = 0
        """The least that was found in use since the last full collection; 0 before the first look."""
        self.is_frozen = False
        """Whether somebody froze objects on purpose, which unfreezing would undo; walking them each time is slow."""

    def promote(self, rows: int) -> None:
        """Move the young objects to the oldest generation, and collect that if it has grown too much."""
        self.is_frozen = self.is_frozen or gc.get_freeze_count() > 0
        if self.is_frozen:
            return
        gc.freeze()
        self.rows += rows
        found = _in_use() if self.rows >= COUNTED_AFTER else None
        gc.unfreeze()
        if found is not None:
            self.rows = 0
            self._seen(found)

    def _seen(self, found: int) -> None:
        if self.least and found > 2 * self.least:
            gc.collect()
            self.least = 0
        else:
            self.least = min(self.least or found, found)


def _in_use() -> int:
    """Python's blocks of memory, while all objects are frozen; where another allocator has them, objects."""
    return sys.getallocatedblocks() or gc.get_freeze_count()


_generations = _Generations()


@contextmanager
def paused(rows: int) -> Generator[None]:
    """No collection inside; what was made inside counts as old afterwards."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        _generations.promote(rows)
        gc.enable()
