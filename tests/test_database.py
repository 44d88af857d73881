"""Engines as the settings ask, and the embedded file safe under several writers."""

import asyncio
import sqlite3
from contextlib import closing

import pytest
from sqlalchemy import insert, text, update
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool
from sqlmodel import func, select

from catalysis import Database, DatabaseService, DatabaseSettings, Session
from tests.models import Label, Model, made


@pytest.fixture
async def embedded(tmp_path):
    settings = DatabaseSettings(url=f"sqlite:///{tmp_path / 'x.db'}", busy_timeout=5)
    async with made(settings) as database:
        yield database


async def count(database: Database) -> int:
    async with database.session() as session:
        return (await session.exec(select(func.count()).select_from(Label))).one()


async def test_the_embedded_file_is_set_up(embedded: Database):
    async with embedded.session() as session:
        for pragma, value in (("journal_mode", "wal"), ("foreign_keys", 1), ("busy_timeout", 5000)):
            assert (await session.execute(text(f"PRAGMA {pragma}"))).scalar_one() == value


async def test_savepoints_belong_to_their_transaction(embedded: Database):
    async with embedded.session() as session:
        async with session.begin_nested():
            session.add(Label(name="x"))
        await session.rollback()
    assert await count(embedded) == 0, "legacy driver transactions commit it with the savepoint"


async def test_tables_are_made_whole_or_not_at_all(embedded: Database):
    async def make_two() -> None:
        async with embedded.engine.begin() as connection:
            await connection.execute(text("CREATE TABLE half (id INTEGER)"))
            await connection.execute(text("CREATE TABLE label (id INTEGER)"))

    with pytest.raises(OperationalError):
        await make_two()
    async with embedded.engine.connect() as connection:
        assert (
            await connection.execute(text("SELECT count(*) FROM sqlite_master WHERE name='half'"))
        ).scalar() == 0


async def test_autocommit_is_left_alone(embedded: Database):
    async with embedded.engine.connect() as connection:
        auto = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await auto.execute(text("INSERT INTO label (id, name) VALUES ('1', 'x')"))
    assert await count(embedded) == 1
    async with embedded.session() as session:  # the connection is as before
        session.add(Label(name="y"))
        await session.rollback()
    assert await count(embedded) == 1


@pytest.mark.parametrize(
    "options",
    [{"isolation_level": "AUTOCOMMIT"}, {"execution_options": {"isolation_level": "AUTOCOMMIT"}}],
    ids=["engine", "execution options"],
)
async def test_an_engine_in_autocommit_keeps_what_is_written(database: Database, options):
    auto = Database(database.settings, **options)
    async with auto.engine.connect() as connection:
        await connection.execute(insert(Label).values(name="x"))
    async with auto.engine.connect() as connection:  # and one connection of it may have transactions
        apart = await connection.execution_options(isolation_level="SERIALIZABLE")
        await apart.execute(insert(Label).values(name="y"))
        await apart.rollback()
    await auto.close()
    assert await count(database) == 1


async def test_a_read_only_file_is_read(tmp_path):
    file = tmp_path / "x.db"
    with closing(sqlite3.connect(file)) as plain:  # not in WAL, so that the pragma would write
        plain.execute("CREATE TABLE t (id INTEGER)")
    for query in ("mode=ro", "immutable=1"):
        database = Database(f"sqlite:///file:{file}?{query}&uri=true")
        async with database.session() as session:
            assert (await session.execute(text("SELECT count(*) FROM t"))).scalar_one() == 0
        await database.close()


async def test_foreign_keys_are_enforced(embedded: Database):
    async with embedded.engine.begin() as connection:
        await connection.execute(
            text("CREATE TABLE child (id INTEGER, label_id CHAR(32) REFERENCES label(id))")
        )
    with pytest.raises(DBAPIError, match="FOREIGN KEY"):
        async with embedded.engine.begin() as connection:
            await connection.execute(text("INSERT INTO child VALUES (1, 'nobody')"))


async def test_in_memory():
    async with made("sqlite://") as database:
        async with database.session() as session:
            session.add(Label(name="x"))
            await session.commit()
        assert await count(database) == 1


# --- Options given --------------------------------------------------------------------------------


async def test_a_wait_for_a_lock_ends(postgres_url: str):
    """Mutation seen to fail: `lock_timeout` is not among the bounds (the UPDATE waits until the first is done)."""
    async with made(DatabaseSettings(url=postgres_url, lock_timeout=0.1)) as database:
        async with database.session() as session:
            session.add(Label(name="x"))
            await session.commit()
        async with database.session() as first, database.session() as second:
            await first.execute(update(Label).values(name="y"))
            with pytest.raises(DBAPIError) as refused:
                async with asyncio.timeout(5):
                    await second.execute(update(Label).values(name="z"))
            assert refused.value.orig.sqlstate == "55P03"
            await second.rollback()
            assert await second.scalar(text("SELECT 1")) == 1, "the connection goes on"
            await first.rollback()


