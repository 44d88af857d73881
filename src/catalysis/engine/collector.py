"""Keeps Python's garbage collector from walking what was just loaded, again and again, to find that it is alive.

While many rows become instances nothing is collected, and afterwards the young objects are moved to the oldest
generation at once, which `gc.freeze()` and `gc.unfreeze()` do without a look at them.  Loading 10,000 rows spent
four fifths of its time in collections that freed nothing.  What then is garbage is still found: when the number of
objects has doubled since the last full collection, one is run.
"""

import gc
from collections.abc import Generator
from contextlib import contextmanager

MANY = 200
"""From so many rows on it is worth it."""
PER_ROW = 6
"""Objects the collector would look at, for each row; an estimate, which only decides when to count them."""


class _Generations:
    def __init__(self) -> None:
        self.promoted = 0
        self.after_last = 0
        """How many objects there were after the last full collection; 0 if none was counted."""

    def promote(self, rows: int) -> None:
        """Move the young objects to the oldest generation, and collect that if it has grown too much."""
        if gc.get_freeze_count():  # somebody froze objects on purpose, and unfreezing would undo it
            return
        gc.freeze()
        self.promoted += rows * PER_ROW
        count = gc.get_freeze_count() if self.promoted > self.after_last else 0
        gc.unfreeze()
        if count:
            self.promoted = 0
            if self.after_last and count > 2 * self.after_last:
                gc.collect()
                self.after_last = len(gc.get_objects())
            self.after_last = self.after_last or count


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
