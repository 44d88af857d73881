"""The reject file: rows that were not loaded, with number, column and reason, and their values to mend."""

import csv
import os
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from catalysis.errors import BulkError, CommitOutcomeUnknown

HEADER = ("row", "column", "reason")


class RejectFile:
    """Written beside its place, and put there, whole, when the load is about to be committed.

    A context that is left by an error removes it, since what was not loaded has no rejects; but not where nobody
    knows whether it was.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        """`names` is the header of the file that is loaded.

        Raises:
            BulkError: the file is there already, or cannot be written.
        """
        self.count = 0
        self._chunk: list[tuple[Any, ...]] = []
        self._is_in_place = False
        if path.exists():
            raise BulkError(f"The reject file {path} is there already.  Remove it, or choose another name.")
        self._path, self._partial = path, path.with_name(f"{path.name}.partial")
        try:
            self._file = self._partial.open("w", encoding="utf-8", newline="")
        except OSError as failure:
            raise BulkError(f"The reject file {path} cannot be written: {failure.strerror}.") from None
        self._writer = csv.writer(self._file)
        self._writer.writerow([*HEADER, *names])

    def add(self, number: int, column: str, reason: str, values: Sequence[Any]) -> None:
        """Note one row; it is written by `end_chunk`."""
        shown = ["" if value is None else value for value in values]
        self._chunk.append((number, column, reason, *shown))
        self.count += 1

    def end_chunk(self) -> None:
        """Write the rows noted since, by their numbers: what the database refuses comes after what cannot be read."""
        self._writer.writerows(sorted(self._chunk, key=itemgetter(0)))
        self._chunk.clear()

    def put_in_place(self) -> None:
        """Finish the file, before the commit: after it, a crash would lose the rejects of what is loaded.

        Raises:
            BulkError: another has come to be there.
        """
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        try:
            os.link(self._partial, self._path)  # unlike a rename, never over another file
            self._partial.unlink()
        except FileExistsError:
            raise BulkError(f"The reject file {self._path} has come to be there meanwhile.") from None
        except OSError:  # a file system without links
            self._partial.rename(self._path)
        self._is_in_place = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._partial.unlink(missing_ok=True)
        refused = isinstance(error, Exception) and not isinstance(error, CommitOutcomeUnknown)
        if refused and self._is_in_place:
            self._path.unlink(missing_ok=True)
