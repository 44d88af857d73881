"""What findings must know of tables beside the plan: sizes, indexes, foreign keys.  Pure: which facts, asked how, read.

A fact that a database does not tell is None, or the table is missing; then a finding that needs it is not made.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from catalysis.tools.query_plans.tree import QueryPlan, QueryPlanNode

ROWS_WORTH_AN_INDEX = 5_000
"""Reading a table of fewer rows takes less than one round trip, half a millisecond, and no finding is worth it."""
SAMPLED_ROWS = 1_000
"""Rows of a SQLite table that are looked at for how many different values a column has."""


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A foreign key of the table."""

    name: str
    columns: tuple[str, ...]
    refers_to: str


@dataclass(frozen=True, slots=True)
class TableFacts:
    """What a catalog says of a table."""

    name: str
    rows: float | None
    """PostgreSQL: as of its last VACUUM or ANALYZE, None before.  SQLite: `ROWS_WORTH_AN_INDEX` stands for more."""
    columns: frozenset[str] = frozenset()
    indexes: tuple[tuple[str | None, ...], ...] = ()
    """The columns of each, in order, the primary key's and partial ones included; None for an expression."""
    foreign_keys: tuple[ForeignKey, ...] = ()
    distinct: Mapping[str, int] = field(default_factory=dict[str, int], hash=False)
    """Different values of columns in the rows that were sampled (SQLite)."""

    def has_index(self, columns: Sequence[str]) -> bool:
        """Whether an index begins with these columns, in any order."""
        return any(set(index[: len(columns)]) == set(columns) for index in self.indexes)

    def unindexed_keys(self) -> list[ForeignKey]:
        """Foreign keys that no index begins with."""
        return [key for key in self.foreign_keys if not self.has_index(key.columns)]


Facts = Mapping[str, TableFacts]
"""By the table's name, without a schema."""


# --- PostgreSQL -----------------------------------------------------------------------------------


def wanted_postgresql(plan: QueryPlan) -> list[str]:
    """The tables that a plan's findings ask about: scanned from end to end, or deleted from; often none."""
    return sorted(
        {
            node.relation
            for node in plan.nodes()
            if node.relation is not None
            and (node.operation == "Delete" or (node.kind == "Seq Scan" and _may_be_large(node)))
        }
    )


CPU_TUPLE_COST = 0.01
"""PostgreSQL's default cost of a row, and so the least that a scan of it costs."""


def _may_be_large(node: QueryPlanNode) -> bool:
    if node.actual_rows is not None and node.loops:
        read = (node.actual_rows + removed_rows(node)) * node.processes
        return read >= ROWS_WORTH_AN_INDEX
    return (node.total_cost or 0) * node.processes >= ROWS_WORTH_AN_INDEX * CPU_TUPLE_COST


def removed_rows(node: QueryPlanNode) -> float:
    """Rows that the step read and its filter refused, for one execution."""
    return float(node.details.get("Rows Removed by Filter", 0))


FACTS_POSTGRESQL = """
WITH named AS (
    SELECT DISTINCT ON (relname) oid, relname FROM pg_class
    WHERE relname = ANY ($1::text[]) AND relkind IN ('r', 'p')
    ORDER BY relname, pg_table_is_visible(oid) DESC
), wanted AS (
    SELECT oid FROM named
    UNION SELECT conrelid FROM pg_constraint WHERE contype = 'f' AND confrelid IN (SELECT oid FROM named)
)
SELECT json_build_object(
    'name', c.relname, 'rows', c.reltuples,
    'indexes', ARRAY(
        SELECT (SELECT json_agg(a.attname ORDER BY k.place)
                FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (number, place)
                LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.number AND k.number > 0
                WHERE k.place <= i.indnkeyatts)
        FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indisvalid),
    'keys', ARRAY(
        SELECT json_build_object(
            'name', f.conname, 'refers_to', r.relname,
            'columns', (SELECT json_agg(a.attname ORDER BY k.place)
                        FROM unnest(f.conkey) WITH ORDINALITY AS k (number, place)
                        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.number))
        FROM pg_constraint AS f JOIN pg_class AS r ON r.oid = f.confrelid
        WHERE f.contype = 'f' AND f.conrelid = c.oid)
)::text
FROM wanted JOIN pg_class AS c ON c.oid = wanted.oid
"""
"""Of tables by name, and of those that refer to them.

EXPLAIN gives no schema; of several tables with one name, the one on the search path is meant.
"""


