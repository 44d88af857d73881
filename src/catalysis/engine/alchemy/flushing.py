"""SQLAlchemy's unit of work, with a place to step in where it sends what it has decided.

It asks its transaction for a connection for each mapper, and executes statements on it.  `NativeFlush` may answer with
a `Gateway`, which prepares a statement as SQLAlchemy's connection would, has it sent by our driver, and gives back
SQLAlchemy's own result.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, NamedTuple

from sqlalchemy import Engine, Table
from sqlalchemy.engine.interfaces import ExecuteStyle
from sqlalchemy.orm import attributes, unitofwork
from sqlalchemy.orm.base import CALLABLES_OK, PASSIVE_NO_INITIALIZE
from sqlalchemy.sql.elements import ClauseElement
from sqlalchemy.util import topological

from catalysis.engine.alchemy.compiling import compile_for, detached_connection, fetched_from
from catalysis.engine.alchemy.copying import maker_of
from catalysis.engine.alchemy.one_class import saves_one_class
from catalysis.engine.alchemy.owning import Owned, owned_rows
from catalysis.engine.alchemy.saving import save
from catalysis.engine.alchemy.settling import settle
from catalysis.models import OWN_MAPPER_HOOKS

_private: Any = unitofwork
_attributes: Any = attributes
_ROW_EVENTS = tuple(
    f"{when}_{what}" for when in ("before", "after") for what in ("insert", "update", "delete")
)


class Written(NamedTuple):
    """What came back for all rows of one statement; `rowcount` is -1 where nobody counted."""

    description: Any
    rows: Sequence[Any]
    rowcount: int
    lastrowid: int | None = None


class Write(NamedTuple):
    """One statement of a flush, for one row or for many."""

    sql: str
    rows: Sequence[Any]
    """The driver's parameters, row by row."""
    returns: bool
    """Whether it has a RETURNING, of one row for each."""
    counts: bool
    """Whether the unit of work looks at how many rows were changed."""
    is_final: bool = True
    """Whether nothing that comes back may be refused: a type of the user's may, as it processes a value."""


_UnitOfWork: type[Any] = _private.UOWTransaction
_register = _UnitOfWork.register_object
_LOADED_BY_CALLABLES = frozenset(
    {_attributes._ScalarObjectAttributeImpl, _attributes._CollectionAttributeImpl}
)


class NativeFlush(_UnitOfWork):
    """A flush whose statements may be sent natively; one that is under way is made into it (`become_native`)."""

    session: Any
    _begun: Any
    _connect: Callable[["NativeFlush", Any], Any]
    is_alone = False
    """Whether all that this flush sends is one statement for one row."""

    @property
    def transaction(self) -> Any:
        """SQLAlchemy's name for where connections come from."""
        return self

    @transaction.setter
    def transaction(self, begun: Any) -> None:
        self._begun = begun

    def connection(self, mapper: Any) -> Any:
        """What the statements of a mapper are executed on."""
        return self._connect(self, mapper)

    def own_connection(self, mapper: Any) -> Any:
        """The session's own, with a transaction begun on it."""
        return self._begun.connection(mapper)

    def execute(self) -> None:
        """As the parent, but for the rows of plain classes, which we bind ourselves."""
        self.session.about_to_flush(self.states)
        actions: Any = sorted(self._generate_actions(), key=lambda action: action.sort_key)
        if self.cycles:
            for subset in topological.sort_as_subsets(self.dependencies, actions):
                left: Any = set(subset)
                while left:
                    action = left.pop()
                    if type(action) is _private._SaveUpdateState:
                        alike = [each for each in left if type(each) is _private._SaveUpdateState]
                        self.session.about_to_save([each.state for each in (action, *alike)])
                    action.execute_aggregate(self, left)
        else:
            for action in topological.sort(self.dependencies, actions):
                if not (type(action) is _private._SaveUpdateAll and self._saves(action.mapper)):
                    action.execute(self)

    def _saves(self, mapper: Any) -> bool:
        states = list(self.states_for_mapper_hierarchy(mapper, False, False))
        self.session.about_to_save(states)
        gateway = self.connection(mapper)
        if not isinstance(gateway, Gateway):
            return False
        return save(states, mapper, self.session.identity_map, gateway, gateway.send, gateway.owner_attribute)

    def register_object(
        self,
        state: Any,
        isdelete: bool = False,
        listonly: bool = False,
        cancel_delete: bool = False,
        operation: str | None = None,
        prop: Any = None,
    ) -> bool:
        """As the parent, which each relationship asks again for each instance."""
        if state in self.states and not isdelete and not cancel_delete:
            return True
        return _register(self, state, isdelete, listonly, cancel_delete, operation, prop)

    def get_attribute_history(self, state: Any, key: str, passive: Any = PASSIVE_NO_INITIALIZE) -> Any:
        """As the parent, but at once for a relationship that is neither loaded nor changed, nor to be loaded now."""
        if (
            not passive & CALLABLES_OK
            and key not in state.dict
            and key not in state.committed_state
            and not state.__dict__.get("_pending_mutations")
            and type(state.manager[key].impl) in _LOADED_BY_CALLABLES
        ):
            return _attributes.HISTORY_BLANK
        parent: Any = super()
        return parent.get_attribute_history(state, key, passive)

    def finalize_flush_changes(self) -> None:
        """As the parent; the session is told of what has been written."""
        session = self.session
        deleted = {state for state, (is_deleted, _) in self.states.items() if is_deleted}
        if deleted:
            session._remove_newly_deleted(deleted)
        if left := settle(session, [state for state in self.states if state not in deleted]):
            session._register_persistent(left)
        session.has_flushed(self.mappers)

    def _generate_actions(self) -> Any:
        if (only := self._only_action()) is not None:
            self.cycles = set[Any]()
            actions = {only}
        else:
            parent: Any = super()
            actions = parent._generate_actions()
        self.is_alone = (
            len(self.states) == 1
            and not self.cycles
            and all(map(_sends_a_row, actions))
            and all(map(_cannot_fail_afterwards, self.states))
        )
        return actions

    def _only_action(self) -> Any:
        """The saving of all instances, where nothing else is to be done."""
        if not saves_one_class(self):
            return None
        actions: Any = self.postsort_actions.values()
        return next(each for each in actions if type(each) is _private._SaveUpdateAll)


