"""Writing many rows: `bulk_insert`, `upsert` and `bulk_update`, in chunks and in the session's transaction.

Nothing is committed here.  After a failure the transaction holds the chunks before it: roll back, or wrap the call
in `session.begin_nested()` to keep what came earlier.

A chunk to insert is one COPY where nothing has to come back and COPY does what the INSERT would (`copying.py`).
Otherwise it is one call of the driver's `executemany`.  It pipelines, has no bound on parameters, and lets a row of an
upsert repeat the key of an earlier one.  Only ids that the database makes need a VALUES list with RETURNING, which
SQLAlchemy cuts to the driver's bound.
"""

from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import aclosing, contextmanager
from inspect import isawaitable
from itertools import groupby
from typing import Any, Literal, TypeAlias, overload

from sqlalchemy import insert, true
from sqlalchemy import update as update_statement
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.ext.asyncio import AsyncSession

from catalysis.engine.alchemy.unflushed import take_as_updated
from catalysis.errors import BulkError, TenantError
from catalysis.tools.changed import ChangedInstances
from catalysis.tools.conflict import ConflictKey, Key, find_key
from catalysis.tools.copying import Copier
from catalysis.tools.owners import claim_rows, owned_rows_of
from catalysis.tools.rejections import column_of, copied_line
from catalysis.tools.rows import (
    Names,
    Row,
    RowCompleter,
    RowReader,
    Rows,
    check_arguments,
    check_rows,
    in_chunks,
)

Progress: TypeAlias = Callable[[int], object]
"""Told the number of rows so far after each chunk; a coroutine function is awaited."""

Write: TypeAlias = Callable[[list[Row]], Awaitable[Sequence[Any]]]
"""Writes one chunk of rows and returns their ids, or nothing."""

CHUNK_SIZE = 1000

# Rows are complete: a None is sent as NULL, where SQLAlchemy would start another statement at each that comes or goes.
_COMPLETE = {"render_nulls": True}

_COUNTED: dict[str, Any] = {}
# Given a condition SQLAlchemy counts no rows, which it does for some drivers, and for one row, and not for others; nor
# does it bring the session's instances in step then.
_UNCOUNTED: dict[str, Any] = {"synchronize_session": None}


@overload
async def bulk_insert(
    session: AsyncSession,
    model: type[Any],
    rows: Rows,
    *,
    chunk_size: int = ...,
    returning: Literal[False] = ...,
    on_progress: Progress | None = ...,
) -> int: ...
@overload
async def bulk_insert(
    session: AsyncSession,
    model: type[Any],
    rows: Rows,
    *,
    chunk_size: int = ...,
    returning: Literal[True],
    on_progress: Progress | None = ...,
) -> list[Any]: ...
async def bulk_insert(
    session: AsyncSession,
    model: type[Any],
    rows: Rows,
    *,
    chunk_size: int = CHUNK_SIZE,
    returning: bool = False,
    on_progress: Progress | None = None,
) -> int | list[Any]:
    """INSERT rows, and return how many; with `returning=True` their primary keys, in the order of the rows.

    `rows` may be any iterable, a generator or an async iterable of mappings by attribute name, pydantic models, or
    instances of the model that are in no session; at most `chunk_size` of them are held at a time, and all the ids
    if you ask for them (tuples where the key is composite).  Defaults apply as in a flush, for which None is absent
    too.  Instances are only read: they get neither ids nor defaults.

    Raises:
        BulkError: a row has an unknown key or lacks a value it needs; the message gives its number, from 1.
        DBAPIError: the database refused; SQLAlchemy's own error, with the numbers of the rows added.
    """
    check_arguments("bulk_insert", session, chunk_size, on_progress)
    reader = RowReader("bulk_insert", model)
    write = insert_writer(session, reader, RowCompleter(reader), returning=returning)
    done, ids = await _write_chunks(reader, rows, write, chunk_size, on_progress)
    return ids if returning else done


def insert_writer(
    session: AsyncSession,
    reader: RowReader,
    completer: RowCompleter,
    *,
    returning: bool = False,
    fewest: int | None = None,
) -> Write:
    """What inserts one chunk, and returns its ids if they are asked for; `fewest` is the `Copier`'s."""
    model, copier = reader.model, Copier(session, reader, fewest=fewest)
    owned = owned_rows_of(session, reader)
    statement: Any = insert(model)
    with_ids = statement.returning(*(getattr(model, k) for k in reader.key), sort_by_parameter_order=True)

    async def write(chunk: list[Row]) -> Sequence[Any]:
        claim_rows(owned, reader, chunk)
        values = [completer.complete(row) for row in chunk]
        ids = [_id(reader, row) for row in values] if returning else []
        if all(known is not None for known in ids):
            if not await copier.write(values):
                await session.execute(statement, values, execution_options=_COMPLETE)
            return ids
        result = await session.execute(with_ids, values, execution_options=_COMPLETE)
        ids = [_scalar(tuple(row)) for row in result]
        if len(ids) != len(values):
            raise BulkError(
                f"{reader.at(chunk[0].number)} to {chunk[-1].number}: of {len(values)} rows {len(ids)} were kept, "
                "so that nobody can tell whose the ids are; a trigger may have left rows out.  Insert without "
                "returning=True."
            )
        return ids

    return write


