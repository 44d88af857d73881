"""The synchronous session inside ours: its state, and the places to step in where SQLAlchemy offers no event."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from sqlalchemy import Connection, Engine, Executable, Result, inspect
from sqlalchemy.orm import Mapper, SessionTransaction, SessionTransactionOrigin
from sqlalchemy.orm.session import SessionTransactionState
from sqlalchemy.util import memoized_property
from sqlmodel.orm.session import Session as SyncSession

from catalysis.engine.alchemy.carrying import Uncarried
from catalysis.engine.alchemy.committing import CommittingSession
from catalysis.engine.alchemy.greenlets import can_wait
from catalysis.engine.alchemy.owning import LocalSetting, Owned
from catalysis.engine.alchemy.touches import Touch, touch_of
from catalysis.engine.alchemy.turns import Turn
from catalysis.events import CallSite, CodeLine


class HookedSession(CommittingSession):
    """The synchronous session inside a `Session`, with a place to step in where SQLAlchemy offers no event."""

    opened: CodeLine | None = None
    own_flush_hooks = 0
    """How many `after_flush` listeners belong to the class."""
    own_statement_hooks = 0
    """How many `do_orm_execute` listeners belong to the class; the native path does without them."""

    @property
    def opened_at(self) -> CallSite | None:
        """The user's line that opened the session."""
        return None if self.opened is None else self.opened.site

    @memoized_property
    def turn(self) -> Turn:
        """Who may use the transaction now."""
        return Turn()

    def visible(self, instance: object) -> bool:
        """Whether an instance found in the identity map may be handed out for its key."""
        return True

    def has_flushed(self, states: Mapping[Any, set[Any]]) -> None:
        """A flush has written these, by mapper, and their keys are known."""

    def about_to_execute(self) -> int:
        """A statement is on its way; what is returned is given back when it has ended."""
        return 0

    def has_executed(self, before: int, *, rows: int | None, failed: bool) -> None:
        """The statement has ended; `rows` are those it changed, where the driver says."""

    def with_defaults(self, statement: Any) -> Any:
        """The statement as this session runs it; what it adds must depend on `plan_flags` and its options alone."""
        return statement

    def plan_flags(self) -> object:
        """What of the session's state `with_defaults` depends on; hashable."""
        return None

    def check_plan(self, statement: Any, engine: Engine) -> None:
        """Refuse a statement that `with_defaults` gave and that must not be sent, by raising; asked once a plan."""

    def uncarried(self, statement: Any, engine: Engine) -> Uncarried | None:
        """A distributed table whose column a statement that `with_defaults` gave does not carry; asked once a plan."""
        return None

    def meet_uncarried(self, found: Uncarried, options: Mapping[str, Any]) -> None:
        """Such a statement is about to be sent: warn or raise, as the session or the statement's options say."""

    @property
    def own_parameter(self) -> Any:
        """What is bound where `with_defaults` added a parameter whose value is the session's."""
        return None

    def own_options(self, options: tuple[Any, ...]) -> tuple[Any, ...]:
        """Options that go on with instances, as a plan has kept them, with the session's own among them."""
        return options

    @property
    def local_setting(self) -> LocalSetting | None:
        """What the database is told at the beginning of each transaction, and before each read outside of one."""
        return None

    def attaching(self, instance: object) -> None:
        """An instance comes into the session, not by being loaded; raises if it must not."""

    def writing_past_us(self, mapper: Mapper[Any]) -> None:
        """A legacy bulk method, which no event tells of, is about to write; raises if it must not."""

    def _bulk_save_mappings(self, mapper: Any, *args: Any, **options: Any) -> None:
        self.writing_past_us(inspect(mapper))
        parent: Any = super()
        parent._bulk_save_mappings(mapper, *args, **options)

    def about_to_flush(self, states: Iterable[Any]) -> None:
        """A flush is about to write these; raises, before anything is sent, if one must not be written."""

    def about_to_save(self, states: Iterable[Any]) -> None:
        """Their rows are next, with keys filled in from what was written before."""

    def owned_by(self, mapper: Mapper[Any]) -> Owned | None:
        """Whose rows alone a flush may change and delete; None for a class without owners."""
        return None

    def touched(
        self, touch: Touch, statement: Executable, execution_options: Mapping[str, Any]
    ) -> Result[*tuple[Any, ...]] | None:
        """An attribute was touched that the statement would load; what it would bring, if it is not needed."""
        return None

    def execute_natively(
        self,
        statement: Executable,
        params: Any,
        execution_options: Mapping[str, Any],
        bind_arguments: Mapping[str, Any] | None,
    ) -> Result[*tuple[Any, ...]] | None:
        """Run a statement from inside a greenlet without SQLAlchemy's connection; None if that is not possible."""
        return None

    def _execute_internal(
        self,
        statement: Any,
        params: Any = None,
        *,
        execution_options: Mapping[str, Any] = {},
        bind_arguments: Any = None,
        _parent_execute_state: Any = None,
        _add_event: Any = None,
        _scalar_result: bool = False,
    ) -> Any:
        """Every statement of the session passes here; joined collections come out with unique parents."""
        if _parent_execute_state is None and _add_event is None:
            touch = touch_of(statement, execution_options)
            if touch is not None and (found := self.touched(touch, statement, execution_options)) is not None:
                return found
            if can_wait():
                native = self.execute_natively(statement, params, execution_options, bind_arguments)
                if native is not None:
                    return native.scalar() if _scalar_result else native
        before = self.about_to_execute()
        try:
            with self.turn.waited_for():
                result: Any = super()._execute_internal(
                    statement,
                    params,
                    execution_options=execution_options,
                    bind_arguments=bind_arguments,
                    _parent_execute_state=_parent_execute_state,
                    _add_event=_add_event,
                    _scalar_result=_scalar_result,
                )
        except BaseException:
            self.has_executed(before, rows=None, failed=True)
            raise
        if not isinstance(result, Result):  # of `scalar()`: a value, which is not ours to touch
            self.has_executed(before, rows=None, failed=False)
            return result
        answer = cast("Any", result)
        self.has_executed(before, rows=getattr(answer, "rowcount", None), failed=False)
        return once_each(answer)

    def _before_attach(self, state: Any, obj: Any) -> bool:
        """Every instance that is not loaded passes here."""
        parent: Any = super()
        if not parent._before_attach(state, obj):
            return False
        self.attaching(obj)
        return True

    def _save_impl(self, state: Any) -> None:
        """As the parent, in one step where nobody hears of an instance that comes in."""
        private: Any = self
        heard = private.dispatch
        if (
            state.key is not None
            or state.session_id
            or heard.before_attach
            or heard.after_attach
            or heard.transient_to_pending
        ):
            parent: Any = super()
            return parent._save_impl(state)
        if private._transaction is None:
            private._autobegin_t()
        obj, new = state.obj(), private._new
        self.attaching(obj)
        if state not in new:
            new[state] = obj
            state.insert_order = len(new)
        state.session_id = private.hash_key
        if state.modified and state._strong_obj is None:
            state._strong_obj = obj

    def _save_or_update_state(self, state: Any) -> None:
        """As the parent, which cascades along every relationship; an instance that has none has nothing to cascade."""
        relations = state.mapper.relationships._data.keys()
        if (
            relations.isdisjoint(state.dict.keys())
            and relations.isdisjoint(state.committed_state.keys())
            and not state.__dict__.get("_pending_mutations")
        ):
            private: Any = self
            state._orphaned_outside_of_session = False
            private._save_or_update_impl(state)
        else:
            super()._save_or_update_state(state)

    def _identity_lookup(self, *args: Any, **kwargs: Any) -> Any:
        """Every lookup by key passes here: `get`, and the lazy load of a many-to-one."""
        found: Any = super()._identity_lookup(*args, **kwargs)
        return found if found is None or self.visible(found) else None


