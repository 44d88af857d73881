"""How a touched attribute is loaded: its statement is recognised, and sent for many instances at once."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

from sqlalchemy import Result, inspect, select, tuple_
from sqlalchemy.engine.result import IteratorResult, SimpleResultMetaData
from sqlalchemy.orm import InstanceState, PassiveFlag, RelationshipProperty
from sqlalchemy.orm.collections import collection_adapter
from sqlalchemy.orm.context import _ORMCompileState  # pyright: ignore[reportPrivateUsage]
from sqlalchemy.orm.interfaces import RelationshipDirection

State = InstanceState[Any]
Relationship = RelationshipProperty[Any]


@dataclass(frozen=True, slots=True)
class Touch:
    """An attribute access that SQLAlchemy has a statement for."""

    state: State
    relationship: Relationship | None
    keys: frozenset[str]
    """The attributes it will load: the relationship, or the columns that are loaded together."""

    @property
    def name(self) -> str:
        """One of them, to speak of."""
        columns = self.keys & set(self.state.mapper.column_attrs.keys())
        return min(columns or self.keys)


def touch_of(statement: Any, options: Mapping[str, Any]) -> Touch | None:
    """The attribute access that this statement serves; None for a statement of another kind."""
    given = options.get("_sa_orm_load_options")
    if given is None:
        return None
    if (owner := given._lazy_loaded_from) is not None:
        path = statement._compile_options._current_path
        return Touch(owner, path.prop, frozenset((path.prop.key,))) if path.is_property else None
    refreshed = given._refresh_state
    if refreshed is None or given._is_user_refresh:
        return None
    wanted = statement._compile_options._only_load_props or refreshed.unloaded
    return Touch(refreshed, None, frozenset(wanted)) if wanted else None


def is_relationship(prop: Any) -> bool:
    """Whether a mapped attribute leads to other instances."""
    return isinstance(prop, RelationshipProperty)


# --- Whose attribute ------------------------------------------------------------------------------


def latest_states(session: Any, count: int) -> list[State]:
    """The states that came into the session last, latest first; taken at once, as each collection changes the map."""
    return list(islice(reversed(session.identity_map._dict.values()), count))


def load_number(state: State) -> int | None:
    """The load that brought the instance; None for one that was made here."""
    return state.runid


def may_load_for(state: State, touch: Touch, session: Any) -> bool:
    """Whether the instance lacks what is touched, and would load it by the same statement but for its key."""
    own, other = cast("Any", touch.state), cast("Any", state)
    if other is own:
        return True
    if other.session_id != session.hash_key or other.key is None or other.obj() is None or other._deleted:
        return False
    if touch.relationship is None:
        return (
            other.mapper is own.mapper
            and other.load_options == own.load_options
            and (not own.load_options or other.load_path == own.load_path)
            and touch.keys <= other.unloaded
        )
    key = touch.relationship.key
    return (
        key not in other.dict
        and other.mapper._props.get(key) is touch.relationship
        and other.callables.get(key) == own.callables.get(key)
        and other.load_options == own.load_options
        and (not own.load_options or other.load_path == own.load_path)
    )


def is_batched(touch: Touch) -> bool:
    """Whether its statement can serve several instances: nothing of it is for this one alone."""
    state = touch.state
    if state.key is None or state.session_id is None:
        return False
    prop: Any = touch.relationship
    if prop is None:
        return True
    impl: Any = state.manager[prop.key].impl
    # An option of one instance (`lazyload(User.tasks.and_(…))`) may carry criteria.
    return (
        impl.supports_population and prop.key not in state.callables and not prop._target_correlates_to_parent
    )


# --- Loading --------------------------------------------------------------------------------------


class _Context:
    """What SQLAlchemy's select-in loader asks of the load it belongs to."""

    populate_existing = False

    def __init__(self, session: Any, options: Any) -> None:
        self.session = session
        self._loader_strategy_options = lambda: options


_WITHOUT_FLUSH = {"autoflush": False}


