"""What the database has already: tables and their columns, indexes with size and use, foreign keys, extensions.

Each database's own system tables are read here, and nowhere else in `advice`.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from catalysis.advice.candidates import Abilities, TableFacts
from catalysis.advice.definitions import IndexDefinition, Key, TableName
from catalysis.errors import AdviceError


@dataclass(frozen=True, slots=True)
class ExistingIndex:
    """An index that is there."""

    name: str
    definition: IndexDefinition
    unique: bool = False
    needed: bool = False
    """It is a constraint's, a part of a partitioned one, or the table's identity for replication.

    It cannot go by itself.
    """
    valid: bool = True
    size: int | None = None
    """Bytes."""
    partitioned: bool = False
    """Of a partitioned table: PostgreSQL neither makes nor drops it CONCURRENTLY."""
    scans: int | None = None
    """How often it was used since the statistics were reset, on this server; None where nobody counts."""


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """Columns that refer to another table's."""

    table: TableName
    columns: tuple[str, ...]
    refers_to: TableName


@dataclass(frozen=True, slots=True)
class Catalog:
    """What was found."""

    columns: Mapping[TableName, frozenset[str]]
    facts: Mapping[TableName, TableFacts] = field(default_factory=dict[TableName, TableFacts])
    rows: Mapping[TableName, float] = field(default_factory=dict[TableName, float])
    """As the database estimates."""
    indexes: tuple[ExistingIndex, ...] = ()
    partitioned: frozenset[TableName] = frozenset()
    """Tables that are."""
    foreign_keys: tuple[ForeignKey, ...] = ()
    extensions: frozenset[str] = frozenset()
    counted_since: datetime | None = None
    """Since when the use of indexes is counted."""
    abilities: Abilities = field(default_factory=Abilities)
    page_cost: float = 1.0
    """The least that a plan costs that reads anything, in the units of its figures."""


async def read_catalog(connection: AsyncConnection) -> Catalog:
    """What the database has, of what this role may see.

    Raises:
        AdviceError: the database is none whose system tables we know.
    """
    read = _READERS.get(connection.dialect.name)
    if read is None:
        raise AdviceError(
            f"No advice is given for {connection.dialect.name}: only for {', '.join(_READERS)}."
        )
    return await read(connection)


# --- PostgreSQL -----------------------------------------------------------------------------------

_OURS = "n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'"

_COLUMNS = f"""
SELECT CASE WHEN pg_table_is_visible(t.oid) THEN NULL ELSE n.nspname END, t.relname, a.attname,
       format_type(a.atttypid, NULL), t.reltuples,
       CASE WHEN s.n_distinct < 0 THEN -s.n_distinct * greatest(t.reltuples, 0) ELSE s.n_distinct END,
       t.relkind = 'p'
FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace
JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = t.relname AND s.attname = a.attname
                    AND NOT s.inherited
WHERE t.relkind IN ('r', 'p') AND {_OURS}
"""  # noqa: S608 - nothing in it is given from outside

_INDEXES = f"""
SELECT CASE WHEN pg_table_is_visible(t.oid) THEN NULL ELSE n.nspname END, t.relname, c.relname, am.amname,
       i.indisunique, i.indisprimary OR i.indisreplident OR i.indisexclusion OR c.relispartition
         OR EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid), i.indisvalid,
       pg_relation_size(c.oid), u.idx_scan, pg_get_expr(i.indpred, i.indrelid), c.relkind = 'I', i.indnkeyatts,
       ARRAY(SELECT pg_get_indexdef(c.oid, k, true) FROM generate_series(1, i.indnatts) k ORDER BY k),
       ARRAY(SELECT i.indkey[k] = 0 FROM generate_series(0, i.indnatts - 1) k ORDER BY k),
       ARRAY(SELECT a.attname::text FROM generate_series(0, i.indnatts - 1) k
             LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = i.indkey[k] ORDER BY k),
       ARRAY(SELECT i.indoption[k]::int FROM generate_series(0, i.indnkeyatts - 1) k ORDER BY k),
       ARRAY(SELECT nullif(concat_ws(' ', CASE WHEN l.oid <> coalesce(a.attcollation, y.typcollation)
                                               THEN 'COLLATE ' || quote_ident(l.collname) END,
                                     CASE WHEN NOT o.opcdefault THEN o.opcname END), '')
             FROM generate_series(0, i.indnkeyatts - 1) k JOIN pg_opclass o ON o.oid = i.indclass[k]
             LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = i.indkey[k]
             LEFT JOIN pg_attribute x ON x.attrelid = c.oid AND x.attnum = k + 1
             LEFT JOIN pg_type y ON y.oid = x.atttypid
             LEFT JOIN pg_collation l ON l.oid = i.indcollation[k] ORDER BY k)
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
JOIN pg_namespace n ON n.oid = t.relnamespace JOIN pg_am am ON am.oid = c.relam
LEFT JOIN pg_stat_user_indexes u ON u.indexrelid = i.indexrelid
WHERE {_OURS} ORDER BY 2, 3
"""  # noqa: S608 - nothing in it is given from outside

