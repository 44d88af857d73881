"""What telemetry says of a statement: its text without literals, and a summary in few words.

Pure: text in, text out.  It is no parser of SQL: what it does not know it leaves out, and it lets no literal
through.  The summary is made by the rules of OpenTelemetry's semantic conventions for databases, "Generating a
summary of the query".
"""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import zip_longest

from catalysis.tools.literals import replace_literals

LONGEST = 10_000
"""Characters of a statement that are looked at; the rest is in no text."""
LONGEST_SUMMARY = 255


@dataclass(frozen=True, slots=True)
class Described:
    """A statement without its literals and comments."""

    text: str
    summary: str
    """`SELECT task`, `INSERT archive SELECT task`: operations and tables in their order; empty if unknown."""
    operation: str
    """`SELECT`, `INSERT`, `CREATE TABLE`…: what the statement as a whole does; `OTHER` if unknown."""
    table: str | None
    """The only table of a statement with one operation."""
    is_single: bool
    """One operation says all that it does."""
    returns_rows: bool


def describe(sql: str) -> Described:
    """What is said of `sql`; remembered for as many statements as a program has."""
    return _described(sql if len(sql) <= LONGEST else sql[:LONGEST])


@lru_cache(maxsize=512)
def _described(sql: str) -> Described:
    text = without_literals(sql)
    if (found := _DEFINES.match(text) or _CONCERNS.match(text)) is not None:
        operation, table = " ".join(found["verb"].upper().split()), found["name"]
        return Described(text, _joined([operation, table or ""]), operation, table, True, False)
    summary = _summarize(text)
    operation = summary.main or _verb(text)
    words = summary.words or ([] if operation == OTHER else [operation])
    is_single = summary.operations < 2 and operation != OTHER
    table = words[1] if is_single and len(words) == 2 else None
    returns_rows = operation in _READS or _RETURNING.search(text) is not None
    return Described(text, _joined(words), operation, table, is_single, returns_rows)


def _joined(words: list[str]) -> str:
    """Words with spaces between; what is too long ends at a word."""
    joined = " ".join(words).strip()
    return joined if len(joined) <= LONGEST_SUMMARY else joined[: LONGEST_SUMMARY + 1].rpartition(" ")[0]


# --- Literals -------------------------------------------------------------------------------------

_WORDS = {"string": "?", "number": "?", "comment": " "}


def without_literals(sql: str) -> str:
    """`sql` with `?` for every literal and without comments; placeholders and quoted names stay."""
    return replace_literals(sql, lambda kind, _: _WORDS[kind]).strip()


# --- Summary --------------------------------------------------------------------------------------

OTHER = "OTHER"
_OPERATIONS = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE"})
_NO_OPERATION_AFTER = frozenset({"FOR", "KEY", "DO", "ON", "THEN"})
"""FOR UPDATE, FOR NO KEY UPDATE, ON CONFLICT DO UPDATE, ON DELETE, WHEN MATCHED THEN UPDATE."""
_ENDS_TABLES = frozenset(
    {"WHERE", "GROUP", "ORDER", "HAVING", "LIMIT", "OFFSET", "FETCH", "FOR", "SET", "RETURNING", "VALUES"}
    | {"UNION", "EXCEPT", "INTERSECT", "WINDOW"}
)
_BEFORE_TABLE = frozenset({"ONLY", "LATERAL", "OR", "IGNORE", "ABORT", "FAIL", "ROLLBACK", "REPLACE"})
_READS = frozenset({"SELECT", "VALUES", "TABLE", "SHOW", "FETCH"})
_VERBS = frozenset(
    {"BEGIN", "START", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "END", "SET"}
    | {"RESET", "SHOW", "EXPLAIN", "PRAGMA", "VALUES", "TABLE", "PREPARE", "EXECUTE"}
    | {"DEALLOCATE", "DECLARE", "FETCH", "MOVE", "CLOSE", "LISTEN", "NOTIFY", "UNLISTEN"}
    | {"DO", "GRANT", "REVOKE", "COMMENT", "REFRESH", "ATTACH", "DETACH", "DISCARD"}
    | {"CREATE", "DROP", "ALTER", "REPLACE"}
)

