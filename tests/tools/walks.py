"""Going through all pages by cursor, and taking cursors apart."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from catalysis.tools.keyset import KeysetPage, paginate_keyset


async def forward(session: AsyncSession, statement: Any, size: int) -> tuple[list[Any], KeysetPage[Any]]:
    """The items of all pages from the first, and the last page."""
    page = await paginate_keyset(session, statement, size=size)
    assert page.previous_cursor is None
    items = list(page.items)
    while page.next_cursor is not None:
        assert len(items) < 1000
        page = await paginate_keyset(session, statement, after=page.next_cursor, size=size)
        items += page.items
    return items, page


async def backward(session: AsyncSession, statement: Any, last: KeysetPage[Any]) -> list[Any]:
    """The items of all pages before the last one, and of that."""
    page, items = last, list(last.items)
    while page.previous_cursor is not None:
        assert len(items) < 1000
        page = await paginate_keyset(session, statement, before=page.previous_cursor, size=last.size)
        items = page.items + items
    return items


def opened(cursor: str) -> list[Any]:
    return json.loads(urlsafe_b64decode(cursor + "=="))


def closed(content: Any) -> str:
    return urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


def forged(cursor: str, value: Any, place: int = 0) -> str:
    content = opened(cursor)
    content[3][place - 1] = value
    return closed(content)
