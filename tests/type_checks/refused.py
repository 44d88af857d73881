"""Common mistakes that a type checker reports.  An ignore that ignores nothing is an error here, so each must be found.

Never run; checked by `make check`.
"""
# pyright: reportUnnecessaryTypeIgnoreComment=true

from sqlalchemy import select as sqlalchemy_select
from sqlmodel import select

from catalysis import Database, Session
from tests.type_checks.accepted import Task


async def none_is_not_looked_for(session: Session) -> str:
    task = (await session.execute(sqlalchemy_select(Task))).scalar_one_or_none()
    return task.title  # pyright: ignore[reportOptionalMemberAccess]


async def first_may_be_none(session: Session) -> str:
    task = (await session.exec(select(Task))).first()
    return task.title  # pyright: ignore[reportOptionalMemberAccess]


async def await_is_forgotten(session: Session) -> None:
    session.exec(select(Task)).all()  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    session.commit()  # pyright: ignore[reportUnusedCoroutine]


def sync_and_async_are_mixed(session: Session) -> None:
    with session:  # pyright: ignore[reportGeneralTypeIssues]
        pass


async def the_result_is_taken_for_the_object(session: Session) -> str:
    task = await session.exec(select(Task))
    return task.title  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]


async def a_transaction_is_misused(database: Database) -> None:
    @database.transactional()
    async def decorated(session: Session, number: int) -> None: ...

    await decorated(1)
    await decorated("1")  # pyright: ignore[reportArgumentType]
    async with database.session() as session:
        await decorated(session, 1)  # pyright: ignore[reportCallIssue]

    @database.transactional()  # pyright: ignore[reportArgumentType]
    async def without_a_session(number: int) -> None: ...

    await database.transaction(decorated, isolation="snapshot")  # pyright: ignore[reportArgumentType]
