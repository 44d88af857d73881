"""`bulk_load`: the rows of a file into a table, all or nothing, or all but the rejects.

Each row is read by the types of its columns before anything of its chunk is sent.  With a reject file a chunk goes
inside a savepoint, and one that the database refuses is halved, or cut at the row that it names, until what is left
is the row to blame.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from inspect import isawaitable
from itertools import islice
from math import inf
from os import PathLike
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Table, insert
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.ext.asyncio import AsyncSession

from catalysis.database import Database
from catalysis.errors import BulkError, CommitOutcomeUnknown
from catalysis.tools.bulk import CHUNK_SIZE, Progress, Write, insert_writer, naming_rows, upsert_writer
from catalysis.tools.capabilities import capabilities_of
from catalysis.tools.conflict import Key, find_key
from catalysis.tools.file_rows import FileRow, FileRows, open_rows
from catalysis.tools.file_values import Unfit, value_reader
from catalysis.tools.owners import owned_rows_of
from catalysis.tools.rejections import Rejection, copied_line, is_of_a_row, rejection_of
from catalysis.tools.rejects import RejectFile
from catalysis.tools.rows import Row, RowCompleter, RowReader, check_arguments
from catalysis.transactions import Work


@dataclass(frozen=True, slots=True)
class Loaded:
    """How many rows of a file were loaded, and how many are in the reject file."""

    rows: int
    rejected: int


async def bulk_load(
    where: AsyncSession | Database,
    model: type[Any],
    path: str | Path,
    *,
    rejects: str | Path | None = None,
    key: Key | None = None,
    chunk_size: int = CHUNK_SIZE,
    on_progress: Progress | None = None,
) -> Loaded:
    """INSERT the rows of a CSV (UTF-8, with a header), TSV, Parquet, Arrow or Feather file into the model's table.

    `where`: a `Database` loads in one transaction and commits; in a session nothing is committed, as by `bulk_insert`.
    The header names attributes or columns; those it leaves out get their defaults.  Text is read by the column's type:
    empty text is NULL, or the default where there is one, and stays text only in a column of text that is NOT NULL,
    or where the file has NULLs of its own.  `key` updates the rows whose key is there already, as `upsert` does.

    The first bad row ends it and nothing is loaded, unless `rejects` names a file: then bad rows go there, with their
    numbers (from 1, the header not counted), column and reason, also those that break a constraint of the database;
    the others are loaded.  A constraint that is checked at the COMMIT ends it all the same.

    Raises:
        BulkError: the file, its header or a row cannot be read; the message names row and column.
        DBAPIError: the database refused, and nothing was loaded; or, in a session, as `bulk_insert`.
        CommitOutcomeUnknown: the connection was lost in the COMMIT: all is loaded, or nothing.
        ModuleNotFoundError: the file needs pyarrow: `pip install 'catalysis[arrow]'`.
    """
    check_arguments("bulk_load", where, chunk_size, on_progress, kinds=(AsyncSession, Database))
    reader, path = RowReader("bulk_load", model), _path("file", path)
    with ExitStack() as stack:
        file, reject_file = stack.enter_context(open_rows(path)), None
        if rejects is not None:
            reject_file = stack.enter_context(RejectFile(_path("reject file", rejects), file.names))

        async def work(session: AsyncSession) -> Loaded:
            nonlocal loading
            loading = _Loading(session, reader, file, key, reject_file)
            return await loading.run(chunk_size, on_progress)

        loading: _Loading | None = None
        if isinstance(where, AsyncSession):
            return await work(where)
        with _saying_that_nothing_was_loaded(path):
            try:
                return await where.transaction(work, retries=0)
            except DBAPIError as refusal:
                first = None if loading is None or reject_file is not None else loading.first
                if first is None or not _may_be_found(refusal, path):
                    raise
                return await _look_again(where, _finding(reader, path, key, chunk_size, first), refusal)


def _may_be_found(refusal: DBAPIError, path: Path) -> bool:
    """Whether a row is to blame, the database does not say which, and the file can be read once more."""
    return is_of_a_row(refusal) and copied_line(refusal) is None and path.is_file()


def _finding(reader: RowReader, path: Path, key: Key | None, chunk_size: int, first: int) -> Work[Loaded]:
    """What loads the file again, and from row `first` on looks for the row that is refused."""

    async def work(session: AsyncSession) -> Loaded:
        with open_rows(path) as again:
            loading = _Loading(session, reader, again, key, None, careful_from=first)
            return await loading.run(chunk_size, None)

    return work


async def _look_again(database: Database, find: Work[Loaded], refusal: DBAPIError) -> Loaded:
    """Load the rows after all, if the reason has gone; else the refusal of the row, or of its chunk, is raised."""
    try:
        return await database.transaction(find, retries=0)
    except DBAPIError as failure:
        if is_of_a_row(failure) or isinstance(failure, CommitOutcomeUnknown):
            raise
        raise refusal from None  # the second look met with something else


@contextmanager
def _saying_that_nothing_was_loaded(path: Path) -> Generator[None]:
    try:
        yield
    except CommitOutcomeUnknown:
        raise
    except StatementError as failure:
        failure.add_detail(f"nothing of {path.name} was loaded")
        raise
    except BulkError as failure:
        raise BulkError(f"{failure}  Nothing was loaded.") from failure.__cause__


def _path(what: str, given: Any) -> Path:
    if not isinstance(given, str | PathLike) or not str(cast("Any", given)):
        raise BulkError(f"bulk_load: the {what} is named by {given!r}; give its path.")
    return Path(cast("Any", given))


@dataclass(frozen=True, slots=True)
class _Field:
    """A column of the file."""

    name: str
    attribute: str
    read: Callable[[Any], Any]
    is_required: bool
    none_is_json: bool
    """None would be JSON's null, so that NULL is what is left out."""