async def test_connect_args_are_merged_with_the_settings(postgres_url: str, tmp_path):
    settings = DatabaseSettings(url=postgres_url, statement_timeout=3)
    given = {"timeout": 9, "server_settings": {"application_name": "tests"}}
    database = Database(settings, connect_args=given)
    async with database.session() as session:
        assert (await session.execute(text("SHOW statement_timeout"))).scalar_one() == "3s"
        assert (await session.execute(text("SHOW application_name"))).scalar_one() == "tests"
    await database.close()

    settings = DatabaseSettings(url=f"sqlite:///{tmp_path / 'x.db'}", busy_timeout=1.5)
    for given, waits in (({"check_same_thread": False}, 1500), ({"timeout": 2}, 2000)):
        database = Database(settings, connect_args=given)
        async with database.session() as session:
            assert (await session.execute(text("PRAGMA busy_timeout"))).scalar_one() == waits
            raw = (await (await session.connection()).get_raw_connection()).driver_connection
            assert raw.isolation_level is None
        await database.close()


async def test_any_pool_may_be_given(backend_url: str):
    for options in ({"poolclass": NullPool}, {"pool": NullPool(lambda: None)}):
        database = Database(backend_url, **options)
        figures = database.pool_figures()
        assert (figures.open, figures.limit) == (0, None)
        await database.close()


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({"pool_size": 3, "max_overflow": 0}, 3),
        ({"pool_size": 3}, 13),
        ({"pool_size": 0}, None),
        ({"max_overflow": -1}, None),
    ],
)
async def test_the_figures_know_the_pool_given(backend_url: str, options, limit):
    database = Database(backend_url, **options)
    assert database.pool_figures().limit == limit
    await database.close()


# --- transaction() --------------------------------------------------------------------------------


async def test_a_transaction_is_committed_whole_or_not_at_all(database: Database):
    async def work(session: Session) -> str:
        session.add(Label(name="a"))
        return "done"

    async def failing(session: Session) -> None:
        session.add(Label(name="b"))
        await session.flush()
        raise LookupError

    assert await database.transaction(work) == "done"
    with pytest.raises(LookupError):
        await database.transaction(failing)
    assert await count(database) == 1


# --- Loops, health, the process's database --------------------------------------------------------


def test_each_event_loop_has_its_own_engine(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")

    async def use() -> int:
        await database.create_all(Model.metadata)
        seen = await count(database)
        async with database.session() as session:
            session.add(Label(name=str(seen)))
            await session.commit()
        await database.close()
        return seen

    assert [asyncio.run(use()), asyncio.run(use())] == [0, 1]
    with pytest.raises(RuntimeError):
        _ = database.engine


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_loops_that_are_closed_are_forgotten(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")

    async def use_and_leave() -> int:
        await database.create_all(Model.metadata)
        return len(database._engines)

    assert [asyncio.run(use_and_leave()) for _ in range(3)] == [1, 1, 1]


async def test_health_and_figures(database: Database):
    assert (await database.health()).ready
    async with database.session() as session:
        await session.exec(select(Label))
        assert database.pool_figures().lent == 0, "a session that has only read holds nothing"
        await session.connection()
        assert database.pool_figures().lent == 1
    figures = database.pool_figures()
    assert (figures.lent, figures.limit) == (0, 20)


async def test_an_unreachable_database_is_not_ready():
    database = Database("postgresql://u:hunter2@127.0.0.1:1/none")
    health = await database.health()
    assert not health.ready
    assert "hunter2" not in repr(health)
    assert health.error


async def test_the_process_has_one_database(tmp_path):
    DatabaseService.configure(f"sqlite:///{tmp_path / 'x.db'}")
    await DatabaseService.create_all(Model.metadata)

    async def work(session: Session) -> None:
        session.add(Label(name="x"))

    await DatabaseService.transaction(work)
    async with DatabaseService.get_session() as session:
        assert isinstance(session, Session)
        assert len((await session.exec(select(Label))).all()) == 1
    await DatabaseService.drop_all(Model.metadata)
    await DatabaseService.close()


async def test_parameters_stay_out_of_errors(database: Database):
    async with database.session() as session:
        with pytest.raises(DBAPIError) as caught:
            await session.execute(text("SELECT nothing FROM label WHERE name = :name"), {"name": "hunter2"})
        await session.rollback()
    assert "hunter2" not in str(caught.value)
    assert "parameters hidden" in str(caught.value)


@pytest.mark.parametrize(
    ("sql", "locks"),
    [
        ("SELECT 1", False),
        ("-- INSERT\n select 1", False),
        ("/* UPDATE */ SELECT 1", False),
        ("WITH a AS (SELECT 1) SELECT * FROM a", False),
        ("PRAGMA foreign_keys", False),
        ("WITH a AS (SELECT 1) INSERT INTO label (id, name) SELECT '1', 'x' FROM a", True),
        ("delete from label", True),
        ("CREATE TABLE more (id INTEGER)", True),
        ("SAVEPOINT one", True),
        ("WITH a AS (SELECT 'delete' AS \"update\") SELECT * FROM a -- insert", False),
        ("WITH a AS (SELECT replace('x', 'y', 'z')) SELECT * FROM a", False),
        ("-- one\nWITH a AS (SELECT 'it''s') DELETE FROM label WHERE name IN (SELECT * FROM a)", True),
    ],
)
async def test_only_what_writes_takes_the_lock(embedded: Database, sql: str, locks: bool):
    async with embedded.engine.connect() as connection:
        await connection.exec_driver_sql(sql)
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw.in_transaction is locks
        await connection.rollback()
