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
        laid_out = sqlparse.format(sql, reindent=True, wrap_after=70) if len(sql) <= _LONGEST else sql
    except SQLParseError:  # nested too deep for it
        laid_out = sql
    return _coloured(laid_out)


@lru_cache(maxsize=512)
def highlighted_line(sql: str) -> Markup:
    """The same on one line, as it is."""
    return _coloured(sql)


def _coloured(sql: str) -> Markup:
    from sqlparse import lexer

    # `user` and `role` are columns more often than keywords: SQLAlchemy writes those in capitals.
    capitals = sql != sql.lower()
    parts: list[Markup] = []
    for kind, text in lexer.tokenize(sql):
        name = _class_of(kind, text)
        if name == "k" and capitals and text != text.upper():
            name = None
        parts.append(Markup('<span class="{}">{}</span>').format(name, text) if name else escape(text))
    return Markup("").join(parts)


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


def prose(text: str) -> Markup:
    """A sentence with `code` in it."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if n % 2 else escape(part) for n, part in enumerate(parts)
    )