@overload
async def upsert(
    session: AsyncSession,
    model: type[Any],
    rows: Rows,
    *,
    key: Key | None = ...,
    update: Names | None = ...,
    chunk_size: int = ...,
    returning: Literal[False] = ...,
    on_progress: Progress | None = ...,
) -> int: ...
@overload
async def upsert(
    session: AsyncSession,
    model: type[Any],
    rows: Rows,
    *,
    key: Key | None = ...,
    update: Names | None = ...,
    chunk_size: int = ...,
    returning: Literal[True],
    on_progress: Progress | None = ...,
) -> list[Any]: ...
async def upsert(
    session: AsyncSession,
    model: type[Any],
    rows: Rows,
    *,
    key: Key | None = None,
    update: Names | None = None,
    chunk_size: int = CHUNK_SIZE,
    returning: bool = False,
    on_progress: Progress | None = None,
) -> int | list[Any]:
    """INSERT rows, or UPDATE those whose key is there already; returns what `bulk_insert` does.

    `key` names the attribute(s) that tell rows apart, or a unique constraint or index; the default is the primary
    key.  `update` names the attributes to overwrite in a row already there: by default all that the row gives
    (of a pydantic model, the fields that were set) but the key and the primary key; `()` leaves the row as it is.
    `onupdate` columns are set too.  When rows share a key the last one wins, as if they came one by one.

    In `SoftDelete` models a key other than the primary key is looked for among unmarked rows only.  Objects of the
    session are not refreshed.  With `returning=True` and a key that is not the primary key, each chunk is followed
    by one SELECT of its ids.

    Raises:
        BulkError: nothing makes the key unique, a row lacks it, or as in `bulk_insert`.
        DBAPIError: as in `bulk_insert`.
    """
    check_arguments("upsert", session, chunk_size, on_progress)
    reader = RowReader("upsert", model)
    unique = find_key(reader, key, session.get_bind(model).dialect)
    overwritten = None if update is None else reader.known("update", update)
    completer = RowCompleter(reader)
    write = upsert_writer(session, reader, completer, unique, overwritten, returning=returning)
    done, ids = await _write_chunks(reader, rows, write, chunk_size, on_progress)
    return ids if returning else done


def upsert_writer(
    session: AsyncSession,
    reader: RowReader,
    completer: RowCompleter,
    unique: ConflictKey,
    overwritten: frozenset[str] | None = None,
    *,
    returning: bool = False,
) -> Write:
    """What inserts or updates one chunk, and returns its ids if they are asked for."""
    kept = {*unique.attributes, *reader.key}
    owned = owned_rows_of(session, reader)
    # A conflict with another tenant's row leaves that as it is, and the database does not say so.
    may_meet_others = owned is not None and owned.attribute not in unique.attributes

    def changes(row: Row) -> frozenset[str]:
        return row.given - kept if overwritten is None else overwritten

    async def write(chunk: list[Row]) -> Sequence[Any]:
        claim_rows(owned, reader, chunk)
        for row in chunk:
            _require(reader, row, unique.attributes, none_too=not unique.nulls_are_equal)
        for changed, same in groupby(chunk, changes):
            values = [completer.complete(row) for row in same]
            await session.execute(unique.insert(reader, changed), values, execution_options=_COMPLETE)
        if not returning and not may_meet_others:
            return ()
        ids = await _ids(session, reader, unique, chunk, only_own=may_meet_others)
        return ids if returning else ()

    return write


async def bulk_update(
    session: AsyncSession,
    model: type[Any],
    rows: Rows,
    *,
    chunk_size: int = CHUNK_SIZE,
    on_progress: Progress | None = None,
) -> int:
    """UPDATE rows by primary key, each with the other attributes it gives, and return how many rows were given.

    A key that is not in the table changes nothing and is no error.  `onupdate` columns are set.  Objects of the
    session get what the rows give, but not what `onupdate` gives.

    A row may also be a persistent instance of this session: what is changed on it and not flushed is sent, columns
    only, and counts as saved afterwards; `onupdate` values are set on it too, or expired where the database makes
    them.  If the statement fails it is as unsaved as before.  Changed relationships stay for the flush.  Each chunk
    is followed by one SELECT that counts the rows of its instances.

    Raises:
        BulkError: a row has an unknown key or lacks its primary key, or is an instance that only a flush can save.
        StaleDataError: (SQLAlchemy's) the row of an instance is gone.
        DBAPIError: as in `bulk_insert`.
    """
    check_arguments("bulk_update", session, chunk_size, on_progress)
    reader = RowReader("bulk_update", model)
    changed = ChangedInstances(session, reader)
    wanted = frozenset(reader.key)
    statement, options = update_statement(model), _COUNTED
    if reader.mapper.version_id_col is None:
        statement, options = statement.where(true()), _UNCOUNTED

    async def write(chunk: list[Row]) -> Sequence[Any]:
        for row in chunk:
            _require(reader, row, reader.key, none_too=True)
        values = [{name: row.values[name] for name in row.given | wanted} for row in chunk if row.given]
        async with changed.saved(chunk[0].number, chunk[-1].number):
            if values:
                await session.execute(statement, values, execution_options=options)
                if options is _UNCOUNTED:
                    take_as_updated(session.sync_session, reader.mapper, reader.key, values)
        return ()

    done, _ = await _write_chunks(reader, rows, write, chunk_size, on_progress, read=changed.read)
    return done


