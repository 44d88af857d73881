"""From what is asked to indexes that may help."""

from typing import Any

from catalysis.advice.candidates import Abilities, Candidates, TableFacts, count_keys, may_serve
from catalysis.advice.definitions import IndexDefinition, Key, TableName, is_served_by
from catalysis.advice.predicates import Asked, TableUse, read_statement

TASK = TableName("task")
COLUMNS = {
    TASK: frozenset(
        ["id", "user_id", "category_id", "title", "done", "due", "deleted_at", "data", "tags", "doc"]
    )
}
TYPES = {"data": "jsonb", "tags": "character varying[]", "doc": "json", "title": "character varying"}
POSTGRES = Abilities(includes=True, gin=True)


def use_of(sql: str) -> TableUse:
    asked = read_statement(sql, "postgresql", COLUMNS)
    assert isinstance(asked, Asked)
    return asked.uses[0]


def made(sql: str, *existing: IndexDefinition, abilities: Abilities = POSTGRES, **facts: Any) -> list[str]:
    """The candidates for a statement, each as what stands after the table in CREATE INDEX."""
    use = use_of(sql)
    known = {TASK: TableFacts(types=TYPES | dict.fromkeys(COLUMNS[TASK] - TYPES.keys(), "uuid"), **facts)}
    maker = Candidates(abilities, known, count_keys([Asked("SELECT", (use,))]), existing)
    return [said(each) for each in maker.of(use)]


def said(index: IndexDefinition) -> str:
    from sqlalchemy.dialects.postgresql.asyncpg import dialect

    return index.ddl(dialect()).partition(" ON task ")[2]


def index(*names: str, **options: Any) -> IndexDefinition:
    return IndexDefinition(TASK, tuple(map(Key, names)), **options)


def test_equality_comes_before_the_sort():
    found = made("SELECT * FROM task WHERE user_id = $1 ORDER BY due DESC, id DESC LIMIT 21")
    assert "(user_id, due, id)" in found
    assert "(user_id)" in found
    assert "(due, user_id)" not in found
    assert "(due, id)" in found  # the sort alone, since only the first rows are wanted


def test_a_sort_of_all_rows_is_no_candidate_alone():
    found = made("SELECT * FROM task WHERE user_id = $1 ORDER BY due")
    assert "(user_id, due)" in found
    assert "(due)" not in found


def test_equality_comes_before_a_range():
    found = made("SELECT * FROM task WHERE due < $1 AND user_id = $2")
    assert "(user_id, due)" in found
    assert "(due)" in found
    assert "(due, user_id)" not in found


def test_a_sort_whose_first_column_tells_rows_apart_needs_no_second():
    sql = "SELECT * FROM task WHERE user_id = $1 ORDER BY due, id LIMIT 21"
    assert "(user_id, due, id)" not in made(sql, distinct={"due": 900_000.0}, rows=1_000_000.0)
    assert "(user_id, due)" not in made(sql, distinct={"due": 5.0}, rows=1_000_000.0)


def test_partial_indexes_have_the_conditions_without_values():
    found = made("SELECT * FROM task WHERE user_id = $1 AND NOT done AND deleted_at IS NULL")
    assert "(user_id) WHERE NOT done AND deleted_at IS NULL" in found


def test_covering_only_few_columns():
    narrow = made("SELECT count(*) FROM task WHERE user_id = $1 AND deleted_at IS NULL")
    assert "(user_id) INCLUDE (deleted_at)" in narrow
    wide = made("SELECT id, title, due, data FROM task WHERE user_id = $1")
    assert not any("INCLUDE" in each for each in wide)
    assert not any(
        "INCLUDE" in each for each in made("SELECT due FROM task WHERE user_id = $1", abilities=Abilities())
    )


def test_what_no_btree_sorts_is_left_out():
    assert made("SELECT id FROM task WHERE doc = $1") == []


def test_containment():
    both = ["USING gin (data jsonb_path_ops)", "USING gin (data)"]
    assert made("SELECT id FROM task WHERE data @> $1") == both
    assert made("SELECT id FROM task WHERE data ? $1") == ["USING gin (data)"]
    assert made("SELECT id FROM task WHERE data <@ $1") == []
    assert made("SELECT id FROM task WHERE tags && $1") == ["USING gin (tags)"]
    assert made("SELECT id FROM task WHERE title @> $1") == []
    assert made("SELECT id FROM task WHERE tags && $1", abilities=Abilities()) == []


def test_trigrams_only_where_the_extension_is():
    sql = "SELECT id FROM task WHERE title ILIKE '%' || $1 || '%'"
    assert made(sql) == []
    assert made(sql, abilities=Abilities(gin=True, trigrams=True)) == ["USING gin (title gin_trgm_ops)"]


def test_expressions():
    assert "((lower(title)))" in [each.lower() for each in made("SELECT * FROM task WHERE lower(title) = $1")]


def test_what_is_there_is_no_candidate():
    sql = "SELECT * FROM task WHERE user_id = $1 ORDER BY due LIMIT 5"
    assert "(user_id)" not in made(sql, index("user_id", "category_id"))
    assert "(user_id)" in made(sql, index("category_id", "user_id"))
    assert "(user_id)" in made(sql, index("user_id", predicate=("done",)))
    assert made("SELECT id FROM task WHERE data ? $1", index("data", method="gin")) == []


def test_what_many_ask_for_comes_first():
    both = use_of("SELECT * FROM task WHERE category_id = $1 AND user_id = $2")
    one = use_of("SELECT * FROM task WHERE user_id = $1")
    asked = count_keys([Asked("SELECT", (both,)), Asked("SELECT", (one,))])
    found = Candidates(Abilities(), {}, asked, ()).of(both)
    assert index("user_id", "category_id") in found
    assert index("category_id", "user_id") not in found


def test_who_may_be_served():
    use = use_of("SELECT * FROM task WHERE user_id = $1 AND deleted_at IS NULL ORDER BY due LIMIT 1")
    assert may_serve(index("user_id", "title"), use)
    assert may_serve(index("due"), use)
    assert may_serve(index("user_id", predicate=("deleted_at IS NULL",)), use)
    assert not may_serve(index("title", "user_id"), use)
    assert not may_serve(index("user_id", predicate=("NOT done",)), use)


def test_served_by():
    two = index("a", "b")
    assert is_served_by(index("a"), two)
    assert not is_served_by(index("b"), two)
    assert not is_served_by(two, index("a"))
    falling = IndexDefinition(TASK, (Key("a", descending=True), Key("b", descending=True)))
    mixed = IndexDefinition(TASK, (Key("a", descending=True), Key("b")))
    assert is_served_by(falling, two)
    assert not is_served_by(mixed, two)
    assert is_served_by(index("a", include=("b",)), two)
    assert not is_served_by(index("a", include=("c",)), two)
    assert not is_served_by(index("a", predicate=("done",)), two)
    assert is_served_by(index("a", predicate=("NOT done",)), index("a", "b", predicate=("(NOT done)",)))
    lower = IndexDefinition(TASK, (Key("LOWER(title)", is_expression=True),))
    assert is_served_by(lower, IndexDefinition(TASK, (Key("lower((title)::text)", is_expression=True),)))
    assert not is_served_by(index("a"), IndexDefinition(TASK, (Key("a", operator_class="text_pattern_ops"),)))


def test_names():
    assert index("user_id", "due").name == "ix_task_user_id_due"
    long = index(*(f"a_long_name_of_a_column_{n}" for n in range(9)))
    assert len(long.name.encode()) <= 63
    assert long.name != index(*(f"a_long_name_of_a_column_{n}" for n in range(8))).name
