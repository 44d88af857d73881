"""SQL laid out and coloured, as HTML that needs no script."""

from functools import lru_cache

from markupsafe import Markup, escape

_LONGEST = 6_000
"""Characters that are laid out: sqlparse takes time that grows with more than the length."""


@lru_cache(maxsize=64)
def highlighted(sql: str) -> Markup:
    """SQL over several lines; keywords, names, strings, numbers and placeholders in spans with a class each."""
    import sqlparse
    from sqlparse.exceptions import SQLParseError

    try:
        laid_out = sqlparse.format(sql, reindent=True, wrap_after=90) if len(sql) <= _LONGEST else sql
    except SQLParseError:  # nested too deep for it
        laid_out = sql
    return _coloured(laid_out)


@lru_cache(maxsize=512)
def highlighted_line(sql: str) -> Markup:
    """The same on one line, as it is."""
    return _coloured(sql)


def _coloured(sql: str) -> Markup:
    from sqlparse import lexer

    parts: list[str] = []
    for kind, text in lexer.tokenize(sql):
        name = _class_of(kind, text)
        parts.append(f'<span class="{name}">{escape(text)}</span>' if name else str(escape(text)))
    return Markup("").join(map(Markup, parts))  # each part was escaped above


def _class_of(kind: object, text: str) -> str | None:
    from sqlparse import tokens

    if kind in tokens.Keyword:
        return "k"
    if kind in tokens.String.Symbol:  # "a quoted name"
        return None
    if kind in tokens.String:
        return "s"
    if kind in tokens.Number:
        return "n"
    if kind in tokens.Comment:
        return "c"
    if kind in tokens.Name.Placeholder:
        return "p"
    if kind in tokens.Name.Builtin:
        return "t"
    return "e" if text == "…" else None