async def _write_chunks(
    reader: RowReader,
    rows: Rows,
    write: Write,
    chunk_size: int,
    on_progress: Progress | None,
    *,
    read: Callable[[int, Any], Row] | None = None,
) -> tuple[int, list[Any]]:
    """Read, write and tell, chunk by chunk; returns the number of rows and what `write` returned for them."""
    read = read or reader.read
    check_rows(reader, rows)
    done = 0
    ids: list[Any] = []
    async with aclosing(in_chunks(rows, chunk_size)) as chunks:
        async for chunk in chunks:
            first, last = done + 1, done + len(chunk)
            numbered = [read(number, row) for number, row in enumerate(chunk, first)]
            with naming_rows(reader, first, last):
                ids += await write(numbered)
            done = last
            if on_progress is not None and isawaitable(told := on_progress(done)):
                await told
    return done, ids


@contextmanager
def naming_rows(
    reader: RowReader, first: int, last: int, header: Mapping[str, str] | None = None
) -> Generator[None]:
    """Tell which rows a rejection of the database is about, one where it says which, and the column if it does.

    `header`: what the columns are called where they come from.
    """
    try:
        yield
    except StatementError as failure:
        failure.hide_parameters = True  # a thousand rows of the caller's data do not belong in a log
        line, column = None, ""
        if isinstance(failure, DBAPIError):
            line = copied_line(failure)
            column = column_of(failure, reader.mapper.local_table, header or {})
        where = f"row {first}" if first == last else f"rows {first} to {last}"
        where = where if line is None else f"row {first + line - 1}"
        named = f", column {column!r}" if column else ""
        failure.add_detail(f"{reader.operation} {reader.model.__name__}: in {where}{named}")
        raise


def _require(reader: RowReader, row: Row, attributes: Iterable[str], *, none_too: bool) -> None:
    for name in attributes:
        if name not in row.values or (none_too and row.values[name] is None):
            raise reader.missing(row.number, name, "tells which row is meant")


async def _ids(
    session: AsyncSession,
    reader: RowReader,
    unique: ConflictKey,
    chunk: list[Row],
    *,
    only_own: bool = False,
) -> list[Any]:
    """The primary keys of rows just written, in their order; `only_own`: some may have met another tenant's."""
    if set(unique.attributes) == set(reader.key) and not only_own:
        return [_id(reader, row.values) for row in chunk]
    wanted = [tuple(row.values[name] for name in unique.attributes) for row in chunk]
    found: dict[tuple[Any, ...], Any] = {}

    async def find(keys: Sequence[tuple[Any, ...]]) -> list[Any]:
        rows = (await session.execute(unique.select(reader, keys))).all()
        ids = [_scalar(tuple(row[: len(reader.key)])) for row in rows]
        found.update(zip((tuple(row[len(reader.key) :]) for row in rows), ids, strict=True))
        return ids

    size = session.get_bind(reader.model).dialect.insertmanyvalues_max_parameters // len(unique.columns)
    for start in range(0, len(wanted), size):
        await find(wanted[start : start + size])
    for row, key in zip(chunk, wanted, strict=True):
        if key not in found:  # equal for the database, not for Python: a collation, or a value it converted
            ids = await find([key])
            if not ids and only_own:
                raise TenantError(
                    f"{reader.at(row.number)} was not written: its key is taken by a row that is not the tenant's.  "
                    "Let the key include the tenant."
                )
            if not ids:
                raise BulkError(
                    f"{reader.at(row.number)} was written, but its key finds no row; was it changed by a trigger?"
                )
            found[key] = ids[0]
    return [found[key] for key in wanted]


def _id(reader: RowReader, values: Mapping[str, Any]) -> Any:
    """The primary key in `values`; None unless all of it is there."""
    key = tuple(values.get(name) for name in reader.key)
    return None if None in key else _scalar(key)


def _scalar(key: tuple[Any, ...]) -> Any:
    return key[0] if len(key) == 1 else key