_WORD = r"(?:\"(?:[^\"]|\"\")*\"|`[^`]*`|[^\W\d][\w$]*)"
_NAME = rf"{_WORD}(?:\.{_WORD})*"
_PIECE = re.compile(rf"{_NAME}|[(),]|\S")
_WITH = re.compile(
    rf"(?:\bWITH\s+(?:RECURSIVE\s+)?|,\s*)({_WORD})\s*(?:\([^()]*\)\s*)?AS\s+(?:(?:NOT\s+)?MATERIALIZED\s+)?\(",
    re.IGNORECASE,
)
_RETURNING = re.compile(r"\bRETURNING\b", re.IGNORECASE)
_KINDS = "TABLE|INDEX|VIEW|SEQUENCE|TYPE|SCHEMA|EXTENSION|FUNCTION|TRIGGER"
_IF = r"(?:CONCURRENTLY\s+)?(?:IF\s+(?:NOT\s+)?EXISTS\s+)?"
_ADJECTIVES = r"(?:(?:OR\s+REPLACE|UNIQUE|TEMP|TEMPORARY|UNLOGGED|MATERIALIZED|VIRTUAL)\s+)*"
_DEFINES = re.compile(
    rf"(?P<verb>(?:CREATE|DROP|ALTER)\s+{_ADJECTIVES}(?:{_KINDS}))\s+{_IF}(?P<name>{_NAME})?", re.IGNORECASE
)
_CONCERNS = re.compile(
    rf"(?P<verb>COPY|TRUNCATE|VACUUM|ANALYZE|REINDEX|LOCK|CALL)\b\s*(?:(?:TABLE|INDEX)\s+)?(?P<name>{_NAME})?",
    re.IGNORECASE,
)


@dataclass(slots=True)
class _Level:
    """What is known inside one pair of parentheses."""

    operation: str = ""
    lists_tables: bool = False
    """A comma is followed by another table."""


@dataclass(slots=True)
class _Summary:
    """Reads the pieces of a statement one by one."""

    defined: frozenset[str]
    """Names that WITH gives to parts of the statement: no tables."""
    words: list[str] = field(default_factory=list[str])
    operations: int = 0
    main: str = ""
    """The operation outside of all parentheses."""
    levels: list[_Level] = field(default_factory=lambda: [_Level()])
    awaits_table: bool = False
    before: str = ""

    def read(self, piece: str, after: str) -> None:
        """Take one more piece, of which the next is `after`."""
        word, level = piece.upper(), self.levels[-1]
        if piece == "(":
            self.levels.append(_Level(level.operation, True) if self.awaits_table else _Level())
        elif piece == ")":
            del self.levels[max(1, len(self.levels) - 1) :]
            self.awaits_table = False
        elif piece == ",":
            self.awaits_table = level.lists_tables
        elif word in _OPERATIONS and self.before not in _NO_OPERATION_AFTER:
            self._begin(word, level)
        elif self.awaits_table and word not in _BEFORE_TABLE and word not in _ENDS_TABLES:
            self._take(piece, level, after)
        else:
            self._turn(word, level, after)
        self.before = word

    def _begin(self, word: str, level: _Level) -> None:
        self.words.append(word)
        self.operations += 1
        self.main = self.main or (word if len(self.levels) == 1 else "")
        level.operation, level.lists_tables = word, False
        self.awaits_table = word == "UPDATE"

    def _take(self, piece: str, level: _Level, after: str) -> None:
        is_call = after == "(" and level.operation not in ("INSERT", "MERGE")
        if _TABLE.fullmatch(piece) and not is_call and piece not in self.defined:
            self.words.append(piece)
        self.awaits_table = False

    def _turn(self, word: str, level: _Level, after: str) -> None:
        """Keywords between which tables stand."""
        if word == "FROM":  # not that of EXTRACT(… FROM …) or IS DISTINCT FROM
            begins = level.operation in _OPERATIONS and self.before != "DISTINCT"
            self.awaits_table = level.lists_tables = begins
        elif word == "INTO":
            self.awaits_table = level.operation in ("INSERT", "MERGE")
        elif word == "JOIN":
            self.awaits_table = level.lists_tables = True
        elif word == "USING" and level.operation in ("DELETE", "MERGE"):
            self.awaits_table = level.lists_tables = after != "("
        elif word in _ENDS_TABLES:
            self.awaits_table = level.lists_tables = False


_TABLE = re.compile(_NAME)


def _summarize(text: str) -> _Summary:
    summary = _Summary(frozenset(_WITH.findall(text)))
    pieces = _PIECE.findall(text)
    for piece, after in zip_longest(pieces, pieces[1:], fillvalue=""):
        summary.read(piece, after)
    return summary


def _verb(text: str) -> str:
    """The first word, if it is one that begins a statement: anything else may be a value."""
    found = re.match(r"[A-Za-z]+", text)
    word = found[0].upper() if found else ""
    return word if word in _VERBS else OTHER
