"""The tables of a live PostgreSQL database: each fault, made for real, and its mend, which is run."""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from catalysis.doctor import Complaint, examine
from catalysis.doctor.live import duration, size
from tests.doctor.conftest import alone, of, said, send

TABLES = (
    'CREATE TABLE "user" (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text UNIQUE)',
    'CREATE TABLE task (id bigserial PRIMARY KEY, title text, user_id integer REFERENCES "user")',
    "CREATE INDEX task_user ON task (user_id)",
    "CREATE TABLE parts (id bigint, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day)",
    "CREATE TABLE parts_now PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
    "INSERT INTO \"user\" (name) SELECT 'user ' || n FROM generate_series(1, 10) n",
    "INSERT INTO task (title, user_id) SELECT 'x', 1 + n % 10 FROM generate_series(1, 100) n",
)


@pytest.fixture
async def shop(postgres):
    await send(postgres, *TABLES)
    return postgres


async def one(database, code: str, **limits) -> Complaint:
    """The only complaint by a rule, which its mend takes away."""
    (complaint,) = of(await alone(database, **limits), code)
    await send(database, *[each for each in complaint.mend.split("; ")[:1] if each.isascii()])
    assert of(await alone(database, **limits), code) == []
    return complaint


async def test_nothing_to_complain_of(shop):
    found = await alone(shop, unused=1 << 40)
    assert said(found) == []
    assert {each.code for each in found.skipped} == {"D200"}


async def test_an_invalid_index(shop):
    await send(shop, "INSERT INTO task (title, user_id) VALUES ('y', 1)")
    with pytest.raises(DBAPIError):
        await send(shop, "CREATE UNIQUE INDEX CONCURRENTLY task_title ON task (title)")
    (complaint,) = of(await alone(shop), "D321")
    assert (complaint.subject, complaint.severity) == ("index task_title", "error")
    assert "Rows that repeat" in complaint.message
    assert complaint.mend.endswith("DROP INDEX CONCURRENTLY public.task_title;")
    await send(shop, "DROP INDEX CONCURRENTLY public.task_title")
    assert of(await alone(shop), "D321") == []


async def test_an_index_that_is_being_built_is_left_alone(shop):
    async with shop.engine.connect() as writer:
        await writer.execute(text("UPDATE task SET title = 'z' WHERE id = 1"))  # which the building waits for
        building = asyncio.create_task(send(shop, "CREATE INDEX CONCURRENTLY task_title ON task (title)"))
        async with shop.engine.connect() as reader:
            invalid = text("SELECT count(*) FROM pg_index WHERE NOT indisvalid")
            while not await reader.scalar(invalid):
                await asyncio.sleep(0.01)
                await reader.rollback()
        assert of(await alone(shop), "D321") == []
        await writer.rollback()
    await building
    assert of(await alone(shop), "D321") == []


async def test_an_invalid_index_of_a_partitioned_table(shop):
    await send(shop, "CREATE INDEX parts_day ON ONLY parts (day)")
    (complaint,) = of(await alone(shop), "D321")
    assert complaint.mend == "ALTER INDEX public.parts_day ATTACH PARTITION …; one for each partition"


async def test_a_bloated_index(shop):
    await send(
        shop,
        "CREATE TABLE big (id integer PRIMARY KEY, a integer)",
        "ALTER TABLE big SET (autovacuum_enabled = false)",
        "INSERT INTO big SELECT n, n FROM generate_series(1, 100000) n",
        "ANALYZE big",
    )
    assert of(await alone(shop, bloat=100_000), "D322") == []
    await send(shop, "DELETE FROM big WHERE id % 4 = 0", "VACUUM ANALYZE big")
    assert of(await alone(shop, bloat=100_000), "D322") == []  # a quarter
    await send(shop, "DELETE FROM big WHERE id % 10 <> 0", "VACUUM ANALYZE big")
    complaint = await one(shop, "D322", bloat=100_000)
    assert complaint.subject == "index big_pkey"
    assert "By estimate 2 MB of its 2 MB" in complaint.message
    assert complaint.mend == "REINDEX INDEX CONCURRENTLY public.big_pkey;"


async def test_dead_rows(shop):
    await send(
        shop,
        "CREATE TABLE big (id integer PRIMARY KEY) WITH (autovacuum_enabled = false)",
        "INSERT INTO big SELECT n FROM generate_series(1, 3000) n",
        "SELECT pg_stat_force_next_flush()",
        "VACUUM big",
        "DELETE FROM big WHERE id < 500",
        "SELECT pg_stat_force_next_flush()",
    )
    assert of(await alone(shop, dead_rows=400), "D323") == []  # less than a fifth
    await send(shop, "DELETE FROM big WHERE id < 2000", "SELECT pg_stat_force_next_flush()")
    (complaint,) = of(await alone(shop, dead_rows=400), "D323")
    assert complaint.subject == "big"
    assert "1,999 rows are dead and 1,001 live" in complaint.message
    assert "vacuumed 0 s ago" in complaint.message or "vacuumed 1 s ago" in complaint.message
    assert "Autovacuum is off here" in complaint.message
    assert "RESET (autovacuum_enabled)" in complaint.mend
    assert of(await alone(shop, dead_rows=2000), "D323") == []
    await send(shop, "VACUUM ANALYZE big", "SELECT pg_stat_force_next_flush()")
    assert of(await alone(shop, dead_rows=400), "D323") == []