def once_each(result: Any) -> Any:
    """The result, with its parents once each where it has joined collections."""
    # Only an ORM result has such a context; a cursor's has another.
    context = getattr(result, "context", None)
    return result.unique() if getattr(context, "requires_uniquing", False) else result


# --- What state a session is in -------------------------------------------------------------------


def is_unflushed(session: Any) -> bool:
    """Whether a flush would have something to do."""
    return bool(session._new or session._deleted or session.identity_map._modified)


def is_flushing(session: Any) -> bool:
    """Whether a flush is under way, whose own loads these then are."""
    return session._flushing


class _InInsertOrder(set[Any]):
    """States, in the order in which they were added to the session."""

    def __iter__(self) -> Iterator[Any]:
        return iter(sorted(super().__iter__(), key=lambda state: state.insert_order or 0))


def keep_order(flush_context: Any) -> None:
    """Let a flush walk its instances as they were added, and not as a set has them: so are association rows written.

    SQLAlchemy sorts what it inserts into the tables of classes, and not what it inserts into `secondary` ones.
    """
    flush_context.mappers = defaultdict[Any, set[Any]](_InInsertOrder)


def must_flush_first(session: Any) -> bool:
    """Whether an autoflush before the next statement would send something."""
    return session.autoflush and not session._flushing and is_unflushed(session)


