"""Whether a statement may leave something in the session of the database: told from its SQL.

It errs to one side: a function that is not known may do anything, and costs a round trip when the lease ends.
"""

import re
from functools import lru_cache

from catalysis.engine.purity import KNOWN, words

_HARMLESS = words(
    """
    age any_value array_append array_length array_position array_remove bit_and bit_or clock_timestamp corr
    currval date_bin decode encode every format gen_random_bytes gen_random_uuid generate_series initcap
    isfinite json_each json_object_agg json_populate_record jsonb_each jsonb_object_agg jsonb_set jsonb_typeof
    justify_days justify_hours justify_interval lastval make_date make_interval make_timestamp make_timestamptz
    mode nextval now num_nonnulls num_nulls percentile_cont percentile_disc pg_advisory_xact_lock
    pg_advisory_xact_lock_shared pg_backend_pid pg_current_wal_lsn pg_current_xact_id pg_get_serial_sequence
    pg_notify pg_relation_size pg_sleep pg_table_size pg_total_relation_size pg_try_advisory_xact_lock
    pg_try_advisory_xact_lock_shared phraseto_tsquery plainto_tsquery quote_ident quote_literal random
    regexp_match regexp_matches row_to_json similarity starts_with statement_timestamp stddev_pop stddev_samp
    string_to_array strpos to_date to_json to_jsonb to_number to_regclass to_timestamp to_tsquery to_tsvector
    transaction_timestamp ts_headline ts_rank txid_current uuid uuidv7 var_pop var_samp version
    websearch_to_tsquery width_bucket
    conflict default do exclude following generated identity into key preceding references set unique
    """
)
"""Functions that leave nothing, and words that may stand before a parenthesis where something is written."""

_QUOTED = re.compile(
    r"""\b[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"[^"]*"|\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$"""
    r"""|--[^\n]*|/\*.*?\*/""",
    re.DOTALL,
)
"""Strings, of which `E'…'` has its quotes after a backslash too and `$$…$$` as they are, names, and comments.

Source: PostgreSQL documentation, "Lexical Structure".
"""
_STATEMENT = re.compile(r"\s*(\w+)")
_DEFINES = words("alter analyze cluster comment create drop grant reindex revoke truncate vacuum")
_PLAIN = words(
    "begin commit delete explain insert merge release rollback savepoint select show update values with"
)
_TEMPORARY = re.compile(r"\b(?:TEMP(?:ORARY)?\b|pg_temp)", re.IGNORECASE)
_AS_QUERY = re.compile(r"\bAS\s*\(?\s*(?:SELECT|WITH|VALUES)\b", re.IGNORECASE)
_LOCAL = re.compile(r"\s*SET\s+(?:LOCAL|TRANSACTION|CONSTRAINTS)\b", re.IGNORECASE)
_SET_LOCALLY = re.compile(r"\bset_config\s*\([^()]*,\s*true\s*\)", re.IGNORECASE)
_TARGET = re.compile(r'\bINTO\s+(?:[\w$]+|"[^"]*")(?:\.(?:[\w$]+|"[^"]*"))*', re.IGNORECASE)
_CALL = re.compile(r'("[^"]*"|[^\W\d][\w$]*)\s*\(')


@lru_cache(maxsize=2_000)
def leaves_state(sql: str) -> bool:
    """Whether settings, locks, temporary tables or listeners may outlast the transaction it runs in."""
    text = _QUOTED.sub(_without_content, sql).lstrip("( \t\r\n;")
    first = _STATEMENT.match(text)
    verb = first[1].lower() if first else ""
    if verb not in _PLAIN and verb not in _DEFINES:
        return bool(verb) and _LOCAL.match(text) is None
    if _TEMPORARY.search(text):
        return True
    if verb in _DEFINES:  # CREATE TABLE … AS executes a query
        query = _AS_QUERY.search(text)
        text = "" if query is None else text[query.end() :]
    written = _SET_LOCALLY.sub("1", _TARGET.sub("INTO", text))
    called = (found[1].strip('"').lower() for found in _CALL.finditer(written))
    return any(name not in KNOWN and name not in _HARMLESS for name in called)


def _without_content(found: re.Match[str]) -> str:
    part = found[0]
    return part if part[0] == '"' else " " if part[:2] in ("--", "/*") else "''"