_FOREIGN_KEYS = """
SELECT CASE WHEN pg_table_is_visible(t.oid) THEN NULL ELSE n.nspname END, t.relname,
       CASE WHEN pg_table_is_visible(r.oid) THEN NULL ELSE m.nspname END, r.relname,
       ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS c(number, place)
             JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = c.number ORDER BY c.place)
FROM pg_constraint k JOIN pg_class t ON t.oid = k.conrelid JOIN pg_namespace n ON n.oid = t.relnamespace
JOIN pg_class r ON r.oid = k.confrelid JOIN pg_namespace m ON m.oid = r.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0
"""

_COUNTED_SINCE = """
SELECT coalesce(stats_reset, pg_postmaster_start_time()) FROM pg_stat_database WHERE datname = current_database()
"""


async def _read_postgresql(connection: AsyncConnection) -> Catalog:
    columns: dict[TableName, set[str]] = {}
    types: dict[TableName, dict[str, str]] = {}
    distinct: dict[TableName, dict[str, float]] = {}
    rows: dict[TableName, float] = {}
    partitioned: set[TableName] = set()
    for schema, name, column, type_, tuples, values, parted in await connection.execute(text(_COLUMNS)):
        table = TableName(name, schema)
        columns.setdefault(table, set()).add(column)
        types.setdefault(table, {})[column] = type_
        rows[table] = max(tuples, 0.0)
        if parted:
            partitioned.add(table)
        if values is not None:
            distinct.setdefault(table, {})[column] = values
    indexes = [_postgresql_index(row) for row in await connection.execute(text(_INDEXES))]
    keys = [
        ForeignKey(TableName(name, schema), tuple(names), TableName(other, other_schema))
        for schema, name, other_schema, other, names in await connection.execute(text(_FOREIGN_KEYS))
    ]
    extensions = frozenset(
        (await connection.execute(text("SELECT extname::text FROM pg_extension"))).scalars()
    )
    return Catalog(
        {table: frozenset(names) for table, names in columns.items()},
        {table: TableFacts(types[table], distinct.get(table, {}), rows[table]) for table in columns},
        rows,
        tuple(indexes),
        frozenset(partitioned),
        tuple(keys),
        extensions,
        await connection.scalar(text(_COUNTED_SINCE)),
        Abilities(includes=True, gin=True, trigrams="pg_trgm" in extensions),
        float(await connection.scalar(text("SELECT current_setting('random_page_cost')")) or 4),
    )


_FALLS, _NULLS_FIRST = 1, 2
"""Bits of pg_index.indoption.  Source: PostgreSQL, `pg_index.h`."""


def _postgresql_index(row: Any) -> ExistingIndex:
    schema, table, name, method, unique, needed, valid, size, scans, predicate, parted, nkeys, *parts = row
    texts, expressions, names, options, classes = parts
    keys: list[Key] = []
    for place in range(nkeys):
        falls, first = bool(options[place] & _FALLS), bool(options[place] & _NULLS_FIRST)
        said = None if first == falls else ("FIRST" if first else "LAST")
        what = texts[place] if expressions[place] else names[place]
        keys.append(Key(what, expressions[place], falls, said, classes[place]))
    where = () if predicate is None else _conditions(predicate)
    definition = IndexDefinition(TableName(table, schema), tuple(keys), tuple(names[nkeys:]), where, method)
    return ExistingIndex(name, definition, unique, needed, valid, size, parted, scans)


def _conditions(predicate: str) -> tuple[str, ...]:
    """`((NOT completed) AND (deleted_at IS NULL))` as its parts; one part where there is more to it than AND."""
    bare = _without_parentheses(predicate.strip())
    parts = bare.split(" AND ")
    if " OR " in bare or "BETWEEN" in bare or any(each.count("(") != each.count(")") for each in parts):
        return (predicate,)
    return tuple(map(_without_parentheses, parts))


def _without_parentheses(sql: str) -> str:
    """Without the pair around the whole of it; `(a)::text = (b)` has none."""
    depth = 0
    for place, each in enumerate(sql):
        depth += (each == "(") - (each == ")")
        if depth == 0 and place < len(sql) - 1:
            return sql
    return sql[1:-1] if sql.startswith("(") and depth == 0 else sql


# --- SQLite ---------------------------------------------------------------------------------------

SMALL_TABLE = 1_000
"""Rows up to which a table needs no index: SQLite's plans do not tell a small table from a large one."""
_SAMPLE = 10_000