def become_native(flush: Any, connect: Callable[[NativeFlush, Any], Any]) -> None:
    """Let `connect(flush, mapper)` choose what the flush's statements are executed on."""
    flush._connect = connect
    flush.__class__ = NativeFlush


def _sends_a_row(action: Any) -> bool:
    """Whether an action is for the row of an instance alone: at most one statement, if the mapper has one table."""
    if isinstance(action, (_private._SaveUpdateAll, _private._DeleteAll)):
        mapper, table = action.mapper, action.mapper.local_table
        return (
            _is_table(table)
            and len(mapper.tables) == 1
            and not mapper.polymorphic_map
            and mapper.primary_key == tuple(table.primary_key)
            and not any(each.deferrable or each.initially for each in table.constraints)
        )
    if isinstance(action, _private._ProcessAll):
        relationship = action.dependency_processor.prop
        return relationship.secondary is None and not relationship.post_update
    return False


def _is_table(selectable: Any) -> bool:
    """Whether it is a table, and not a subquery or join that a class is mapped to."""
    return isinstance(selectable, Table)


def _cannot_fail_afterwards(state: Any) -> bool:
    """Whether the unit of work has nothing to refuse about an instance once its row is written."""
    mapper = state.mapper
    key = [state.dict.get(mapper._columntoproperty[column].key) for column in mapper.primary_key]
    known = not any(value is None or isinstance(value, ClauseElement) for value in key)
    return (
        mapper.version_id_generator is not False
        and not state.manager.dispatch.refresh_flush
        and (known or mapper.local_table.autoincrement_column is not None)
    )


def row_listener(mapper: Any) -> str | None:
    """The event of a mapper's rows that somebody hears, who may want SQLAlchemy's connection."""
    for each in mapper.base_mapper.self_and_descendants:
        for name in _ROW_EVENTS:
            for listener in getattr(each.dispatch, name):
                if listener not in OWN_MAPPER_HOOKS:
                    return name
    return None


# --- Executing ------------------------------------------------------------------------------------


