"""A transaction's isolation level, without the execution option that asked for it."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession


async def take_connection_at(session: AsyncSession, level: str) -> None:
    """Give the session's transaction its connection, at this level until it goes back to the pool.

    SQLAlchemy sets the level, and has it reset by the pool, when it is given the option; kept afterwards, the option
    would say nothing, and send every statement past the native path, which honours none.
    """
    taken = await session.connection(execution_options={"isolation_level": level})
    connection: Any = taken.sync_connection
    if not (set(connection._execution_options) - {"isolation_level"}):
        connection._execution_options = connection.engine._execution_options
