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
      (?P<comment> --[^\n]* | /\*(?:(?!/\*|\*/).)*(?: \*/ | /\*(?:.*\*/|.*) | \Z) )
    | (?P<name> "(?:[^"]|"")*(?:"|\Z) | `[^`]*(?:`|\Z) )
    | (?P<string>
        (?<![\w$]) [eE]'(?:[^'\\]|\\.|'')*(?:'|\\?\Z)
      | (?: (?<![\w$]) (?:[xXbBnN]|[uU]&) )? '(?:[^']|'')*(?:'|\Z)
      | (?<![\w$]) \$(?P<tag>[^\W\d]\w*|)\$ .*? (?:\$(?P=tag)\$|\Z)
      )
    | (?P<number> (?<![\w$?@]) (?<![^\w\])]:)
        (?:0[xX][\da-fA-F_]+ | 0[oObB][\d_]+ | (?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)? ) )
    """,
    re.VERBOSE | re.DOTALL,
)
"""Comments, quoted names, strings of every kind that PostgreSQL and SQLite have, and numbers; cut off ones too.

A comment in a comment counts up to the last end of one: PostgreSQL nests them, SQLite does not.  A number may touch the
word after it (`1AND`), and `:1` is a placeholder except in a slice (`a[1:2]`).
"""


def replace_literals(sql: str, word: Callable[[Kind, str], str]) -> str:
    """`sql` with `word(kind, text)` in the place of each literal and comment; placeholders and names stay."""

    def replaced(found: re.Match[str]) -> str:
        for kind in _KINDS:
            if found[kind] is not None:
                return word(kind, found[0])
        return found[0]

    return _FOUND.sub(replaced, sql)


_KINDS: tuple[Kind, ...] = ("string", "number", "comment")
