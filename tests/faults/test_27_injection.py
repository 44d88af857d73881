"""27. Names that come from outside, to sort, filter or write by: only mapped columns are accepted, and no SQL is made.

Mutation seen to fail: `RowReader.known` returns at once.
"""

import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlmodel import select

from catalysis import (
    BulkError,
    Database,
    InvalidPage,
    QueryEvent,
    bulk_insert,
    paginate,
    paginate_keyset,
    update_where,
    upsert,
)
from catalysis.events import heard_in_context
from tests.models import Label, made

MAPPED = {"id", "created_at", "updated_at", "deleted_at", "name"}
HOSTILE = st.one_of(
    st.sampled_from(
        [
            "name; DROP TABLE label",
            'name" = 1 --',
            "name) VALUES ('x'); --",
            "1=1",
            "(SELECT 1)",
            "Name",
            "label.name",
            "name ",
            "__table__",
            "metadata",
            "registry",
            "pg_sleep(1)",
            "\x00",
            "'; --",
            "None",
        ]
    ),
    st.text(string.printable, max_size=30),
    st.text(max_size=20),
).filter(lambda name: name not in MAPPED)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('injection') / 'x.db'}"


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=HOSTILE)
async def test_names_that_are_no_columns_are_refused_and_nothing_is_sent(url: str, name: str):
    async with made(url) as database, database.session() as session:
        sent: list[QueryEvent] = []
        with heard_in_context(sent.append):
            with pytest.raises(BulkError):
                await bulk_insert(session, Label, [{"name": "x", name: 1}])
            with pytest.raises(BulkError):
                await update_where(session, Label, Label.name == "x", values={name: 1})
            with pytest.raises(BulkError):
                await upsert(session, Label, [{"name": "x"}], key=name)
            with pytest.raises(BulkError):
                await upsert(session, Label, [{"name": "x"}], key="name", update=[name])
            with pytest.raises(InvalidPage):
                await paginate_keyset(session, select(Label).order_by(Label.name), after=name or "x")
        assert [event.sql for event in sent] == []


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=st.one_of(st.sampled_from(["' OR 1=1 --", "%", "\\"]), st.text(string.printable, max_size=30)))
async def test_values_are_parameters(url: str, value: str):
    async with made(url) as database, database.session() as session:
        sent: list[QueryEvent] = []
        mark = f"mark {value}"
        with heard_in_context(sent.append):
            session.add(Label(name=mark))
            await session.flush()
            found = await paginate(session, select(Label).where(Label.name == mark), size=5)
            assert [each.name for each in found.items] == [mark]
        assert not any("mark" in event.sql for event in sent)
        await session.rollback()


async def test_a_cursor_of_another_order_is_refused(database: Database):
    async with database.session() as session:
        session.add_all([Label(name=f"{n}") for n in range(4)])
        await session.flush()
        page = await paginate_keyset(session, select(Label).order_by(Label.name), size=2)
        for other in (Label.created_at, Label.id):
            with pytest.raises(InvalidPage):
                await paginate_keyset(session, select(Label).order_by(other), after=page.next_cursor, size=2)
        await session.rollback()