def autoflush(session: Any) -> None:
    """Flush as SQLAlchemy does before a statement; inside a greenlet."""
    session._autoflush()


def has_foreign_hooks(session: Any) -> bool:
    """Whether somebody else listens to the session's statements, or to the instances they load."""
    return len(session.dispatch.do_orm_execute) > getattr(session, "own_statement_hooks", 0)


def heard_loading(session: Any) -> bool:
    """Whether somebody listens to instances being loaded into the session."""
    return bool(session.dispatch.loaded_as_persistent)


_stock: Any = SyncSession


def hears_begin(session: Any) -> bool:
    """Whether somebody sets up each transaction, as for row-level security: then no read may do without one."""
    return bool(session.dispatch.after_begin)


def bind_of(session: Any, mapper: Any, statement: Any) -> Engine | Connection:
    """Where the session sends a statement."""
    plain = session.__class__.get_bind is _stock.get_bind and not session.binds
    if plain and session.bind is not None:
        return session.bind
    return session.get_bind(mapper=mapper, clause=statement)


def begun(session: Any) -> SessionTransaction | None:
    """The session's innermost transaction, begun now if there is none; None if it cannot be used as it is.

    A transaction that was begun has no connection yet: that comes with the first statement that needs one.
    """
    transaction: Any = session._transaction
    if transaction is None:
        if not session.autobegin:
            return None
        transaction = session._autobegin_t()
    return transaction if transaction._state is SessionTransactionState.ACTIVE else None


def connection_in(transaction: Any, bind: Engine | Connection) -> Connection | None:
    """The connection the transaction holds for an engine or connection, if it has taken one."""
    held = transaction._connections.get(bind)
    return None if held is None else held[0]


def is_implicit(transaction: SessionTransaction) -> bool:
    """Whether it was begun by its first statement, and not by `begin()` or `begin_nested()`."""
    return transaction.origin is SessionTransactionOrigin.AUTOBEGIN and not transaction.nested


def ends_with_flush(session: Any, bind: Engine | Connection) -> bool:
    """Whether nothing but the flush under way happens between the session's BEGIN and its COMMIT.

    That nobody listens to what comes in between is told by the number of listeners that are ours.
    """
    root = session._transaction
    while root is not None and root._parent is not None:
        root = root._parent
    heard = session.dispatch
    return (
        isinstance(bind, Engine)
        and getattr(root, "is_committing", False)
        and holds_nothing(session)
        and not session.twophase
        and session.local_setting is None
        and len(heard.after_flush) <= session.own_flush_hooks
        and not (heard.after_flush_postexec or heard.after_begin or heard.after_commit)
        and not (heard.pending_to_persistent or heard.persistent_to_deleted)
    )


def holds_nothing(session: Any) -> bool:
    """Whether ending the session's transaction would not wait for a database."""
    transaction = session._transaction
    while transaction is not None:
        if transaction._connections:
            return False
        transaction = transaction._parent
    return True


def commits_by_itself(session: Any) -> bool:
    """Whether what the session has sent is committed already (AUTOCOMMIT)."""
    transaction = session._transaction
    while transaction is not None and transaction._parent is not None:
        transaction = transaction._parent
    return getattr(transaction, "commits_by_itself", False)


def take_connection(session: Any, bind: Engine | Connection) -> Connection:
    """The transaction's own connection, taken and begun if need be; inside a greenlet."""
    return session._connection_for_bind(bind)