def load_relationship(session: Any, prop: Relationship, states: Sequence[State]) -> None:
    """Load a relationship of instances that lack it, 500 a statement; inside a greenlet.

    The states agree on their options.  What the identity map holds is not asked for.
    """
    loader: Any = cast("Any", prop)._get_strategy((("lazy", "selectin"),))
    waiting = _from_identity_map(session, prop, loader, states)
    if not waiting:
        return
    first: Any = waiting[0]
    path = first.load_path if first.load_options else first.mapper._path_registry
    loader._load_for_path(
        _Context(session, first.load_options),
        path,
        [(state, False) for state in waiting],
        None,
        prop.entity,
        None,
        None,
        _WITHOUT_FLUSH,
    )


def _from_identity_map(
    session: Any, prop: Relationship, loader: Any, states: Sequence[State]
) -> Sequence[State]:
    """Give what the session holds to those whose key says so; the others are returned."""
    if prop.direction is not RelationshipDirection.MANYTOONE or not loader._query_info.load_only_child:
        return states
    target: Any = prop.mapper
    key_of = cast("Any", prop.parent)._state_ident_getter(
        loader._query_info.child_lookup_cols, passive=PassiveFlag.PASSIVE_NO_FETCH
    )
    known, waiting = session.identity_map._dict, list[State]()
    for state in states:
        found = known.get((target._identity_class, tuple(key_of(state, state.dict)), None))
        instance = None if found is None else found.obj()
        if (
            found is None
            or instance is None
            or found.expired
            or not isinstance(instance, target.class_)
            or not session.visible(instance)
        ):
            waiting.append(state)
        else:
            cast("Any", state).get_impl(prop.key).set_committed_value(state, state.dict, instance)
    return waiting


def load_columns(session: Any, states: Sequence[State], keys: frozenset[str]) -> None:
    """Load columns of instances that lack them, with one statement; inside a greenlet.

    The states are of one class and agree on their options.
    """
    first: Any = states[0]
    mapper: Any = first.mapper
    columns: list[Any] = list(mapper.primary_key)
    identities: list[Any] = [cast("Any", state).key[1] for state in states]
    single = len(columns) == 1
    wanted = columns[0].in_([only for (only,) in identities]) if single else tuple_(*columns).in_(identities)
    statement: Any = select(mapper).where(wanted)
    needed = set(mapper._primary_key_propkeys)
    if mapper.polymorphic_on is not None:
        needed.add(mapper.get_property_by_column(mapper.polymorphic_on).key)
    compile_options = _own_context.default_compile_options + {"_only_load_props": keys | needed}
    if first.load_options:  # as SQLAlchemy does for one
        compile_options += {"_current_path": first.load_path.parent}
        statement = statement.options(*first.load_options)
    statement._compile_options = compile_options
    numbers = [(state, state.runid) for state in states]
    session.execute(statement, execution_options=_WITHOUT_FLUSH).unique().all()
    for state, number in numbers:  # it came by another load, and is still the peer of those
        state.runid = number


_own_context: Any = _ORMCompileState


def answer_for(touch: Touch) -> Result[Any]:
    """What SQLAlchemy's own statement would have brought, now that the attribute is there."""
    state = touch.state
    if touch.relationship is None:
        is_missing = touch.keys & state.unloaded & set(state.mapper.column_attrs.keys())
        found = () if is_missing else (state.obj(),)
    else:
        found = _values(touch.relationship, state)
    # As SQLAlchemy's own of instances: told apart by identity, since they need not be hashable.
    described = SimpleResultMetaData(["entity"], _create_unique_filters=lambda _: [id])
    return IteratorResult(described, iter([(each,) for each in found]))


def _values(prop: Relationship, state: State) -> Sequence[Any]:
    value = state.dict.get(prop.key)
    if value is None:
        return ()
    return list(collection_adapter(value)) if prop.uselist else (value,)


def states_at(states: Iterable[State], prop: Relationship) -> Iterator[State]:
    """The states of the instances that a relationship leads to from these."""
    for state in states:
        for instance in _values(prop, state):
            yield inspect(instance)
