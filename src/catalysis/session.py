"""`Session`: SQLModel's `AsyncSession`, with the traps removed.

What differs from the parent is decided here: soft delete, errors that name the relationship, parents that come
out once, and a warning when work is left behind.  How a statement runs is the engine's business.
"""

import warnings
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, cast, overload
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Executable, Result, event, inspect
from sqlalchemy.exc import NoResultFound
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncResult
from sqlalchemy.ext.asyncio import AsyncSession as SQLAlchemyAsyncSession
from sqlalchemy.orm import ORMExecuteState, SessionTransaction
from sqlalchemy.orm import Session as SyncSession
from sqlalchemy.orm.interfaces import ORMOption
from sqlalchemy.sql.selectable import TypedReturnsRows
from sqlalchemy.util import EMPTY_DICT as EMPTY
from sqlalchemy.util import await_only, greenlet_spawn
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from catalysis.engine.alchemy.sessions import (
    ABSENT,
    UNSURE,
    HookedSession,
    Turn,
    autoflush,
    awaited_attribute,
    can_wait,
    holds_nothing,
    is_unflushed,
    known_instance,
    must_flush_first,
    plain_key,
)
from catalysis.engine.alchemy.statements import remove_option
from catalysis.engine.coverage import getting_of, reading_of
from catalysis.engine.plan import Reading
from catalysis.engine.run import run, run_one
from catalysis.engine.stream import stream
from catalysis.errors import UncommittedChanges
from catalysis.events import NOT_A_READ, CallSite, call_site, fallback_reason
from catalysis.models import not_loaded
from catalysis.soft_delete import (
    MARK,
    ONLY_UNMARKED,
    MeetDeleted,
    SoftDelete,
    leave_out_marked,
    mark_of,
    marking_statement,
    may_be_marked,
    without_marked,
)
from catalysis.unsaved import UnsavedWork

Entity = TypeVar("Entity")
Ts = TypeVarTuple("Ts")
Parameters = Mapping[str, Any] | Sequence[Mapping[str, Any]]


class UnitOfWork(HookedSession):
    """The synchronous session inside a `Session`; what `run_sync` hands to its function."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.unsaved = UnsavedWork()
        self.opened_at: CallSite | None = call_site()
        """The user's line that opened the session."""
        self.sent_is_kept = self._joins_a_transaction()
        """Whether what was sent stays when the session is left: for somebody else to commit."""
        self._writing: list[str] = []
        self._sees_deleted = False
        self.turn = Turn()

    def _joins_a_transaction(self) -> bool:
        if not isinstance(self.bind, Connection) or not self.bind.in_transaction():
            return False
        mode = self.join_transaction_mode
        return mode == "rollback_only" or (
            mode == "conditional_savepoint" and not self.bind.in_nested_transaction()
        )

    own_statement_hooks = 1

    def plan_flags(self) -> object:
        """Whether marked rows are seen decides what `with_defaults` adds."""
        return self._sees_deleted

    def with_defaults(self, statement: Any) -> Any:
        """The statement without marked rows, unless it asks for them."""
        return without_marked(statement, sees_deleted=self._sees_deleted)

    def execute_natively(
        self,
        statement: Executable,
        params: Any,
        execution_options: Mapping[str, Any],
        bind_arguments: Mapping[str, Any] | None,
    ) -> Result[*tuple[Any, ...]] | None:
        """From inside a greenlet: a lazy load, an eager one, or `run_sync`."""
        if fallback_reason.get() != NOT_A_READ:
            return None
        reading = reading_of(self, statement, params, execution_options, bind_arguments)
        if isinstance(reading, str):
            return None
        if reading.wants_autoflush:
            autoflush(self)
        return await_only(run(self, reading))

    def visible(self, instance: object) -> bool:
        """A deleted row is not found by its key; where the mark is not loaded, the database is asked."""
        return not may_be_marked(instance)

    def about_to_execute(self) -> int:
        """Statements may lead to others, so what is being written is a stack."""
        return len(self._writing)

    def has_executed(self, before: int, *, rows: int | None, failed: bool) -> None:
        """Note what has been written."""
        written, self._writing[before:] = self._writing[before:], []
        if not failed and rows != 0:
            for description in written:
                self.unsaved.note(description)

    def before_statement(self, executing: ORMExecuteState) -> Any:
        """See to soft delete, and say so if nothing can wait for the statement."""
        waits = executing.is_select and executing.is_orm_statement and not can_wait()
        if waits and (touched := awaited_attribute(executing)):
            # SQLAlchemy would go on and fail inside the driver with a bare MissingGreenlet.
            raise not_loaded(*touched, "it was touched")
        if (marking := marking_statement(executing)) is not None:
            own = {
                key: each for key, each in executing.bind_arguments.items() if key not in ("mapper", "clause")
            }
            options = executing.local_execution_options
            return SyncSession.execute(self, marking, execution_options=options, bind_arguments=own)
        if self._sees_deleted:
            remove_option(executing, ONLY_UNMARKED)
        else:
            leave_out_marked(executing)
        if (description := self.unsaved.written_by(executing)) is not None:
            self._writing.append(description)
        return None

    def delete(self, instance: object) -> None:
        """Delete at the next flush; `SoftDelete` instances are marked, and those the delete cascades to."""
        if not isinstance(instance, SoftDelete) or not (state := inspect(instance)).has_identity:
            return super().delete(instance)  # which says so if it is not persistent
        self.add(instance)
        reached = [each for each, *_ in state.mapper.cascade_iterator("delete", state)]
        for each in [instance, *reached]:
            if isinstance(each, SoftDelete) and getattr(each, MARK) is None:
                setattr(each, MARK, mark_of(type(each)))

    def delete_all(self, instances: Iterable[object]) -> None:
        """`delete` for each."""
        for instance in instances:
            self.delete(instance)

    def hard_delete(self, instance: object) -> None:
        """Delete the row itself at the next flush, with all that its cascades reach, marked or not."""
        state: Any = inspect(instance)
        # What was loaded without marked rows would leave those behind, to break a foreign key.
        filtered = [
            relation.key
            for relation in state.mapper.relationships
            if relation.uselist and not state.attrs[relation.key].history.has_changes()
        ]
        if filtered and instance in self:
            self.expire(instance, filtered)
        with self._seeing_deleted():
            super().delete(instance)

    def flush(self, objects: Sequence[Any] | None = None) -> None:
        """As the parent; what it loads to keep rows in order includes the marked ones."""
        with self._seeing_deleted():
            super().flush(objects)

    @contextmanager
    def _seeing_deleted(self) -> Generator[None]:
        before, self._sees_deleted = self._sees_deleted, True
        try:
            yield
        finally:
            self._sees_deleted = before

    def merge(
        self, instance: Entity, *, load: bool = True, options: Sequence[ORMOption] | None = None
    ) -> Entity:
        """As the parent; a deleted row is met under its key, instead of being inserted once more."""
        return super().merge(instance, load=load, options=[*(options or ()), MeetDeleted()])

    def merge_all(
        self, instances: Iterable[Entity], *, load: bool = True, options: Sequence[ORMOption] | None = None
    ) -> Sequence[Entity]:
        """`merge` for each."""
        return super().merge_all(instances, load=load, options=[*(options or ()), MeetDeleted()])