async def test_a_constraint_that_was_never_checked(shop):
    await send(
        shop,
        "ALTER TABLE task DROP CONSTRAINT task_user_id_fkey",
        'ALTER TABLE task ADD CONSTRAINT of_user FOREIGN KEY (user_id) REFERENCES "user" NOT VALID',
    )
    complaint = await one(shop, "D324")
    assert complaint.subject == "constraint of_user of task"
    assert complaint.mend == "ALTER TABLE public.task VALIDATE CONSTRAINT of_user;"
    await send(shop, "ALTER TABLE task ADD CONSTRAINT positive CHECK (id > 0) NOT VALID")
    assert (await one(shop, "D324")).message.endswith("may break it.")


async def test_a_constraint_that_is_not_to_be_enforced(shop):
    async with shop.engine.connect() as connection:
        version = int(await connection.scalar(text("SHOW server_version_num")) or 0)
    if version < 180_000:
        pytest.skip("PostgreSQL 18 has them")
    await send(shop, "ALTER TABLE task ADD CONSTRAINT positive CHECK (id > 0) NOT ENFORCED")
    assert of(await alone(shop), "D324") == []


@pytest.mark.parametrize(
    ("statement", "subject", "mend"),
    [
        (
            "CREATE INDEX task_again ON task (user_id)",
            "task_user",
            "DROP INDEX CONCURRENTLY public.task_user;",
        ),
        ("CREATE INDEX task_key ON task (id)", "task_key", "DROP INDEX CONCURRENTLY public.task_key;"),
        (
            "CREATE UNIQUE INDEX task_key ON task (id)",
            "task_key",
            "DROP INDEX CONCURRENTLY public.task_key;",
        ),
        (
            "ALTER TABLE task ADD CONSTRAINT again UNIQUE (id)",
            "again",
            "ALTER TABLE public.task DROP CONSTRAINT again;",
        ),
    ],
)
async def test_a_duplicate_index(shop, statement, subject, mend):
    await send(shop, statement)
    complaint = await one(shop, "D327")
    assert (complaint.subject, complaint.mend) == (f"index {subject}", mend)


async def test_indexes_that_only_look_alike(shop):
    await send(
        shop,
        "CREATE INDEX a ON task (user_id, id)",
        "CREATE INDEX b ON task (user_id) WHERE id > 5",
        "CREATE INDEX c ON task (user_id DESC)",
        "CREATE INDEX d ON task USING hash (user_id)",
        "CREATE INDEX e ON task (user_id) INCLUDE (title)",
        "CREATE INDEX f ON task (abs(user_id))",
        "CREATE INDEX g ON task (title)",
        "CREATE INDEX h ON task (title text_pattern_ops)",
        'CREATE INDEX i ON task (title COLLATE "C")',
    )
    assert said(await alone(shop), "D327") == []


async def test_an_index_that_nothing_reads(shop):
    """That of the foreign key is not read either, and is needed."""
    await send(shop, "CREATE INDEX task_title ON task (title)")
    (complaint,) = of(await alone(shop, unused=0), "D328")
    assert (complaint.subject, complaint.severity) == ("index task_title", "info")
    assert of(await alone(shop), "D328") == []  # it is small
    async with shop.engine.begin() as connection:
        await connection.execute(text("SET LOCAL enable_seqscan = off"))
        await connection.execute(text("SELECT * FROM task WHERE title = 'x'"))
        await connection.execute(text("SELECT pg_stat_force_next_flush()"))
    assert of(await alone(shop, unused=0), "D328") == []


async def test_times_without_a_zone(shop):
    await send(shop, "CREATE TABLE event (id int PRIMARY KEY, at timestamp, aware timestamptz)")
    complaint = await one(shop, "D329")
    assert complaint.subject == "event.at"
    assert "if it holds UTC" in complaint.mend


async def test_a_table_without_a_primary_key(shop):
    await send(
        shop,
        'CREATE TABLE "Log" (a text)',
        "CREATE VIEW seen AS SELECT 1 AS a",
        "CREATE TEMPORARY TABLE t (a int)",
    )
    (complaint,) = of(await alone(shop), "D330")
    assert complaint.subject == '"Log"'
    assert complaint.mend == 'ALTER TABLE public."Log" ADD PRIMARY KEY (…);'


async def test_what_is_not_on_the_search_path_is_another_s_affair(shop):
    await send(shop, "CREATE SCHEMA other", "CREATE TABLE other.log (a timestamp)")
    assert said(await alone(shop)) == []