class Gateway:
    """Stands for a connection inside a flush."""

    def __init__(
        self,
        engine: Engine,
        send: Callable[[Write], Written | None],
        fall_back: Callable[[str], Any],
        *,
        can_send: Callable[[], bool],
        versioned: bool,
        owned: Owned | None = None,
    ) -> None:
        """`send` sends and waits, or gives None if it cannot; `fall_back(reason)` gives SQLAlchemy's own connection.

        `can_send` tells beforehand, of what is about to be sent: no default may be called in vain.
        """
        self._owned = owned
        self.engine = engine
        self.can_send = can_send
        self._send, self._fall_back, self._versioned = send, fall_back, versioned

    @property
    def dialect(self) -> Any:
        """What the unit of work asks of rows that are about to be sent: our driver counts those of many too."""
        return _counting(self.engine.dialect) if self.can_send() else self.engine.dialect

    @property
    def owner_attribute(self) -> str | None:
        """The attribute of the class that says whose a row is, where only the owner's may be changed."""
        return None if self._owned is None else self._owned.attribute

    def execute(
        self, statement: Any, parameters: Any = None, *, execution_options: Mapping[str, Any] = {}
    ) -> Any:
        """SQLAlchemy's result of a statement for one row, or for many."""
        if self._owned is not None:
            statement = owned_rows(self._owned, statement)
        rows: list[Any] = _as_rows(parameters)
        context, reason = None, "a connection with options of its own"
        if self.can_send():
            context, reason = self._context(statement, rows, execution_options)
        if context is not None:
            returns = bool(context.compiled.effective_returning)
            counts = context.isupdate or (context.isdelete and self._versioned)
            final = not any(map(_has_own_type, context.compiled.effective_returning or ()))
            written = self._send(Write(context.statement, context.parameters, returns, counts, final))
            if written is not None:
                return _result(context, written)
        own = self._fall_back(reason)
        return own.execute(statement, parameters, execution_options=execution_options)

    def send(self, sql: str, rows: list[Any], counts: bool) -> int | None:
        """Send rows that are bound already; how many it counted, or None if only SQLAlchemy can use the connection."""
        written = self._send(Write(sql, rows, returns=False, counts=counts))
        return None if written is None else written.rowcount

    def refuse(self, error: Exception, sql: str, rows: list[Any]) -> None:
        """Raise as SQLAlchemy does what a default, or a type that it was given to, has raised."""
        own = self._fall_back("only SQLAlchemy can say what is wrong with it")
        own._handle_dbapi_exception(error, sql, rows, None, None)

    def _context(self, statement: Any, rows: list[Any], options: Mapping[str, Any]) -> tuple[Any, str]:
        """SQLAlchemy's context of the execution, with values bound, or None; and why it would have to execute it.

        Raises:
            StatementError: a value cannot be bound, or a default fails; as SQLAlchemy raises it.
        """
        many = len(rows) > 1
        try:
            compiled, *values = self._compiled(statement, rows, options, many)
            if many and compiled._insertmanyvalues and compiled._insertmanyvalues.embed_values_counter:
                # Its SQL counts the rows of one long VALUES; we send them one by one, in a pipeline.
                compiled, *values = self._compiled(statement, rows, options, False)
        except Exception:  # SQLAlchemy will meet it too, and raise it as its own
            return None, "only SQLAlchemy can say what is wrong with it"
        if (reason := _needs_sqlalchemy(compiled)) is not None:
            return None, reason
        reason, detached = "a connection with options of its own", detached_connection(self.engine)
        try:
            return fetched_from(compiled, detached, rows, options, statement, *values), reason
        except (
            Exception
        ) as error:  # the defaults have been called, so it is not for SQLAlchemy to try once more
            self.refuse(error, str(compiled), rows)
            raise

    def _compiled(self, statement: Any, rows: list[Any], options: Mapping[str, Any], many: bool) -> Any:
        engine: Any = self.engine
        cache = options.get("compiled_cache", engine._compiled_cache)
        return compile_for(statement, engine, sorted(rows[0]) if rows else (), many=many, cache=cache)


class OwnersConnection:
    """SQLAlchemy's connection inside a flush that goes through SQLAlchemy, where only the owner's rows may change."""

    def __init__(self, connection: Any, owned: Owned) -> None:
        self._connection, self._owned = connection, owned

    def execute(self, statement: Any, *args: Any, **options: Any) -> Any:
        """As the connection's."""
        return self._connection.execute(owned_rows(self._owned, statement), *args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def _as_rows(parameters: Any) -> Any:
    if parameters is None:
        return []
    return [parameters] if isinstance(parameters, Mapping) else parameters


def _has_own_type(column: Any) -> bool:
    return not type(column.type).__module__.startswith("sqlalchemy.")


def _result(context: Any, written: Written) -> Any:
    context.cursor.fill(written.description, written.rows, written.rowcount)
    context.cursor.lastrowid = written.lastrowid
    if context.execute_style is ExecuteStyle.INSERTMANYVALUES:
        context._insertmanyvalues_rows = written.rows
    return context._setup_result_proxy()


_KEPT = "_catalysis_needs_sqlalchemy"


def _needs_sqlalchemy(compiled: Any) -> str | None:
    if _KEPT not in compiled.__dict__:
        setattr(compiled, _KEPT, _reason(compiled))
    return getattr(compiled, _KEPT)


def _reason(compiled: Any) -> str | None:
    defaults = [column.default for column in compiled.insert_prefetch]
    defaults += [column.onupdate for column in compiled.update_prefetch]
    if any(each is None or each.is_sequence or each.is_clause_element for each in defaults):
        return "a default that is a statement of its own"
    if any(each.is_callable and maker_of(each) is None for each in defaults):
        return "a default that is given SQLAlchemy's context, and may use its connection"
    if compiled.literal_execute_params or compiled.post_compile_params:
        return "values written into the SQL"
    return None


_COUNTING = "_catalysis_counting"


def _counting(dialect: Any) -> Any:
    """The dialect, as one whose driver counts the rows of a statement for many: ours does."""
    if _COUNTING not in dialect.__dict__:
        counting = copy(dialect)
        counting.supports_sane_multi_rowcount = True
        setattr(dialect, _COUNTING, counting)  # with which it goes: its parts refer to the dialect
    return getattr(dialect, _COUNTING)