@event.listens_for(UnitOfWork, "do_orm_execute")
def _before_statement(executing: ORMExecuteState) -> Any:
    session: Any = executing.session
    return session.before_statement(executing)


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

    def __init__(
        self,
        bind: AsyncEngine | AsyncConnection | None = None,
        *,
        binds: dict[Any, AsyncEngine | AsyncConnection] | None = None,
        sync_session_class: type[SyncSession] | None = None,
        **kw: Any,
    ) -> None:
        """As SQLAlchemy's `AsyncSession`; a session class given is made to do what `UnitOfWork` does."""
        own = _with_unit_of_work(sync_session_class or self.sync_session_class)
        super().__init__(bind, binds=binds, sync_session_class=own, **kw)

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
        return await self._execute(statement, params, **options)

    async def _execute(
        self,
        statement: Any,
        params: Any = None,
        *,
        execution_options: Mapping[str, Any] = EMPTY,
        bind_arguments: dict[str, Any] | None = None,
        **internal: Any,
    ) -> Any:
        session = self.sync_session
        reason = "an internal option of SQLAlchemy's" if any(internal.values()) else None
        if reason is None:
            reading = reading_of(session, statement, params, execution_options, bind_arguments)
            if isinstance(reading, str):
                reason = reading
            else:
                await self._flush_before(reading)
                result = await run(session, reading)
                if result is not None:
                    return result
                reason = "only SQLAlchemy can say what is wrong with it"
        token = fallback_reason.set(reason)
        try:
            async with session.turn:
                return await SQLAlchemyAsyncSession.execute(
                    self,
                    statement,
                    params,
                    execution_options=execution_options,
                    bind_arguments=bind_arguments,
                    **internal,
                )
        finally:
            fallback_reason.reset(token)

    async def _flush_before(self, reading: Reading) -> None:
        session = self.sync_session
        if reading.wants_autoflush and must_flush_first(session):
            async with session.turn:
                await greenlet_spawn(autoflush, session)

    if not TYPE_CHECKING:  # the parent's overloads stand

        async def exec(self, statement: Any, *, params: Any = None, **options: Any) -> Any:
            """As SQLModel's: scalars where one thing is selected, rows where several are."""
            result = await self._execute(statement, params, **options)
            return result.scalars() if isinstance(statement, SelectOfScalar) else result

        async def get(self, entity: Any, ident: Any, **options: Any) -> Any:
            """The instance with this key, from the session if it is there, or None."""
            if not options and (plain := plain_key(entity, ident)) is not None:
                session = self.sync_session
                found = known_instance(session, *plain)
                if found is ABSENT:
                    reading = getting_of(session, *plain)
                    if not isinstance(reading, str):
                        await self._flush_before(reading)
                        loaded = await run_one(session, reading)
                        if loaded is not None:
                            return loaded[0]
                elif found is not UNSURE:
                    return found
            return await super().get(entity, ident, **options)

        async def get_one(self, entity: Any, ident: Any, **options: Any) -> Any:
            """The instance with this key; raises `NoResultFound` if there is none."""
            if options:
                return await super().get_one(entity, ident, **options)
            instance = await self.get(entity, ident)
            if instance is None:
                raise NoResultFound("No row was found when one was required")
            return instance

        async def stream(
            self,
            statement: Any,
            params: Any = None,
            *,
            execution_options: Mapping[str, Any] = EMPTY,
            bind_arguments: dict[str, Any] | None = None,
            **internal: Any,
        ) -> Any:
            """The rows as they are asked for, through a cursor on the server, in a transaction."""
            session, options = self.sync_session, execution_options
            reason = "an internal option of SQLAlchemy's" if any(internal.values()) else None
            if reason is None:
                reading = reading_of(session, statement, params, options, bind_arguments, streams=True)
                if isinstance(reading, str):
                    reason = reading
                else:
                    await self._flush_before(reading)
                    streamed = await stream(session, reading)
                    if streamed is not None:
                        size = reading.options.get("yield_per")
                        return AsyncResult(streamed.yield_per(size) if size else streamed)
                    reason = "rows that only SQLAlchemy can load part by part"
            token = fallback_reason.set(reason)
            try:
                async with session.turn:
                    return await super().stream(
                        statement,
                        params,
                        execution_options=options,
                        bind_arguments=bind_arguments,
                        **internal,
                    )
            finally:
                fallback_reason.reset(token)

        async def scalars(self, statement: Any, params: Any = None, **options: Any) -> Any:
            """The first of each row."""
            return (await self._execute(statement, params, **options)).scalars()

        async def scalar(self, statement: Any, params: Any = None, **options: Any) -> Any:
            """The first of the first row; None if there is none."""
            result = await self._execute(statement, params, **options)
            return result.scalar() if isinstance(result, Result) else result  # of a sequence: its value

    async def commit(self) -> None:
        """As the parent; without a task switch where nothing was sent and nothing has to be."""
        session = self.sync_session
        if holds_nothing(session) and not is_unflushed(session) and not _hears_outcome(session):
            session.commit()
        else:
            await super().commit()

    async def rollback(self) -> None:
        """As the parent; without a task switch where nothing was sent."""
        if holds_nothing(self.sync_session) and not _hears_outcome(self.sync_session):
            self.sync_session.rollback()
        else:
            await super().rollback()

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
            self._left_by_error = False
            if holds_nothing(self.sync_session) and not _hears_end(self.sync_session):
                self.sync_session.close()
            else:
                await super().close()

    async def __aexit__(self, type_: Any, value: Any, traceback: Any) -> None:
        self._left_by_error = type_ is not None  # the error is the report; the rollback is on purpose
        if holds_nothing(self.sync_session):
            await self.close()  # waits for nothing, so that nothing can interrupt it
        else:
            await super().__aexit__(type_, value, traceback)

    def _report_left_behind(self) -> None:
        session = self.sync_session
        if not session.unsaved.count and not is_unflushed(session):
            return
        if not (lost := session.unsaved.left_behind(session, sent_is_kept=session.sent_is_kept)):
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


def _hears_end(session: Any) -> bool:
    """Whether somebody but us, who may want to wait for the database, hears of the end of a transaction."""
    return len(session.dispatch.after_transaction_end) > 1


def _hears_outcome(session: Any) -> bool:
    """The same for a commit or rollback, which more is told of."""
    heard = session.dispatch
    soft = len(heard.after_soft_rollback) > 1
    return bool(heard.before_commit or heard.after_commit or heard.after_rollback or soft) or _hears_end(
        session
    )


def _with_unit_of_work(given: type[SyncSession]) -> type[UnitOfWork]:
    """The session class given, outermost, over ours."""
    if issubclass(given, UnitOfWork):
        return given
    if issubclass(UnitOfWork, given):
        return UnitOfWork
    if given not in _mixed:
        bases: tuple[Any, ...] = (given, UnitOfWork)
        _mixed[given] = cast("type[UnitOfWork]", type(given.__name__, bases, {}))
    return _mixed[given]


_mixed: WeakKeyDictionary[type[SyncSession], type[UnitOfWork]] = WeakKeyDictionary()