class _Loading:
    """One file on its way into one table."""

    def __init__(
        self,
        session: AsyncSession,
        reader: RowReader,
        file: FileRows,
        key: Key | None,
        rejects: RejectFile | None,
        *,
        careful_from: int | None = None,
    ) -> None:
        """`careful_from`: the number of the row from which on the first that is refused is looked for."""
        self.first: int | None = None  # of the rows that are being written
        self._careful_from = inf if careful_from is None else careful_from
        self._session, self._reader, self._file, self._rejects = session, reader, file, rejects
        completer = RowCompleter(reader)
        required = completer.required
        self._table = cast("Table[Any]", reader.mapper.local_table)
        self._write: Write
        if key is None:
            # By COPY the database says which row it refuses.
            self._write = insert_writer(session, reader, completer, fewest=2)
        else:
            unique = find_key(reader, key, session.get_bind(reader.model).dialect)
            self._write = upsert_writer(session, reader, completer, unique)
            required |= frozenset(() if unique.nulls_are_equal else unique.attributes)
        if (owned := owned_rows_of(session, reader)) is not None:
            required -= {owned.attribute}
        strict = capabilities_of(session, insert(self._table)).types_are_strict
        self._fields = list(_fields(reader, file, required, strict=strict))
        self._header = {reader.columns[field.attribute][0].name: field.name for field in self._fields}
        self._given = frozenset(field.attribute for field in self._fields)

    async def run(self, chunk_size: int, on_progress: Progress | None) -> Loaded:
        """Load to the end of the file."""
        if self._rejects is not None:
            await self._session.flush()  # what it may break is no row's fault
        numbered = enumerate(self._file.rows, 1)
        seen = 0
        while chunk := list(islice(numbered, chunk_size)):
            seen = chunk[-1][0]
            rows = [row for number, given in chunk if (row := self._row(number, given)) is not None]
            self.first = chunk[0][0]
            if self._rejects is not None or self.first >= self._careful_from:
                await self._write_or_reject(rows, dict(chunk))
            elif rows:
                with naming_rows(self._reader, rows[0].number, rows[-1].number, self._header):
                    await self._write(rows)
            self.first = None
            if self._rejects is not None:
                self._rejects.end_chunk()
            if on_progress is not None and isawaitable(told := on_progress(seen)):
                await told
        rejected = 0
        if self._rejects is not None:
            rejected = self._rejects.count
            self._rejects.put_in_place()
        return Loaded(seen - rejected, rejected)

    def _row(self, number: int, given: FileRow) -> Row | None:
        """The row, read; None if it was rejected.

        Raises:
            BulkError: it is bad, and there is no reject file.
        """
        rejection = Rejection("", given) if isinstance(given, str) else None
        values: dict[str, Any] = {}
        if rejection is None:
            for field, value in zip(self._fields, given, strict=True):
                try:
                    read = field.read(value)
                except Unfit as unfit:
                    rejection = Rejection(field.name, str(unfit))
                    break
                except (ValueError, TypeError, ArithmeticError, RecursionError) as unfit:
                    rejection = Rejection(field.name, f"it cannot be read ({type(unfit).__name__})")
                    break
                if read is None and field.is_required:
                    rejection = Rejection(field.name, "it is empty, and the column takes no NULL")
                    break
                if read is not None or not field.none_is_json:
                    values[field.attribute] = read
        if rejection is None:
            return Row(number, values, self._given & values.keys())
        if self._rejects is None:
            column = f", column {rejection.column!r}" if rejection.column else ""
            raise BulkError(f"{self._reader.at(number)}{column}: {rejection.reason}.")
        self._rejects.add(number, rejection.column, rejection.reason, () if isinstance(given, str) else given)
        return None

    async def _write_or_reject(self, rows: list[Row], given: dict[int, FileRow]) -> None:
        """Write all rows that can be written, in their order, and put the others into the reject file.

        Raises:
            StatementError: without a reject file, for the first that cannot be.
        """
        parts = deque([(rows, "")] if rows else [])
        while parts:
            part, column = parts.popleft()
            try:
                async with self._session.begin_nested():
                    await self._write(part)
            except (StatementError, BulkError) as failure:
                failure_of_row = not isinstance(failure, DBAPIError) or is_of_a_row(failure)
                if not failure_of_row:
                    raise
                if self._rejects is None and len(part) == 1:
                    with naming_rows(self._reader, part[0].number, part[0].number, self._header):
                        raise
                rejection = self._rejection(failure)
                line = copied_line(failure) if isinstance(failure, DBAPIError) else None
                if self._rejects is not None and (len(part) == 1 or line == 1):
                    number = part[0].number
                    self._reject(
                        number, Rejection(rejection.column or column, rejection.reason), given[number]
                    )
                    part, line, column = part[1:], line and 0, ""
                parts.extendleft(reversed(_cut(part, line, rejection.column)))

    def _rejection(self, failure: StatementError | BulkError) -> Rejection:
        if isinstance(failure, DBAPIError):
            return rejection_of(failure, self._table, self._header)
        return Rejection("", str(getattr(failure, "orig", None) or failure))

    def _reject(self, number: int, rejection: Rejection, given: FileRow) -> None:
        rejects = cast("RejectFile", self._rejects)
        rejects.add(number, rejection.column, rejection.reason, cast("Sequence[Any]", given))


