"""Literals in SQL, found without parsing it: for whoever shows a statement that may hold somebody's values.

Bound parameters are not in SQL at all.  What is found here is what somebody wrote into it, and what stands in the
conditions of a plan.  SQLite's strings in double quotes count as names.
"""

import re
from collections.abc import Callable
from typing import Literal

Kind = Literal["string", "number", "comment"]

_FOUND = re.compile(
    r"""
      (?P<comment> --[^\n]* | /\*.*?(?:\*/|\Z) )
    | (?P<name> "(?:[^"]|"")*(?:"|\Z) | `[^`]*(?:`|\Z) )
    | (?P<string>
        (?<![\w$]) [eE]'(?:[^'\\]|\\.|'')*(?:'|\\?\Z)
      | (?: (?<![\w$]) (?:[xXbBnN]|[uU]&) )? '(?:[^']|'')*(?:'|\Z)
      | (?<![\w$]) \$(?P<tag>[^\W\d]\w*|)\$ .*? (?:\$(?P=tag)\$|\Z)
      )
    | (?P<number> (?<![\w$?:@]) (?:0[xX][0-9a-fA-F]+|(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?) (?![\w$]) )
    """,
    re.VERBOSE | re.DOTALL,
)
"""Comments, quoted names, strings of every kind that PostgreSQL and SQLite have, and numbers; cut off ones too."""


def replace_literals(sql: str, word: Callable[[Kind, str], str]) -> str:
    """`sql` with `word(kind, text)` in the place of each literal and comment; placeholders and names stay."""

    def replaced(found: re.Match[str]) -> str:
        for kind in _KINDS:
            if found[kind] is not None:
                return word(kind, found[0])
        return found[0]

    return _FOUND.sub(replaced, sql)


_KINDS: tuple[Kind, ...] = ("string", "number", "comment")
