"""Files of rows: CSV by the standard library, Parquet and Arrow by pyarrow (`catalysis[arrow]`).

A file is read once, from the beginning to the end, and no more of it is held than a few thousand rows.
"""

import csv
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from catalysis.errors import BulkError

SUFFIXES = (".csv", ".tsv", ".parquet", ".arrow", ".feather")
BATCH = 4096
"""Rows that are decoded at a time from Parquet and Arrow."""

LONGEST = 1 << 24
"""Characters of a value of CSV at most: a quote that is not closed is found, and does not fill the memory."""

FileRow: TypeAlias = Sequence[Any] | str
"""A row's values in the order of the header; or why it has none."""


class FileRows(NamedTuple):
    """The names in the file's header, and its rows."""

    names: tuple[str, ...]
    rows: Iterator[FileRow]
    has_nulls: bool
    """Whether a value that is not there is another than empty text."""


@contextmanager
def open_rows(path: Path) -> Generator[FileRows]:
    """The rows of a file; the kind of file is told by its name's end.

    Raises:
        BulkError: it cannot be opened or read, also from within the block.
        ModuleNotFoundError: it needs pyarrow.
    """
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise BulkError(f"{path} is of no known kind: its name ends with none of {', '.join(SUFFIXES)}.")
    reading = (
        _open_csv(path, "\t" if kind == ".tsv" else ",")
        if kind in (".csv", ".tsv")
        else _open_arrow(path, kind)
    )
    try:
        with reading as rows:
            yield rows
    except OSError as failure:
        if str(failure.filename) != str(path):  # the database's, say
            raise
        raise BulkError(f"{path} cannot be read: {failure.strerror}.") from None


def estimate_rows(path: Path) -> int | None:
    """About how many rows the file has; of CSV the lines are counted.  None if that cannot be told."""
    kind = path.suffix.lower()
    if kind == ".parquet":
        with suppress(Exception):  # whoever reads it next says what is wrong
            found: Any = import_module("pyarrow.parquet")
            return found.ParquetFile(path).metadata.num_rows
        return None
    if kind not in (".csv", ".tsv"):
        return None
    lines = 0
    with suppress(OSError), path.open("rb") as file:
        while block := file.read(1 << 20):
            lines += block.count(b"\n")
    return max(lines - 1, 0)


# --- CSV ------------------------------------------------------------------------------------------


@contextmanager
def _open_csv(path: Path, delimiter: str) -> Generator[FileRows]:
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST))  # of the whole process, and so never lowered
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        while (header := _next(path, reader, 0)) == []:
            pass
        if header is None:
            raise BulkError(f"{path} is empty: its first line has to name the columns.")
        names = tuple(name.strip() for name in header)
        yield FileRows(names, _csv_rows(path, reader, len(names)), has_nulls=False)


def _csv_rows(path: Path, reader: Any, width: int) -> Iterator[FileRow]:
    number = 0
    while (row := _next(path, reader, number + 1)) is not None:
        if not row and width > 1:  # a blank line
            continue
        number += 1
        if not row:
            row = [""]
        yield row if len(row) == width else f"it has {len(row)} values, and the header {width} names"


def _next(path: Path, reader: Any, number: int) -> list[str] | None:
    """The next row, which is None at the end.

    Where one cannot be told from the next, no later row can be told either.
    """
    try:
        return next(reader, None)
    except csv.Error as malformed:
        reason = str(malformed)
    except UnicodeDecodeError:  # of the block that was read, whose rows are not told apart yet
        raise BulkError(f"{path} is not UTF-8{_where_not_utf8(path)}.  Convert it first.") from None
    raise BulkError(f"{path} cannot be read on from row {number}: {reason}.")


def _where_not_utf8(path: Path) -> str:
    """The line, as editors count them; empty for what cannot be read twice."""
    if path.is_file():
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    line.decode()
                except UnicodeDecodeError as bad:
                    return f" in line {number}, where byte {bad.start + 1} is 0x{line[bad.start]:02x}"
    return ""


# --- Parquet and Arrow ----------------------------------------------------------------------------


@contextmanager
def _open_arrow(path: Path, kind: str) -> Generator[FileRows]:
    arrow: Any = import_module("pyarrow")
    try:
        if kind == ".parquet":
            parquet: Any = import_module("pyarrow.parquet")
            with parquet.ParquetFile(path, memory_map=False, pre_buffer=False) as file:
                yield _arrow_rows(arrow, path, file.schema_arrow, file.iter_batches(batch_size=BATCH))
        else:
            ipc: Any = import_module("pyarrow.ipc")
            with arrow.memory_map(str(path)) as source, _opened(ipc, source, arrow) as file:
                yield _arrow_rows(arrow, path, file.schema, _batches(file))
    except arrow.ArrowInvalid as malformed:
        raise BulkError(f"{path} cannot be read: {str(malformed).splitlines()[0].rstrip('.')}.") from None


def _opened(ipc: Any, source: Any, arrow: Any) -> Any:
    """A file of Arrow's, or a stream of it."""
    try:
        return ipc.open_file(source)
    except arrow.ArrowInvalid:
        source.seek(0)
        return ipc.open_stream(source)


def _batches(file: Any) -> Iterator[Any]:
    if hasattr(file, "num_record_batches"):
        for index in range(file.num_record_batches):
            yield file.get_batch(index)
    else:
        yield from file


def _arrow_rows(arrow: Any, path: Path, schema: Any, batches: Iterator[Any]) -> FileRows:
    return FileRows(tuple(schema.names), _decoded(arrow, path, batches), has_nulls=True)


def _decoded(arrow: Any, path: Path, batches: Iterator[Any]) -> Iterator[FileRow]:
    number = 0
    for whole in batches:
        for start in range(0, whole.num_rows, BATCH):
            batch = whole.slice(start, BATCH)
            columns = [
                _column(arrow, path, field, column, number)
                for field, column in zip(batch.schema, batch.columns, strict=True)
            ]
            number += batch.num_rows
            yield from zip(*columns, strict=True)


def _column(arrow: Any, path: Path, field: Any, column: Any, before: int) -> list[Any]:
    """The values; times in microseconds, which is what Python has, unless that would lose something."""
    kind = field.type
    try:
        if getattr(kind, "unit", None) == "ns":
            is_stamp, is_time = arrow.types.is_timestamp(kind), arrow.types.is_time64(kind)
            wanted = arrow.timestamp("us", kind.tz) if is_stamp else arrow.time64("us") if is_time else None
            column = column.cast(wanted or arrow.duration("us"))
        return column.to_pylist()
    except (arrow.ArrowInvalid, ValueError) as unfit:
        reason = str(unfit).splitlines()[0]
    raise BulkError(f"{path}, column {field.name!r}, after row {before}: {reason.rstrip('.')}.")