NEAR = 64
"""Rows after a bad one that are tried apart from the rest: bad rows come together, and the rest would fail again."""


def _cut(part: list[Row], line: int | None, column: str) -> list[tuple[list[Row], str]]:
    """The part in two halves; or, if it is known which row broke it, in what is before, that row, and what is after.

    That row is tried again by itself: a row before it, that goes too, may be what it collides with.  It is number 0
    if it is out already: the first, before which there is none.
    """
    if line is None or line > len(part):
        middle = len(part) // 2
        cut = [(part[:middle], ""), (part[middle:], "")]
    else:
        before, near, far = slice(max(line - 1, 0)), slice(line, line + NEAR), slice(line + NEAR, None)
        row = part[line - 1 : line] if line else []
        cut = [(part[before], ""), (row, column), (part[near], ""), (part[far], "")]
    return [(rows, hint) for rows, hint in cut if rows]


def _fields(reader: RowReader, file: FileRows, required: frozenset[str], *, strict: bool) -> Iterator[_Field]:
    """The file's columns, by the names in its header.

    Raises:
        BulkError: a name is no attribute and no column, comes twice, or one that is needed is missing.
    """
    about = f"{reader.operation} {reader.model.__name__}"
    attribute_of: dict[str, str] = {columns[0].name: key for key, columns in reader.columns.items()}
    attribute_of |= {key: key for key in reader.columns}
    seen: set[str] = set()
    for name in file.names:
        if (attribute := attribute_of.get(name)) is None:
            raise BulkError(
                f"{about}: the header names {name!r}, which is no column.  Use some of {', '.join(reader.columns)}."
            )
        if attribute in seen:
            raise BulkError(f"{about}: the header names {attribute!r} twice.")
        seen.add(attribute)
    if missing := sorted(required - seen):
        raise BulkError(f"{about}: the header lacks {', '.join(missing)}, which every row needs.")
    for name in file.names:
        attribute = attribute_of[name]
        column = reader.columns[attribute][0]
        read = value_reader(column, strict=strict, has_nulls=file.has_nulls)
        yield _Field(name, attribute, read, attribute in required, column.type.should_evaluate_none)
