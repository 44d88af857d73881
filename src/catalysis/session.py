"""`Session`: SQLModel's `AsyncSession`, with the traps removed.

What differs from the parent is decided here: soft delete, errors that name the relationship, parents that come
out once, and a warning when work is left behind.  How a statement runs is the engine's business.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TypeVarTuple, overload

from sqlalchemy import Executable, Result, event, inspect
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.ext.asyncio import AsyncSession as SQLAlchemyAsyncSession
from sqlalchemy.orm import ORMExecuteState, SessionTransaction
from sqlalchemy.sql.selectable import TypedReturnsRows
from sqlalchemy.util import EMPTY_DICT as EMPTY
from sqlalchemy.util import greenlet_spawn
from sqlmodel.ext.asyncio.session import AsyncSession

from catalysis.engine.alchemy import HookedSession, add_option, awaited_attribute, can_wait
from catalysis.errors import UncommittedChanges
from catalysis.events import CallSite, call_site
from catalysis.models import not_loaded
from catalysis.soft_delete import (
    MARK,
    ONLY_UNMARKED,
    SoftDelete,
    is_marked,
    mark_of,
    marking_statement,
    wants_filter,
)
from catalysis.unsaved import UnsavedWork

Ts = TypeVarTuple("Ts")
Parameters = Mapping[str, Any] | Sequence[Mapping[str, Any]]


class UnitOfWork(HookedSession):
    """The synchronous session inside a `Session`; what `run_sync` hands to its function."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.unsaved = UnsavedWork()
        self.opened_at: CallSite | None = call_site()

    def visible(self, instance: object) -> bool:
        """A deleted row is not found by its key."""
        return not is_marked(instance)

    def delete(self, instance: object) -> None:
        """Delete at the next flush; `SoftDelete` instances are marked, and those the delete cascades to."""
        if not isinstance(instance, SoftDelete):
            return super().delete(instance)
        if not (state := inspect(instance)).has_identity:
            return super().delete(instance)  # which says that it is not persistent
        self.add(instance)
        reached = [each for each, *_ in state.mapper.cascade_iterator("delete", state)]
        for each in [instance, *reached]:
            if isinstance(each, SoftDelete) and not is_marked(each):
                setattr(each, MARK, mark_of(type(each)))

    def hard_delete(self, instance: object) -> None:
        """Delete the row itself at the next flush."""
        super().delete(instance)


@event.listens_for(UnitOfWork, "do_orm_execute")
def _before_statement(executing: ORMExecuteState) -> Any:
    session: Any = executing.session
    waits = executing.is_select and executing.is_orm_statement and not can_wait()
    if waits and (touched := awaited_attribute(executing)):
        # SQLAlchemy would go on and fail inside the driver with a bare MissingGreenlet.
        raise not_loaded(*touched, "it was touched")
    if (marking := marking_statement(executing)) is not None:
        bind = {key: each for key, each in executing.bind_arguments.items() if key == "bind"}
        options = executing.local_execution_options
        return session.execute(marking, executing.parameters, execution_options=options, bind_arguments=bind)
    if wants_filter(executing):
        add_option(executing, ONLY_UNMARKED)
    session.unsaved.executed(executing)
    return None


@event.listens_for(UnitOfWork, "after_flush")
def _after_flush(session: UnitOfWork, context: Any) -> None:
    session.unsaved.flushed(session)


@event.listens_for(UnitOfWork, "after_transaction_create")
def _after_begin(session: UnitOfWork, transaction: SessionTransaction) -> None:
    if transaction.nested:
        session.unsaved.savepoint_begun(transaction)


@event.listens_for(UnitOfWork, "after_soft_rollback")
def _after_rollback(session: UnitOfWork, transaction: SessionTransaction) -> None:
    if transaction.nested:
        session.unsaved.savepoint_rolled_back(transaction)


@event.listens_for(UnitOfWork, "after_transaction_end")
def _after_end(session: UnitOfWork, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.unsaved.transaction_ended()


class Session(AsyncSession):
    """SQLModel's `AsyncSession` by constructor, methods and results; also `async_sessionmaker(class_=Session)`.

    Differs from it in this: `execute` is as welcome as `exec`; joined collections need no `.unique()`;
    `SoftDelete` models are filtered and marked; touching what was not loaded raises `RelationshipNotLoaded`;
    leaving with work that was not committed warns `UncommittedChanges`.
    """

    sync_session_class = UnitOfWork
    sync_session: UnitOfWork  # pyright: ignore[reportIncompatibleVariableOverride] - narrowed, and set once

    _left_by_error = False

    @overload
    async def execute(
        self,
        statement: TypedReturnsRows[*Ts],
        params: Parameters | None = None,
        *,
        execution_options: Mapping[str, Any] = EMPTY,
        bind_arguments: dict[str, Any] | None = None,
        **internal: Any,
    ) -> Result[*Ts]: ...
    @overload
    async def execute(
        self,
        statement: Executable,
        params: Parameters | None = None,
        *,
        execution_options: Mapping[str, Any] = EMPTY,
        bind_arguments: dict[str, Any] | None = None,
        **internal: Any,
    ) -> Result[*tuple[Any, ...]]: ...
    async def execute(
        self, statement: Executable, params: Parameters | None = None, **options: Any
    ) -> Result[*tuple[Any, ...]]:
        """The statement's rows, as SQLAlchemy's own; SQLModel deprecates it for `exec`, here both are welcome."""
        return await SQLAlchemyAsyncSession.execute(self, statement, params, **options)

    async def delete(self, instance: object, *, hard: bool = False) -> None:
        """Mark the instance as deleted at the next flush.

        An instance of a `SoftDelete` model is marked, together with the `SoftDelete` instances that its "delete"
        cascades reach; anything else, and everything with `hard=True`, is removed with its cascades.

        Raises:
            InvalidRequestError: the instance is not persistent.
        """
        remove = self.sync_session.hard_delete if hard else self.sync_session.delete
        await greenlet_spawn(remove, instance)

    async def restore(self, instance: SoftDelete) -> None:
        """Take the mark off a deleted instance; what its deletion cascaded to stays deleted."""
        setattr(instance, MARK, None)
        self.add(instance)

    async def close(self) -> None:
        """Close as the parent does, and warn `UncommittedChanges` if work is lost by it."""
        try:
            if not self._left_by_error:
                self._report_left_behind()
        finally:  # warnings may be errors, and the connection goes back all the same
            await super().close()

    async def __aexit__(self, type_: Any, value: Any, traceback: Any) -> None:
        self._left_by_error = type_ is not None  # the error is the report; the rollback is on purpose
        await super().__aexit__(type_, value, traceback)

    def _report_left_behind(self) -> None:
        session = self.sync_session
        if not isinstance(session, UnitOfWork):  # pyright: ignore[reportUnnecessaryIsInstance] - or the user's own class
            return
        # On a connection inside somebody else's transaction, what was sent stays for them to commit.
        joined = isinstance(self.bind, AsyncConnection) and self.bind.in_transaction()
        if not (lost := session.unsaved.left_behind(session, sent_is_kept=joined)):
            return
        site = session.opened_at
        message = UncommittedChanges(
            f"The session opened at {site} was left without a commit, and this is lost: {', '.join(lost)}.  "
            "Add `await session.commit()`, or `await session.rollback()` to give it up on purpose."
        )
        if site is None:
            warnings.warn(message, stacklevel=3)
        else:
            warnings.warn_explicit(message, None, site.file, site.line)
