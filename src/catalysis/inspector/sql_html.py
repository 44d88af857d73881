"""SQL laid out and coloured, as HTML that needs no script."""

from functools import lru_cache
from importlib import import_module
from typing import Any

from markupsafe import Markup, escape

_LONGEST = 6_000
"""Characters that are laid out: sqlparse takes time that grows with more than the length."""


def _sqlparse(module: str) -> Any:  # which has no types
    return import_module(f"sqlparse.{module}" if module else "sqlparse")


@lru_cache(maxsize=64)
def highlighted(sql: str) -> Markup:
    """SQL over several lines; keywords, names, strings, numbers and placeholders in spans with a class each."""
    if len(sql) > _LONGEST:
        return _coloured(sql)
    try:
        return _coloured(_sqlparse("").format(sql, reindent=True, wrap_after=70))
    except _sqlparse("exceptions").SQLParseError:  # nested too deep for it
        return _coloured(sql)


@lru_cache(maxsize=512)
def highlighted_line(sql: str) -> Markup:
    """The same on one line, as it is."""
    return _coloured(sql)


def _coloured(sql: str) -> Markup:
    # `user` and `role` are columns more often than keywords: SQLAlchemy writes those in capitals.
    capitals = sql != sql.lower()
    parts: list[Markup] = []
    for kind, text in _sqlparse("lexer").tokenize(sql):
        name = _class_of(str(kind), str(text))
        if name == "k" and capitals and text != text.upper():
            name = None
        parts.append(Markup('<span class="{}">{}</span>').format(name, text) if name else escape(text))
    return Markup("").join(parts)


_CLASSES = {
    "Token.Keyword": "k",
    "Token.Literal.String.Symbol": None,  # a quoted name
    "Token.Literal.String": "s",
    "Token.Literal.Number": "n",
    "Token.Comment": "c",
    "Token.Name.Placeholder": "p",
    "Token.Name.Builtin": "t",
}
"""By how the name of a token's kind begins."""


def _class_of(kind: str, text: str) -> str | None:
    for beginning, name in _CLASSES.items():
        if kind.startswith(beginning):
            return name
    return "e" if text == "…" else None


def prose(text: str) -> Markup:
    """A sentence with `code` in it."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if n % 2 else escape(part) for n, part in enumerate(parts)
    )
