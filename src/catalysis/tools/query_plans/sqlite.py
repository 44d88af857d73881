"""Findings of SQLite's plans, which have neither figures nor conditions: those come from the SQL and from samples.

The SQL is looked through for comparisons, not parsed; what is not recognized gives no finding.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from catalysis.tools.query_plans.case import SELECTIVE, THROWN_AWAY, Case, Finder, Statement
from catalysis.tools.query_plans.facts import ROWS_WORTH_AN_INDEX, Facts, TableFacts
from catalysis.tools.query_plans.tree import Finding, QueryPlan, QueryPlanNode

# --- The SQL --------------------------------------------------------------------------------------

_NOT_CODE = re.compile(r"'(?:[^']|'')*'|--[^\n]*|/\*.*?\*/", re.DOTALL)
_NAME = r'"(?:[^"]|"")+"|[A-Za-z_]\w*'
_SOURCE = re.compile(
    rf"(?:\b(?:FROM|JOIN|UPDATE|INTO)|,)\s+(?:main\.)?(?P<table>{_NAME})"
    rf"(?:\s+(?:AS\s+)?(?!(?:WHERE|SET|ON|JOIN|LEFT|INNER|CROSS|NATURAL|ORDER|GROUP|LIMIT|USING)\b)(?P<alias>{_NAME}))?",
    re.IGNORECASE,
)
_COMPARISON = re.compile(
    rf"(?:(?P<qualifier>{_NAME})\.)?(?P<column>{_NAME})\s*"
    rf"(?P<operator>==?|IN\b|<=?|>=?|BETWEEN\b|LIKE\b|GLOB\b)\s*(?P<other>[?:@$'\d(]|(?:{_NAME})(?:\.(?:{_NAME}))?)",
    re.IGNORECASE,
)
_COLUMN = re.compile(rf"(?:(?P<qualifier>{_NAME})\.)?(?P<column>{_NAME})")
_DELETE = re.compile(
    rf"\s*(?:WITH\b.*?\)\s*)?DELETE\s+FROM\s+(?:main\.)?(?P<table>{_NAME})", re.IGNORECASE | re.DOTALL
)
_OFFSET = re.compile(r"\bOFFSET\s+(?P<number>\d+|\?)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Comparison:
    qualifier: str | None
    column: str
    is_equality: bool
    is_with_value: bool
    """Not with another column."""


def _plain(name: str) -> str:
    return name[1:-1].replace('""', '"').lower() if name.startswith('"') else name.lower()


def _code(sql: str) -> str:
    """Without comments, and with strings emptied."""
    return _NOT_CODE.sub(lambda found: "''" if found[0].startswith("'") else " ", sql)


def _tables(code: str) -> dict[str, str]:
    """Tables by the names that the statement calls them, all in small letters."""
    found: dict[str, str] = {}
    for source in _SOURCE.finditer(code):
        found[_plain(source["alias"] or source["table"])] = _plain(source["table"])
    return found


def _comparisons(code: str) -> Iterator[_Comparison]:
    start = re.search(r"\b(?:WHERE|ON)\b", code, re.IGNORECASE)
    for found in _COMPARISON.finditer(code, start.end()) if start else ():
        is_equality = found["operator"].upper() in ("=", "==", "IN")
        is_with_value = found["other"][0] in "?:@$'(" or found["other"][0].isdigit()
        qualifier = _plain(found["qualifier"]) if found["qualifier"] else None
        yield _Comparison(qualifier, _plain(found["column"]), is_equality, is_with_value)
        if not is_with_value and (other := _COLUMN.fullmatch(found["other"])):
            qualifier = _plain(other["qualifier"]) if other["qualifier"] else None
            yield _Comparison(qualifier, _plain(other["column"]), is_equality, is_with_value)


# --- Which facts ----------------------------------------------------------------------------------


def wanted_sqlite(plan: QueryPlan, sql: str) -> list[str]:
    """The tables, in small letters, that a plan reads from end to end, or makes an index for."""
    tables = _tables(_code(sql))
    names = [_name(node) for node in plan.nodes() if _is_whole(node)]
    return sorted({tables.get(name, name) for name in names})


def sampled_sqlite(plan: QueryPlan, sql: str, facts: Facts) -> list[tuple[str, str | None]]:
    """What is to be counted: rows of those tables, and values of the columns that the statement compares."""
    compared = {each.column for each in _comparisons(_code(sql)) if each.is_equality}
    wanted: list[tuple[str, str | None]] = []
    for table in facts.values():
        wanted.append((table.name, None))
        wanted += [(table.name, column) for column in sorted(table.columns) if column.lower() in compared]
    return wanted


def with_counts(
    facts: Mapping[str, TableFacts], wanted: list[tuple[str, str | None]], counts: tuple[int, ...]
) -> Facts:
    """The facts with what was counted, by the tables' names in small letters."""
    counted = dict(zip(wanted, counts, strict=True))
    return {
        name.lower(): replace(
            table,
            rows=counted.get((name, None)),
            distinct={column.lower(): n for (of, column), n in counted.items() if of == name and column},
        )
        for name, table in facts.items()
    }


