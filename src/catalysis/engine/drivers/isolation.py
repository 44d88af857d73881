"""How a transaction begins at an isolation level that was asked for, where its driver leaves that to us."""

from typing import Literal

from sqlalchemy.ext.asyncio import AsyncSession

from catalysis.engine.alchemy.isolating import take_connection_at

Isolation = Literal["read committed", "repeatable read", "serializable"]

_BEGINS_LATE = {"aiosqlite": "BEGIN IMMEDIATE"}
"""Drivers that read outside the transaction until it writes, and the statement that begins it before.

Once begun, SQLite is serializable.  It takes the write lock at once, since a transaction that read first cannot wait
for it (SQLite documentation, "Isolation in SQLite").
"""


async def begin_at(session: AsyncSession, isolation: Isolation) -> None:
    """Give the session's transaction, which has sent nothing yet, its connection, at least as isolated as asked.

    Raises:
        DBAPIError: the database let nobody in, or the write lock was not free in time.
        ArgumentError: (SQLAlchemy's) the database has no such level.
    """
    late = _BEGINS_LATE.get(session.get_bind().dialect.driver)
    if late is None:
        await take_connection_at(session, isolation.upper())
    else:
        await (await session.connection()).exec_driver_sql(late)