def facts_postgresql(answer: Iterable[Sequence[Any]]) -> Facts:
    """From the rows that `FACTS_POSTGRESQL` returns."""
    facts: dict[str, TableFacts] = {}
    for (text,) in answer:
        said: dict[str, Any] = json.loads(text)
        facts[said["name"]] = TableFacts(
            said["name"],
            said["rows"] if said["rows"] > 0 else None,
            indexes=tuple(tuple(columns) for columns in said["indexes"] if columns),
            foreign_keys=tuple(
                ForeignKey(key["name"], tuple(key["columns"]), key["refers_to"]) for key in said["keys"]
            ),
        )
    return facts


# --- SQLite ---------------------------------------------------------------------------------------


def catalog_sqlite(names: Sequence[str]) -> str:
    """The statement that asks for columns, indexes and foreign keys of so many tables, by name, in small letters."""
    marks = ", ".join("?" * len(names))
    return f"""
    WITH tables (name) AS (SELECT name FROM sqlite_master WHERE type = 'table' AND lower(name) IN ({marks}))
    SELECT 'column', tables.name, t.name, t.pk, t.type FROM tables, pragma_table_info(tables.name) AS t
    UNION ALL SELECT 'index', tables.name, l.name, i.seqno, i.name
    FROM tables, pragma_index_list(tables.name) AS l, pragma_index_info(l.name) AS i
    UNION ALL SELECT 'key', tables.name, f.id || ' ' || f."table", f.seq, f."from"
    FROM tables, pragma_foreign_key_list(tables.name) AS f
    """  # noqa: S608 - question marks only


def read_catalog_sqlite(answer: Iterable[Sequence[Any]]) -> dict[str, TableFacts]:
    """From the rows of that statement; how many rows the tables have is not known yet."""
    columns: dict[str, set[str]] = {}
    indexes: dict[str, dict[str, list[tuple[int, str | None]]]] = {}
    keys: dict[str, dict[str, list[tuple[int, str]]]] = {}
    for kind, table, name, place, rest in answer:
        match kind:
            case "column":
                columns.setdefault(table, set()).add(name)
                if (
                    place and str(rest).upper() == "INTEGER"
                ):  # the rowid; other keys have an index of their own
                    indexes.setdefault(table, {}).setdefault("", []).append((place, name))
            case "index":
                indexes.setdefault(table, {}).setdefault(name, []).append((place, rest))
            case _:
                keys.setdefault(table, {}).setdefault(name, []).append((place, rest))
    return {
        table: TableFacts(
            table,
            None,
            frozenset(names),
            tuple(_in_order(parts) for parts in indexes.get(table, {}).values()),
            tuple(
                ForeignKey("", tuple(name for _, name in sorted(parts)), key.partition(" ")[2])
                for key, parts in keys.get(table, {}).items()
            ),
        )
        for table, names in columns.items()
    }


def _in_order(parts: list[tuple[int, str | None]]) -> tuple[str | None, ...]:
    return tuple(name for _, name in sorted(parts, key=lambda part: part[0]))


def sample_sqlite(wanted: Sequence[tuple[str, str | None]]) -> str:
    """The statement that counts: rows of a table (column None), or different values of a column.

    However large a table is, `ROWS_WORTH_AN_INDEX` rows of it are read at most, and `SAMPLED_ROWS` of a column.
    """
    return f"SELECT {', '.join(_count(table, column) for table, column in wanted)}"


def _count(table: str, column: str | None) -> str:
    what, values, most = "*", "1", ROWS_WORTH_AN_INDEX
    if column is not None:
        what, values, most = "DISTINCT v", f"{_quoted(column)} AS v", SAMPLED_ROWS
    return f"(SELECT count({what}) FROM (SELECT {values} FROM {_quoted(table)} LIMIT {most}))"  # noqa: S608 - the same


def _quoted(name: str) -> str:
    """Names come from the catalog.  Source: SQLite documentation, "SQLite Keywords"."""
    return '"' + name.replace('"', '""') + '"'