# --- Numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "next_", "greatest"),
    [
        ("INSERT INTO task (id, title) VALUES (101, 'x')", "101", "101"),
        ("INSERT INTO task (id, title) VALUES (5000, 'x')", "101", "5,000"),
        ("ALTER SEQUENCE task_id_seq RESTART", "1", "100"),
        ("SELECT setval('task_id_seq', 100, false)", "100", "100"),
    ],
)
async def test_a_sequence_that_is_behind(shop, made, next_, greatest):
    await send(shop, made)
    complaint = await one(shop, "D325")
    assert (complaint.subject, complaint.severity) == ("sequence task_id_seq", "error")
    assert f"next number is {next_}," in complaint.message
    assert f"goes up to {greatest}:" in complaint.message
    await send(shop, "INSERT INTO task (title) VALUES ('y')")


async def test_sequences_that_are_not_behind(shop):
    await send(
        shop,
        "SELECT setval('task_id_seq', 101, false)",
        "CREATE TABLE fresh (id serial PRIMARY KEY)",
        "CREATE TABLE loose (id integer PRIMARY KEY, n serial)",  # its maximum would cost a scan
        "INSERT INTO loose VALUES (1, 500)",
    )
    assert said(await alone(shop)) == []


async def test_an_identity_is_mended_too(shop):
    await send(shop, "INSERT INTO \"user\" (id, name) OVERRIDING SYSTEM VALUE VALUES (11, 'x')")
    assert (await one(shop, "D325")).subject == "sequence user_id_seq"


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("SELECT setval('user_id_seq', 1073741823)", []),
        ("SELECT setval('user_id_seq', 1073741825)", [("D326", "warning", '"user".id')]),
        ("SELECT setval('user_id_seq', 2000000000)", [("D326", "error", '"user".id')]),
        ("SELECT setval('task_id_seq', 9000000000000)", []),
        ("SELECT setval('short', 1500000000)", [("D326", "warning", "long.id")]),
        ("INSERT INTO tiny VALUES (20000)", [("D326", "warning", "tiny.id")]),
        ("INSERT INTO tiny VALUES (16000)", []),
    ],
)
async def test_integers_that_run_out(shop, statement, found):
    await send(
        shop,
        "CREATE TABLE tiny (id smallint PRIMARY KEY)",
        "CREATE TABLE long (id bigint PRIMARY KEY)",
        "CREATE SEQUENCE short AS integer OWNED BY long.id",
        statement,
    )
    assert said(await alone(shop), "D326") == found


async def test_names_that_need_quotes(shop):
    await send(
        shop,
        """CREATE TABLE "It's" (";DROP" serial PRIMARY KEY)""",
        """INSERT INTO "It's" VALUES (1), (2)""",
    )
    complaint = await one(shop, "D325")
    assert complaint.subject.startswith("sequence \"It's_")


# --- Of another role ------------------------------------------------------------------------------


async def test_a_role_that_may_read_little(shop, stranger):
    """What it may not read is skipped, with the reason; nothing fails."""
    await send(shop, "CREATE TABLE tiny (id smallint PRIMARY KEY)")
    found = await alone(stranger, unused=1 << 40)
    assert said(found) == []
    reasons = {each.code: each.reason for each in found.skipped}
    assert set(reasons) == {"D200", "D301", "D302", "D306", "D325", "D326"}
    assert "pg_read_all_stats" in reasons["D301"]
    assert "GRANT SELECT" in reasons["D325"]
    assert any("tiny.id may not be read" in each.reason for each in found.skipped if each.code == "D326")


async def test_a_check_that_takes_too_long_is_skipped(shop):
    """The lock of another session is not waited for; the checks after it go on."""
    await send(shop, "CREATE TABLE log (a timestamp)")
    async with shop.engine.begin() as connection:
        await connection.execute(text("LOCK TABLE task IN ACCESS EXCLUSIVE MODE"))
        found = await alone(shop)
    assert {each.code for each in found.skipped} == {"D200", "D325", "D326", "D328"}
    assert "lock timeout" in next(each.reason for each in found.skipped if each.code == "D325")
    assert [each[0] for each in said(found)] == ["D329", "D330"]


async def test_models_are_looked_at_by_their_own_rule(shop):
    """A naive column of the models is told of once."""
    from sqlalchemy import Column, DateTime, Integer, MetaData, Table

    metadata = MetaData()
    Table("event", metadata, Column("id", Integer, primary_key=True), Column("at", DateTime))
    await shop.create_all(metadata)
    assert [each[0] for each in said(await examine(shop, metadata)) if each[1] == "warning"] == ["D103"]


def test_sizes_and_durations_for_people():
    assert [size(each) for each in (512, 2048, 3 << 20, 5 << 30, 7 << 40)] == [
        *("512 bytes", "2 kB", "3 MB", "5 GB", "7,168 GB")
    ]
    assert [duration(each) for each in (0.4, 90, 600, 7200, 200_000)] == [
        *("0 s", "90 s", "10 min", "2 h", "2 days")
    ]