def _is_whole(node: QueryPlanNode) -> bool:
    return node.relation is not None and (node.kind == "SCAN" or "AUTOMATIC" in node.label)


def _name(node: QueryPlanNode) -> str:
    return (node.relation or "").removeprefix("main.").lower()


# --- Findings -------------------------------------------------------------------------------------


def _large(case: Case) -> Iterator[tuple[QueryPlanNode, TableFacts, list[_Comparison]]]:
    """Steps that read a large table from end to end, and what the statement compares of it."""
    code = _code(case.statement.sql)
    tables = _tables(code)
    comparisons = list(_comparisons(code))
    for node in case.steps:
        if not _is_whole(node):
            continue
        table = case.facts.get(tables.get(_name(node), _name(node)))
        if table is None or (table.rows or 0) < ROWS_WORTH_AN_INDEX:
            continue
        columns = {column.lower() for column in table.columns}
        own = [
            each
            for each in comparisons
            if each.column in columns and (each.qualifier == _name(node) or (each.qualifier is None))
        ]
        yield node, table, own


def sequential_scan(case: Case) -> Iterator[Finding]:
    """A large table is read from end to end for a comparison with a value, of a column with many values."""
    for node, table, comparisons in _large(case):
        if node.index is not None or node.kind != "SCAN":
            continue
        for each in comparisons:
            values = table.distinct.get(each.column, 0)
            if not each.is_with_value or (each.is_equality and values < 1 / SELECTIVE):
                continue
            shown = (
                f"{values} different values in a sample" if each.is_equality else "how many pass is not known"
            )
            yield Finding(
                "sequential-scan",
                f"All of {table.name} is read for a comparison of {each.column}.  An index on it may lead to the rows.",
                f"{node.label}; {ROWS_WORTH_AN_INDEX:,} rows or more; {each.column}: {shown}",
                node,
                "warning" if each.is_equality else "info",
            )
            break


def foreign_key_without_index(case: Case) -> Iterator[Finding]:
    """A large table is read, or an index made for this statement alone, for its foreign key's columns."""
    deleted = _DELETE.match(_code(case.statement.sql))
    parent = _plain(deleted["table"]) if deleted else None
    for node, table, comparisons in _large(case):
        for key in table.unindexed_keys():
            names = {column.lower() for column in key.columns}
            asked = names <= {each.column for each in comparisons if each.is_equality}
            kept = key.refers_to.lower() == parent and _name(node) == table.name.lower()
            if asked or kept:
                columns = ", ".join(key.columns)
                what = f"For each row deleted from {key.refers_to} all" if kept and not asked else "All"
                yield Finding(
                    "foreign-key-without-index",
                    f"{what} of {table.name} is read, since no index begins with its foreign key ({columns}).  "
                    f"Add one on {table.name} ({columns}).",
                    f"{node.label}; {ROWS_WORTH_AN_INDEX:,} rows or more",
                    node,
                )
                break


def nested_loop(case: Case) -> Iterator[Finding]:
    """A large table is read from end to end for each row of another: SQLite joins by loops only."""
    large = {id(node): table for node, table, _ in _large(case) if node.kind == "SCAN" and node.index is None}
    for above in case.steps:
        outer = None
        for node in above.children:
            if node.kind not in ("SCAN", "SEARCH"):
                continue
            table = large.get(id(node))
            if outer is not None and table is not None and not _DELETE.match(case.statement.sql):
                yield Finding(
                    "nested-loop",
                    f"All of {table.name} is read for each row of {outer.relation}.  An index on what joins them would "
                    "lead to the rows.",
                    f"{node.label} below {outer.label}; {ROWS_WORTH_AN_INDEX:,} rows or more",
                    node,
                )
            if node.kind == "SCAN" and outer is None:
                outer = node


def deep_offset(case: Case) -> Iterator[Finding]:
    """OFFSET walks over rows; SQLite's plan does not show it, the SQL and its parameter do."""
    code = _code(case.statement.sql)
    found = _OFFSET.search(code)
    if found is None:
        return
    if (passed := _offset(case.statement, code, found)) >= THROWN_AWAY:
        yield Finding(
            "deep-offset",
            "OFFSET walks over all the rows before the page.  paginate_keyset() goes on where the last page ended, "
            "whatever its number.",
            f"OFFSET of {THROWN_AWAY:,} or more" if found["number"] == "?" else f"OFFSET {passed:,}",
            None,
        )


def _offset(statement: Statement, code: str, found: re.Match[str]) -> int:
    if found["number"] != "?":
        return int(found["number"])
    place = code.count("?", 0, found.start("number"))
    parameters = statement.parameters or ()
    value = parameters[place] if place < len(parameters) else 0
    return value if isinstance(value, int) else 0


SQLITE: tuple[Finder, ...] = (sequential_scan, foreign_key_without_index, nested_loop, deep_offset)
