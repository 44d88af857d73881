"""28. A canary in a failing INSERT and in the URL: in no log, exception, event or page of the inspector.

Mutations seen to fail: `make_engine` without `hide_parameters` (exceptions, logs); `quieten` does
nothing (aiosqlite's debug log has every parameter); `Database.__repr__` with the URL's
query; `NoAnswer` that keeps its parameters.
"""

import logging
import re
import traceback
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlmodel import select

from catalysis import Database, DatabaseSettings, NoAnswer, QueryEvent, Session, bulk_insert, subscribe
from catalysis.inspector import Inspector
from tests.models import Label, made

CANARY = "canary-9f31c7"


async def _by_flush(session: Session) -> None:
    session.add_all([Label(name=CANARY), Label(name=CANARY)])
    await session.flush()


async def _by_flush_alone(session: Session) -> None:
    session.add(Label(name=CANARY))
    await session.commit()
    session.add(Label(name=CANARY))
    await session.commit()


async def _by_text(session: Session) -> None:
    await session.execute(text("INSERT INTO no_table (name) VALUES (:name)"), {"name": CANARY})


async def _by_read(session: Session) -> None:
    await session.exec(select(Label).where(Label.name == CANARY, text("no_column = 1")))


async def _by_bulk(session: Session) -> None:
    await bulk_insert(session, Label, [{"name": CANARY} for _ in range(3)])


FAILING = {
    "flush": _by_flush,
    "flush alone": _by_flush_alone,
    "text": _by_text,
    "read": _by_read,
    "bulk": _by_bulk,
}


@pytest.fixture
async def events() -> AsyncIterator[list[QueryEvent]]:
    heard: list[QueryEvent] = []
    end = subscribe(heard.append)
    yield heard
    end()


def printed(error: BaseException) -> str:
    """What is printed of an error and its causes; SQLAlchemy's has the values in `params`, for who asks for them."""
    return "".join(traceback.format_exception(error)) + repr(error)


@pytest.mark.parametrize("name", FAILING)
async def test_no_value_is_told(
    backend_url: str, events: list[QueryEvent], caplog: pytest.LogCaptureFixture, name: str
):
    settings = DatabaseSettings(url=backend_url, echo=True)
    with caplog.at_level(logging.DEBUG):
        async with made(settings) as database:
            inspector = Inspector(database)
            with inspector.observing():
                with pytest.raises(Exception) as caught:  # noqa: PT011 - each fails in its own way
                    async with database.session() as session:
                        await FAILING[name](session)
                pages = await pages_of(inspector)
    said = _without_detail(printed(caught.value))
    assert CANARY not in said
    assert events
    assert CANARY not in repr(events)
    assert CANARY not in pages
    assert CANARY not in _without_detail(caplog.text)


def _without_detail(said: str) -> str:
    """PostgreSQL's own DETAIL quotes the key that exists already; the server sends it, and SQLAlchemy shows it."""
    return "\n".join(line for line in said.splitlines() if not line.startswith("DETAIL:"))


def _text(reply: httpx.Response) -> str:
    return reply.text


async def pages_of(inspector: Any) -> str:
    transport = httpx.ASGITransport(app=inspector, client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        first = [await client.get(path) for path in ("/", "/statements", "/transactions")]
        paths = sorted(
            set(re.findall(r'href="[^"]*?/?((?:statements|scopes)/\d+)"', "".join(map(_text, first))))
        )
        replies = first + [await client.get(f"/{path}") for path in paths]
    assert paths
    assert {reply.status_code for reply in replies} == {200}
    return "".join(reply.text for reply in replies)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://someone:{CANARY}@127.0.0.1:1/none",
        f"postgresql://127.0.0.1:1/none?password={CANARY}",
        f"postgresql://127.0.0.1:1/none?user={CANARY}&password={CANARY}",
    ],
)
async def test_no_password_is_told(url: str, caplog: pytest.LogCaptureFixture, events: list[QueryEvent]):
    with caplog.at_level(logging.DEBUG):
        database = Database(DatabaseSettings(url=url, connect_timeout=2))
        with pytest.raises(Exception) as caught:  # noqa: PT011 - each system refuses in its own way
            async with database.session() as session:
                await session.exec(select(Label))
        health = await database.health()
        await database.close()
    said = printed(caught.value) + repr(health) + repr(database) + repr(database.settings) + caplog.text
    assert CANARY not in said + repr(events) + repr(database.address)


def test_errors_of_ours_keep_no_parameters():
    error = NoAnswer("SELECT $1", (CANARY,), TimeoutError())
    assert CANARY not in str(error) + repr(error) + str(vars(error))
