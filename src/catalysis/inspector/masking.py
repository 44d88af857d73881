"""SQL and plans as they may be shown: without the values that stand in them."""

import re

from catalysis.tools.literals import Kind, replace_literals

MASK = "…"
_SHORTEST_NUMBER = 4
"""Digits.  Shorter ones belong to a statement's shape (LIMIT 20, completed = 0); a longer one may be somebody's."""


def mask(sql: str) -> str:
    """`sql` with `'…'` for strings, `…` for numbers of four digits and more, and `/* … */` for comments.

    A literal that was cut off at the end is masked as well.  Quoted names stay.
    """
    return replace_literals(sql, _masked)


def _masked(kind: Kind, text: str) -> str:
    if kind == "number":
        return MASK if sum(map(str.isdigit, text)) >= _SHORTEST_NUMBER else text
    return f"/* {MASK} */" if kind == "comment" else f"'{MASK}'"


# --- Short ----------------------------------------------------------------------------------------

_LONGEST_LIST = 32
_LONGEST_LINE = 300
_TOKENS = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|[()]|\bFROM\b""", re.IGNORECASE)
_SELECT = re.compile(r"SELECT (?:DISTINCT )?", re.IGNORECASE)
_INSERT = re.compile(
    r"(?P<head>\s*INSERT INTO [^\s(]+ )\([^)]*\) VALUES .*?(?= ON CONFLICT| RETURNING|$)", re.IGNORECASE
)
_RETURNING = re.compile(r" RETURNING (?P<columns>.{33,})$", re.IGNORECASE)


def shorten(sql: str) -> str:
    """One line that tells statements apart: long lists of columns and values are `…`."""
    sql = " ".join(sql.split())
    if _SELECT.match(sql):
        short = _shorten_select(sql)
    else:
        short = _RETURNING.sub(f" RETURNING {MASK}", _INSERT.sub(rf"\g<head>({MASK}) VALUES ({MASK})", sql))
    return short if len(short) <= _LONGEST_LINE else short[:_LONGEST_LINE] + MASK


def _shorten_select(sql: str) -> str:
    head = _SELECT.match(sql)
    assert head is not None
    depth = 0
    for found in _TOKENS.finditer(sql, head.end()):
        if found[0] == "(":
            depth += 1
        elif found[0] == ")":
            depth -= 1
        elif depth == 0 and found[0].upper() == "FROM":
            if found.start() - head.end() <= _LONGEST_LIST:
                return sql
            return f"{head[0]}{MASK} {sql[found.start() :]}"
    return sql
