"""Whether it can be seen that a SELECT ran outside a transaction, told from its SQL.

The text is what is really sent, with everything that options and criteria have added, so nothing can hide from it.
It errs to one side: what is not known to be harmless takes a transaction.
"""

import re


def words(text: str) -> frozenset[str]:
    """A table of names, written as a paragraph."""
    return frozenset(text.split())


PURE = words(
    """
    abs array_agg avg bit_length bool_and bool_or cast ceil ceiling char_length coalesce concat concat_ws
    count cume_dist date date_part date_trunc datetime dense_rank div every exp extract first_value floor
    greatest group_concat ifnull instr json json_agg json_array json_array_length json_build_object
    json_extract json_object json_quote json_type jsonb_agg jsonb_array_length jsonb_build_object julianday
    lag last_value lead least left length ln log lower lpad ltrim max md5 min mod nth_value ntile nullif
    octet_length percent_rank position pow power printf rank regexp_replace repeat replace reverse right round
    row_number rpad rtrim sign split_part sqrt stddev strftime string_agg strpos substr substring sum time
    to_char total translate trim trunc typeof unnest upper variance
    """
)
"""Functions that depend on their arguments alone, and so do not show whether there is a transaction.

`date`, `time`, `datetime`, `julianday` and `strftime` are SQLite's; with 'now' they tell the time of the statement,
in a transaction or out of it (SQLite documentation, "Date And Time Functions").
"""
_BEFORE_PARENTHESIS = words(
    """
    all and any array as between bigint by case char character check cross decimal distinct else end escape
    except exists filter float from full group having ilike in inner intersect interval is join lateral like
    limit materialized not numeric offset on or order outer over partition recursive returning row rows select
    similar some symmetric then timestamp union using values varchar varying when where with within
    """
)
"""Words that may stand before a parenthesis without being a function."""
_TEXT = re.compile(r"'(?:[^']|'')*'")
_CALL = re.compile(r'("[^"]*"|[A-Za-z_][\w$]*)\s*\(')
_TELLS = re.compile(
    r"\b(?:FOR\s+(?:NO\s+KEY\s+)?UPDATE|FOR\s+(?:KEY\s+)?SHARE|INSERT|UPDATE|DELETE|MERGE|CURRENT_\w+|LOCALTIME\w*|"
    r"SESSION_USER|TABLESAMPLE)\b"
)


KNOWN = PURE | _BEFORE_PARENTHESIS
"""What may stand before a parenthesis and shows nothing."""


def needs_transaction(sql: str) -> bool:
    """Whether a SELECT has to run in a transaction: it locks, writes, or calls what may do or see more."""
    text = _TEXT.sub("''", sql)
    if _TELLS.search(text):
        return True
    return any(found[1].lower() not in KNOWN for found in _CALL.finditer(text))
