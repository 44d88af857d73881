"""`UnitOfWork`: the synchronous session inside a `Session`, where SQLAlchemy does what is not native.

Soft delete, the account of unsaved work, and the error for what was touched and not loaded step in here.
"""

import warnings
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeVar, cast, get_args
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, Executable, Result, event, inspect
from sqlalchemy.orm import ORMExecuteState, SessionTransaction
from sqlalchemy.orm import Session as SyncSession
from sqlalchemy.orm.interfaces import ORMOption
from sqlalchemy.util import await_only, memoized_property

from catalysis.distribution.statements import (
    DistributionCheck,
    check_executing,
    meet_uncarried,
    uncarried_by,
)
from catalysis.engine.alchemy.carrying import Uncarried
from catalysis.engine.alchemy.compiling import own_execution_options
from catalysis.engine.alchemy.greenlets import can_wait, in_scope
from catalysis.engine.alchemy.loading import autoflushes
from catalysis.engine.alchemy.sessions import (
    autoflush,
    is_flushing,
    must_flush_first,
)
from catalysis.engine.alchemy.sharding import chooses_connections
from catalysis.engine.alchemy.statements import remove_option
from catalysis.engine.alchemy.touches import Touch
from catalysis.engine.coverage import reading_of
from catalysis.engine.flush import flush_natively
from catalysis.engine.refresh import Flushed
from catalysis.engine.run import run
from catalysis.errors import LoadedWhenTouched, no_choice
from catalysis.events import NOT_A_READ, call_line, call_site, fallback_reason, sent_from
from catalysis.loading.batch import load_with_peers
from catalysis.loading.peers import Peers
from catalysis.models import NO_WAIT, not_loaded
from catalysis.soft_delete import (
    MARK,
    ONLY_UNMARKED,
    MeetDeleted,
    SoftDelete,
    check_unmarked,
    leave_out_marked,
    mark_of,
    marking_statement,
    may_be_marked,
    without_marked,
)
from catalysis.tenancy.instances import is_foreign
from catalysis.tenancy.sessions import TenantSession
from catalysis.tenancy.statements import limit_statement, of_tenant
from catalysis.unsaved import UnsavedWork

Entity = TypeVar("Entity")
Strictness = Literal["allow", "warn", "raise"]
STRICTNESSES = get_args(Strictness)


