"""Literals and comments are masked whatever stands in them; names and placeholders stay."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalysis.inspector.masking import mask, shorten


@pytest.mark.parametrize(
    ("sql", "masked"),
    [
        ("SELECT 'a'", "SELECT '…'"),
        ("x = 'it''s' AND y = ''", "x = '…' AND y = '…'"),
        ("x = E'it\\'s secret' AND y", "x = '…' AND y"),
        ("x = N'a' OR x = X'0F'", "x = '…' OR x = '…'"),
        ("x = $$se'cret$$ AND y = $t$ $$ $t$", "x = '…' AND y = '…'"),
        ("x = $1::UUID AND y = $23 AND z = ?", "x = $1::UUID AND y = $23 AND z = ?"),
        ("x = 'cut off", "x = '…'"),
        ("x = $$cut off", "x = '…'"),
        ("x = E'cut off\\", "x = '…'"),
        ("\"it's\" = 'a'", "\"it's\" = '…'"),
        ("LIMIT 20 OFFSET 48151623", "LIMIT 20 OFFSET …"),
        ("x = 3.14159 AND t1234.c5678 = 0.5", "x = … AND t1234.c5678 = 0.5"),
        ("-- who: me\nSELECT /* it's 'me' */ 1 -- x", "/* … */\nSELECT /* … */ 1 /* … */"),
        ("SELECT 1 /* cut", "SELECT 1 /* … */"),
        ("/* who /* it's */ me */ SELECT 1", "/* … */ SELECT 1"),
        ("/* who /* cut */", "/* … */"),
        ("/**/ SELECT /* a */ 1 /***/", "/* … */ SELECT /* … */ 1 /* … */"),
        ("x = 48151623AND y = 0b1010 OR y = 0o7777", "x = …AND y = … OR y = …"),
        ("a[4815:1623] = :1234 AND b = ?1234 AND c = @1234", "a[…:…] = :1234 AND b = ?1234 AND c = @1234"),
        ("(a = 'x'::character varying)", "(a = '…'::character varying)"),
    ],
)
def test_masked(sql: str, masked: str):
    assert mask(sql) == masked
    assert mask(masked) == masked


@given(st.text(max_size=20), st.sampled_from(["", "E", "x", " || "]), st.integers(0, 30))
def test_no_literal_survives(value: str, before: str, cut: int):
    value = value.replace("\\", "")  # in a plain string it stands for itself, in E'' it escapes
    sql = f"SELECT 1 WHERE a = {before}'{value.replace(chr(39), chr(39) * 2)}canary' AND b = 'canary'"
    for text in (sql, sql[: len(sql) - cut]):
        assert "canary" not in mask(text)


@pytest.mark.parametrize(
    ("sql", "short"),
    [
        ("SELECT a, b FROM t", "SELECT a, b FROM t"),
        (
            f"SELECT {', '.join(f't.c{n}' for n in range(20))}\nFROM t\nWHERE a = ?",
            "SELECT … FROM t WHERE a = ?",
        ),
        (f"SELECT DISTINCT {'t.c, ' * 20}(SELECT 1 FROM u) FROM t", "SELECT DISTINCT … FROM t"),
        (
            "SELECT (SELECT max(a_long_name_of_a_column) FROM u) AS m",
            "SELECT (SELECT max(a_long_name_of_a_column) FROM u) AS m",
        ),
        ("INSERT INTO t (a, b) VALUES (?, ?), (?, ?)", "INSERT INTO t (…) VALUES (…)"),
        (
            f"INSERT INTO t (a) VALUES (?) RETURNING {'t.c, ' * 20}t.d",
            "INSERT INTO t (…) VALUES (…) RETURNING …",
        ),
        ("UPDATE t SET a=? WHERE b = ?", "UPDATE t SET a=? WHERE b = ?"),
        ("BEGIN", "BEGIN"),
    ],
)
def test_shortened(sql: str, short: str):
    assert shorten(sql) == short


def test_a_line_is_never_long():
    assert len(shorten("DELETE FROM t WHERE " + "x" * 5_000)) <= 301