async def _read_sqlite(connection: AsyncConnection) -> Catalog:
    quote = connection.dialect.identifier_preparer.quote
    columns: dict[TableName, frozenset[str]] = {}
    rows: dict[TableName, float] = {}
    indexes: list[ExistingIndex] = []
    keys: list[ForeignKey] = []
    listed = await connection.exec_driver_sql(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    )
    for (name,) in listed.all():
        table = TableName(name)
        described = await _pragma(connection, f"table_info({quote(name)})")
        columns[table] = frozenset(row[1] for row in described)
        keyed = [(row[1], row[2].upper()) for row in described if row[5]]
        if len(keyed) == 1 and keyed[0][1] == "INTEGER":  # the rowid itself, which no list of indexes has
            rowid = IndexDefinition(table, (Key(keyed[0][0]),))
            indexes.append(ExistingIndex("INTEGER PRIMARY KEY", rowid, unique=True, needed=True))
        rows[table] = await _sqlite_rows(connection, quote(name))
        listed_too = await _pragma(connection, f"index_list({quote(name)})")
        indexes += [await _sqlite_index(connection, table, row) for row in listed_too]
        referring: dict[int, tuple[str, list[str]]] = {}
        for row in await _pragma(connection, f"foreign_key_list({quote(name)})"):
            referring.setdefault(row[0], (row[2], []))[1].append(row[3])
        keys += [ForeignKey(table, tuple(names), TableName(other)) for other, names in referring.values()]
    facts = {
        table: TableFacts(
            distinct=await _sampled(connection, table, columns[table]), rows=min(rows[table], _SAMPLE)
        )
        for table in columns
        if rows[table] >= SMALL_TABLE
    }
    return Catalog(columns, facts, rows, tuple(indexes), foreign_keys=tuple(keys))


async def _sampled(
    connection: AsyncConnection, table: TableName, columns: frozenset[str]
) -> dict[str, float]:
    """Distinct values of each column among a few thousand rows: SQLite has no such statistics of its own."""
    quote = connection.dialect.identifier_preparer.quote
    names = sorted(columns)
    counts = ", ".join(f"count(DISTINCT {quote(name)})" for name in names)
    sample = f"SELECT * FROM {quote(table.name)} LIMIT {_SAMPLE}"  # noqa: S608 - quoted
    row = (await connection.exec_driver_sql(f"SELECT {counts} FROM ({sample})")).one()  # noqa: S608 - quoted
    return dict(zip(names, map(float, row), strict=True))


async def _sqlite_rows(connection: AsyncConnection, quoted: str) -> float:
    """The largest rowid, which costs one step; a table without rowids is counted."""
    kind = await _pragma(connection, f"table_list({quoted})")
    what = "count(*)" if kind and kind[0][4] else "max(rowid)"
    counted = await connection.exec_driver_sql(f"SELECT {what} FROM {quoted}")  # noqa: S608 - quoted
    return float(counted.scalar() or 0)


_WHERE = re.compile(r"(?<=\))\s*\bWHERE\b\s*", re.IGNORECASE)
_AND = re.compile(r"\s+AND\s+", re.IGNORECASE)


async def _sqlite_index(connection: AsyncConnection, table: TableName, row: Sequence[Any]) -> ExistingIndex:
    quote = connection.dialect.identifier_preparer.quote
    _, name, unique, origin, _ = row
    said = await connection.scalar(text("SELECT sql FROM sqlite_master WHERE name = :name"), {"name": name})
    keys: list[Key] = []
    for place, _, column, falls, collation, is_key in await _pragma(
        connection, f"index_xinfo({quote(name)})"
    ):
        if is_key:  # the text of an expression is not told: no other index is taken to be of the same
            what = column if column is not None else f"expression {place} of {name}"
            other = None if collation == "BINARY" else f"COLLATE {collation}"
            keys.append(Key(what, column is None, bool(falls), operator_class=other))
    body, where = (*_WHERE.split(said or "", maxsplit=1), "")[:2]
    if any(key.is_expression for key in keys):
        inside = body[body.find("(") + 1 : body.rfind(")")]
        keys = [Key(inside, is_expression=True)] if len(keys) == 1 else keys
    predicate = tuple(each.strip() for each in _AND.split(where)) if where else ()
    definition = IndexDefinition(table, tuple(keys), predicate=predicate)
    return ExistingIndex(name, definition, bool(unique), needed=origin != "c")


async def _pragma(connection: AsyncConnection, what: str) -> Sequence[Any]:
    return (await connection.exec_driver_sql(f"PRAGMA {what}")).all()


_READERS: dict[str, Callable[[AsyncConnection], Awaitable[Catalog]]] = {
    "postgresql": _read_postgresql,
    "sqlite": _read_sqlite,
}