class UnitOfWork(TenantSession):
    """The synchronous session inside a `Session`; what `run_sync` hands to its function."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.unsaved = UnsavedWork()
        self.opened = call_line()
        self.sent_is_kept = self._joins_a_transaction()
        """Whether what was sent stays when the session is left: for somebody else to commit."""
        self._writing: list[str] = []
        self._sees_deleted = False
        self.batches = True
        """Whether a touch loads for all peers."""
        self.distribution_check: DistributionCheck = "allow"
        """What a statement that asks every shard of a distributed table does."""
        self.strictness: Strictness = "allow"
        """What a touch that has to load does in a managed scope."""

    @memoized_property
    def peers(self) -> Peers:
        """Who was loaded together."""
        return Peers()

    @memoized_property
    def flushed(self) -> Flushed:
        """What the last flush wrote, to be refreshed together."""
        return Flushed()

    def _joins_a_transaction(self) -> bool:
        if not isinstance(self.bind, Connection) or not self.bind.in_transaction():
            return False
        mode = self.join_transaction_mode
        return mode == "rollback_only" or (
            mode == "conditional_savepoint" and not self.bind.in_nested_transaction()
        )

    own_statement_hooks = 1
    own_flush_hooks = 1

    def plan_flags(self) -> object:
        """What `with_defaults` adds depends on whether marked rows are seen, and whether there is a tenant."""
        return self._sees_deleted, self.tenancy.kind

    def with_defaults(self, statement: Any) -> Any:
        """The statement limited to the session's tenant, and without marked rows unless it asks for them."""
        return of_tenant(without_marked(statement, sees_deleted=self._sees_deleted), self.tenancy)

    def check_plan(self, statement: Any, engine: Engine) -> None:
        """See to it that no marked row, and no other tenant's, comes through."""
        check_unmarked(statement, engine)
        super().check_plan(statement, engine)

    def uncarried(self, statement: Any, engine: Engine) -> Uncarried | None:
        """See `HookedSession`; whether that matters is decided at each execution."""
        return uncarried_by(statement, engine)

    def meet_uncarried(self, found: Uncarried, options: Mapping[str, Any]) -> None:
        """Warn or raise as the statement or the session says."""
        meet_uncarried(found, options, self.distribution_check)

    def _heed_strictness(self, touch: Touch) -> None:
        info: Mapping[Any, Any] = {} if touch.relationship is None else touch.relationship.info
        strictness = info.get("strict_loading", self.strictness)
        if strictness == "allow":
            return
        if strictness not in STRICTNESSES:
            raise no_choice(f"strict_loading in info of {touch.relationship}", strictness, STRICTNESSES)
        error = not_loaded(touch.state, touch.name, f"it was touched, and strict_loading says {strictness!r}")
        if strictness == "raise":
            raise error
        site = call_site()
        if site is None:
            warnings.warn(LoadedWhenTouched(str(error)), stacklevel=2)
        else:
            warnings.warn_explicit(LoadedWhenTouched(str(error)), None, site.file, site.line)

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
            self._flush_first()
        return await_only(sent_from(call_line(), run, self, reading))

    def _flush_first(self) -> None:
        if must_flush_first(self):
            with self.turn.waited_for():
                autoflush(self)

    def touched(
        self, touch: Touch, statement: Executable, execution_options: Mapping[str, Any]
    ) -> Result[*tuple[Any, ...]] | None:
        """Load what was touched for all peers of the instance, or say that nothing can wait for it.

        A session over several databases loads it for the instance alone: where from is for its own functions to say.

        Raises:
            AttributeNotLoaded: nothing can wait here; SQLAlchemy would fail in the driver, with a bare MissingGreenlet.
        """
        if not can_wait():
            raise not_loaded(touch.state, touch.name, f"it was touched where {NO_WAIT}")
        if in_scope():
            self._heed_strictness(touch)
        if self.batches and not is_flushing(self) and not chooses_connections(self):
            if autoflushes({**own_execution_options(statement), **execution_options}):
                self._flush_first()
            return load_with_peers(self, self.peers, touch)
        return None

    def has_flushed(self, states: Mapping[Any, set[Any]]) -> None:
        """Remember it for `refresh`."""
        self.flushed.remember(states)

    def visible(self, instance: object) -> bool:
        """A deleted row is not found by its key; where the mark is not loaded, the database is asked.

        The same goes for another tenant's.
        """
        return not (may_be_marked(instance) or is_foreign(instance, self.tenancy))

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
        """See to soft delete, to tenants, and to the account of what is written."""
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
        limit_statement(executing, self.tenancy)
        check_executing(executing, self.distribution_check)
        with self._seeing_deleted():  # an update by key is of marked rows too
            if executing.is_update and (result := self.update_own_rows(executing)) is not None:
                return result
        if (description := self.unsaved.written_by(executing)) is not None:
            self._writing.append(description)
        return None

    def delete(self, instance: object) -> None:
        """Delete at the next flush; `SoftDelete` instances are marked, and those the delete cascades to."""
        with self._loading_alone():  # what cascades from one instance is nobody else's
            self._delete(instance)

    @contextmanager
    def _loading_alone(self) -> Generator[None]:
        before, self.batches = self.batches, False
        try:
            yield
        finally:
            self.batches = before

    def _delete(self, instance: object) -> None:
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
        with self._seeing_deleted(), self._loading_alone():
            super().delete(instance)

    def flush(self, objects: Sequence[Any] | None = None) -> None:
        """As the parent; what it loads to keep rows in order includes the marked ones."""
        reason = fallback_reason.get()
        try:
            with self._seeing_deleted():
                super().flush(objects)
        finally:
            fallback_reason.set(reason)  # the flush may have had one of its own

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


@event.listens_for(UnitOfWork, "before_flush")
def _before_flush(session: UnitOfWork, context: Any, instances: Any) -> None:
    if not flush_natively(session, context):
        changed = [*session.new, *session.dirty, *session.deleted]
        session.about_to_flush([inspect(each) for each in changed])


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


def with_unit_of_work(given: type[SyncSession]) -> type[UnitOfWork]:
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
