"""Values of every type, at the edges of what databases and drivers can say, as the place where a page begins."""

from typing import Any

import pytest
from sqlalchemy import Integer, String, column, func, insert, select, table, text
from sqlalchemy.dialects.postgresql import CITEXT
from sqlalchemy.ext.asyncio import AsyncSession

from catalysis import InvalidPage
from catalysis.tools.keyset import paginate_keyset
from tests.tools.paged_models import VALUES, Everything, Task, engine_with_tables, tasks
from tests.tools.walks import backward, forged, forward


@pytest.mark.filterwarnings("ignore:.*does \\*not\\* support Decimal objects natively")
async def test_values_of_every_type_come_back_exactly(backend_url: str):
    async with engine_with_tables(backend_url) as engine, AsyncSession(engine) as session:
        for name, values in VALUES.items():
            await session.execute(Everything.__table__.delete())
            twice = [*values, None, *values, None]
            await session.execute(insert(Everything), [{name: value} for value in twice])
            column = getattr(Everything, name)
            for order in (column.nulls_first(), column.desc()):
                statement = select(Everything.id).order_by(order, Everything.id)
                expected = (await session.scalars(statement)).all()
                walked, last = await forward(session, statement, size=1)
                assert walked == expected, name
                assert await backward(session, statement, last) == expected, name


async def test_infinite_and_undefined_numbers_and_moments(postgres_url: str):
    async with engine_with_tables(postgres_url) as engine, AsyncSession(engine) as session:
        await session.execute(
            text(
                "INSERT INTO everything (id, floating, decimal, aware, naive, day) VALUES "
                "(1, 'nan', 'nan', 'infinity', 'infinity', 'infinity'), (2, 'nan', 'nan', '-infinity', NULL, NULL), "
                "(3, 'infinity', '1e17', 'infinity', '-infinity', '-infinity'), (4, 1, 1, now(), now(), now()), "
                "(5, '-0', '0', '9999-12-31', '0001-01-01', '0001-01-01'), (6, '0', '0.000', NULL, NULL, NULL)"
            )
        )
        for name in ("floating", "decimal", "aware", "naive", "day"):
            for order in (getattr(Everything, name), getattr(Everything, name).desc()):
                statement = select(Everything.id).order_by(order)
                walked, last = await forward(session, statement, size=1)
                assert sorted(walked) == [1, 2, 3, 4, 5, 6], name
                assert await backward(session, statement, last) == walked, name


async def test_what_sqlite_stores_is_compared_and_not_what_python_makes_of_it(tmp_path: Any):
    url = f"sqlite+aiosqlite:///{tmp_path}/test.db"
    async with engine_with_tables(url) as engine, AsyncSession(engine) as session:
        await session.execute(
            text(
                "INSERT INTO everything (id, naive, decimal, integer, text) VALUES "
                "(1, '2024-01-01 00:00:00', 0.3333333333333333, 'many', '5'), "  # as CURRENT_TIMESTAMP writes
                "(2, '2024-01-01 00:00:00.000000', 0.3333333333333334, 2.5, x'00'), "
                "(3, '2024-01-01 00:00:00.000', 0.3333333333333335, 3, 'a' || char(0) || 'b'), "
                "(4, '2024-01-01 00:00:00.000001', 0.3333333333333336, 9e18, 'a')"
            )
        )
        for name in ("naive", "decimal", "integer", "text"):
            for order in (getattr(Everything, name), getattr(Everything, name).desc()):
                statement = select(Everything.id).order_by(order)
                walked, last = await forward(session, statement, size=1)
                assert sorted(walked) == [1, 2, 3, 4], name
                assert await backward(session, statement, last) == walked, name


async def test_types_only_the_database_knows(postgres_url: str):
    async with engine_with_tables(postgres_url) as engine, AsyncSession(engine) as session:
        session.add_all(tasks(12))
        await session.flush()
        for expression in (
            func.length(Task.title),
            func.date_trunc("hour", Task.created_at),
            func.md5(Task.title),
            func.extract("epoch", Task.created_at),
            func.lower(Task.title),
            func.to_tsvector("simple", Task.title),
        ):
            statement = select(Task).order_by(expression)
            walked, last = await forward(session, statement, size=5)
            assert len({task.id for task in walked}) == 12
            assert await backward(session, statement, last) == walked

        statement = select(Task).order_by(func.length(Task.title))
        cursor = (await paginate_keyset(session, statement, size=5)).next_cursor
        assert cursor is not None
        for value in ("text", 2**40, ["m", "2024-01-01"], ["b", "00"], "\0"):
            with pytest.raises(InvalidPage, match="not one of this query's"):
                await paginate_keyset(session, statement, after=forged(cursor, value, 1))
        assert (await session.scalars(select(func.count(Task.id)))).one() == 12  # the transaction goes on
        with pytest.raises(InvalidPage, match="gave a list for"):
            await paginate_keyset(
                session, select(Task).order_by(func.string_to_array(Task.title, " ")), size=5
            )


async def test_a_zero_in_text_is_refused_before_postgresql_refuses_it(postgres_url: str):
    async with engine_with_tables(postgres_url) as engine, AsyncSession(engine) as session:
        session.add_all(tasks(3))
        await session.flush()
        statement = select(Task).order_by(Task.title)
        cursor = (await paginate_keyset(session, statement, size=1)).next_cursor
        assert cursor is not None
        with pytest.raises(InvalidPage):
            await paginate_keyset(session, statement, after=forged(cursor, "a\0", 1))
        assert len((await forward(session, statement, size=1))[0]) == 3  # the transaction goes on


async def test_sums_and_counts_beyond_32_bits(postgres_url: str):
    async with engine_with_tables(postgres_url) as engine, AsyncSession(engine) as session:
        await session.execute(
            insert(Everything),
            [{"integer": 2**31 - 1 - n // 4, "big": 2**63 - 1, "text": str(n % 8)} for n in range(32)],
        )
        for total in (func.sum(Everything.integer), func.sum(Everything.big), func.avg(Everything.integer)):
            statement = select(Everything.text, total).group_by(Everything.text).order_by(total.desc())
            walked, last = await forward(session, statement, size=3)
            assert len(walked) == 8
            assert await backward(session, statement, last) == walked


async def test_text_is_equal_as_its_column_says(backend_url: str):
    async with engine_with_tables(backend_url) as engine, AsyncSession(engine) as session:
        kind: Any = String()
        if engine.dialect.name == "postgresql":
            await session.execute(text("CREATE EXTENSION citext"))
            await session.execute(text("CREATE TABLE word (id serial PRIMARY KEY, word citext NOT NULL)"))
            kind = CITEXT()
        else:
            await session.execute(
                text("CREATE TABLE word (id INTEGER PRIMARY KEY, word TEXT NOT NULL COLLATE NOCASE)")
            )
        await session.execute(text("INSERT INTO word (word) VALUES ('b'), ('A'), ('B'), ('a'), ('b'), ('A')"))
        word = table("word", column("id", Integer), column("word", kind))
        statement = select(word.c.id).order_by(word.c.word, word.c.id)
        walked, last = await forward(session, statement, size=1)
        assert walked == [2, 4, 6, 1, 3, 5]
        assert await backward(session, statement, last) == walked
