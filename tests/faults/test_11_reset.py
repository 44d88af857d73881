"""11. The connection is reset in the middle of a query: a typed error, and the connection is thrown away.

Mutations seen to fail: `ATTEMPTS = 1` (the read outside a transaction is not tried again); `is_replayable` without
`connection_invalidated`.
"""

from typing import Any

import pytest
from sqlalchemy import func, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import select

from catalysis import Session
from tests.faults.checks import goes_on, names, seen_from_outside, through_a_proxy
from tests.models import Label

MARK = b"reset here"


def _asked(in_transaction: bool) -> Any:
    columns = [Label.name, func.now()] if in_transaction else [Label.name]
    return select(*columns).where(Label.name == MARK.decode())


@pytest.mark.parametrize("by_sqlalchemy", [False, True])
async def test_in_a_transaction_it_is_a_typed_disconnect(postgres_url: str, by_sqlalchemy: bool):
    async with (
        through_a_proxy(postgres_url) as (database, faults, _),
        seen_from_outside(postgres_url) as server,
    ):
        await goes_on(database)
        faults.cut(MARK, "reset")
        async with database.session() as session:
            statement = text("SELECT :it").bindparams(it=MARK.decode()) if by_sqlalchemy else _asked(True)
            with pytest.raises(DBAPIError) as caught:
                await session.execute(statement)
            assert faults.struck.is_set()
            assert caught.value.connection_invalidated
        await server.none_in_transaction()
        await goes_on(database)


async def test_a_read_outside_a_transaction_is_tried_again(postgres_url: str):
    async with through_a_proxy(postgres_url) as (database, faults, _):
        await goes_on(database)
        faults.cut(MARK, "reset")
        async with database.session() as session:
            assert (await session.execute(_asked(False))).all() == []
        assert faults.struck.is_set()
        await goes_on(database)


async def test_a_function_is_replayed(postgres_url: str):
    async with through_a_proxy(postgres_url) as (database, faults, direct):
        runs = 0

        async def work(session: Session) -> None:
            nonlocal runs
            runs += 1
            session.add(Label(name=f"run {runs}"))
            await session.flush()
            await session.execute(_asked(True))

        faults.cut(MARK, "reset")
        await database.transaction(work)
        assert runs == 2
        assert await names(direct) == ["run 2"]
        await goes_on(database)
