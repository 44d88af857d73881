"""How a touched attribute is loaded: its statement is recognised, and sent for many instances at once."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, cast

from sqlalchemy import Result, inspect, select, tuple_
from sqlalchemy.engine.result import IteratorResult, SimpleResultMetaData
from sqlalchemy.orm import (
    InstanceState,
    LoaderCallableStatus,
    PassiveFlag,
    QueryableAttribute,
    RelationshipProperty,
    context,
)
from sqlalchemy.orm.collections import collection_adapter
from sqlalchemy.orm.interfaces import RelationshipDirection

from catalysis.engine.alchemy.sharding import shard_of, token_of, without_flush

State = InstanceState[Any]
Relationship = RelationshipProperty[Any]


@dataclass(frozen=True, slots=True)
class Touch:
    """An attribute access that SQLAlchemy has a statement for."""

    state: State
    relationship: Relationship | None
    keys: frozenset[str]
    """The attributes it will load: the relationship, or the columns that are loaded together."""
    is_for_one: bool = False
    """Whether the statement asks for what holds of this instance alone."""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The statement's execution options, where an eager load gave them."""

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
        if not path.is_property:
            return None
        for_one, key = _is_for_one(statement, owner, path), path.prop.key
        own = {name: value for name, value in options.items() if name != "_sa_orm_load_options"}
        return Touch(owner, path.prop, frozenset((key,)), for_one, own)
    refreshed = given._refresh_state
    if refreshed is None or given._is_user_refresh:
        return None
    wanted = statement._compile_options._only_load_props or refreshed.unloaded
    return Touch(refreshed, None, frozenset(wanted)) if wanted else None


def _is_for_one(statement: Any, owner: Any, path: Any) -> bool:
    """Whether it is for a history, or of an eager load with options that the owner does not carry.

    A history is of what was committed, whatever the attributes say now, and is loaded without a flush; so is what a
    pending instance refers to.
    """
    start = owner.load_path if owner.load_options else owner.mapper._path_registry
    return (
        not statement._execution_options.get("autoflush", True)
        or path != start[path.prop]
        or statement._with_options != owner.load_options
    )


def is_relationship(prop: Any) -> bool:
    """Whether a mapped attribute leads to other instances."""
    return isinstance(prop, RelationshipProperty)


def is_whole(attribute: Any) -> bool:
    """Whether it is a mapped attribute of a class, without `of_type()` or `and_()`, which no instance could keep."""
    if not isinstance(attribute, QueryableAttribute):
        return False
    given = cast("Any", attribute)
    is_mapped = hasattr(given, "property") and hasattr(given, "parent")
    narrowings = ("_of_type", "_extra_criteria")  # a synonym has neither
    return is_mapped and not any(getattr(given, name, None) for name in narrowings)


# --- Whose attribute ------------------------------------------------------------------------------


def latest_states(session: Any, count: int) -> list[State]:
    """The states that came into the session last, latest first; taken at once, as each collection changes the map."""
    return list(islice(reversed(session.identity_map._dict.values()), count))


def load_number(state: State) -> int | None:
    """The load that brought the instance; None for one that was made here."""
    return state.runid


def has_changed(state: Any, keys: frozenset[str]) -> bool:
    """Whether any of the attributes has changed since the last flush; of most instances nobody has asked yet."""
    return state.modified and not keys.isdisjoint(state.committed_state)


def peer_test(touch: Touch, session: Any) -> Callable[[State], bool]:
    """Whether an instance lacks what is touched, and would load it by the same statement but for its key."""
    own: Any = touch.state
    kind = cast("Any", type(own))
    number, path, home = own.runid, own.load_path, session.hash_key
    key = None if touch.relationship is None else touch.relationship.key
    may_lack, token = len(own.key[1]) > 1, token_of(own)
    # The relationship itself is not there and has changed where it was deleted, and that is not flushed.
    unchanged = _read_for(touch) if key is None else _read_for(touch) | {key}

    def may_load(state: Any) -> bool:
        if state is own:
            return True
        if key is not None and key in state.obj().__dict__:
            return False
        if state.session_id != home or state.key is None or state._deleted or state.key[2] != token:
            return False
        if (may_lack and None in state.key[1]) or has_changed(state, unchanged):
            return False
        if type(state) is kind is not InstanceState and state.runid == number and state.load_path is path:
            # Of the same class and place in one load, so that what both carry from it is the same.
            return touch.keys <= state.unloaded if key is None else key not in state.callables
        return _agrees(own, state, touch)

    return may_load


def _agrees(own: Any, other: Any, touch: Touch) -> bool:
    if touch.relationship is None:
        alike = other.mapper is own.mapper and touch.keys <= other.unloaded
    else:
        key = touch.relationship.key
        is_same = other.mapper._props.get(key) is touch.relationship
        alike = is_same and other.callables.get(key) == own.callables.get(key)
    return (
        alike
        and other.load_options == own.load_options
        and (not own.load_options or other.load_path == own.load_path)
    )


def is_batched(touch: Touch) -> bool:
    """Whether its statement can serve several instances: nothing of it is for this one alone."""
    state: Any = touch.state
    if state.key is None or state.session_id is None or touch.is_for_one:
        return False
    if None in state.key[1] or has_changed(state, _read_for(touch)):
        return False
    prop: Any = touch.relationship
    if prop is None:
        return not _brings_subqueries(state, touch.keys)
    if prop.key in state.__dict__.get("_pending_mutations", ()):
        return False  # SQLAlchemy takes an answer for what the database holds, and adds these to it once
    impl: Any = state.manager[prop.key].impl
    # An option of one instance (`lazyload(User.tasks.and_(…))`) may carry criteria.
    return (
        impl.supports_population and prop.key not in state.callables and not prop._target_correlates_to_parent
    )


def _brings_subqueries(state: Any, keys: frozenset[str]) -> bool:
    """Whether a refresh brings relationships eagerly by subquery, which only works for one instance's refresh."""
    relationships = [prop for prop in state.mapper.relationships if prop.key in keys]
    if not relationships:
        return False
    given = [each.strategy or () for option in state.load_options for each in getattr(option, "context", ())]
    return any(
        ("lazy", "subquery") in each for each in [*given, *(prop.strategy_key for prop in relationships)]
    )


def _read_for(touch: Touch) -> frozenset[str]:
    """The attributes that SQLAlchemy would load a relationship by, as they are in memory; ours reads their columns.

    None of one that is by key, which we take from the attributes too.
    """
    if (prop := touch.relationship) is None or is_by_key(prop):
        return frozenset()
    loader, parent = cast("Any", prop)._get_strategy((("lazy", "select"),)), cast("Any", prop.parent)
    return frozenset([parent._columntoproperty[column].key for column in loader._bind_to_col.values()])


# --- Loading --------------------------------------------------------------------------------------


class _Context:
    """What SQLAlchemy's select-in loader asks of the load it belongs to, and of that one's session."""

    populate_existing = False

    def __init__(self, session: Any, options: Any, *, once_each: bool) -> None:
        self._own_session = session
        self._once_each = once_each
        self._loader_strategy_options = lambda: options

    @property
    def session(self) -> Any:
        """Itself; kept in no attribute, as that cycle would keep the session and all it knows."""
        return self

    def execute(self, statement: Any, params: Any, execution_options: Any) -> Any:
        keys = _padded(params["primary_keys"])
        result = self._own_session.execute(
            statement, params={"primary_keys": keys}, execution_options=execution_options
        )
        return _OnceEach(result) if self._once_each else result


class _OnceEach:
    """A result whose rows the select-in loader takes once each, as lazy loading does and eager loading does not."""

    requires_uniquing = True

    def __init__(self, result: Any) -> None:
        self.unique = result.unique

    @property
    def context(self) -> Any:
        return self


def _padded(keys: list[Any]) -> list[Any]:
    """The keys, the last one repeated up to a length of few: each length is a statement of its own to prepare."""
    length = 1
    while length < len(keys):
        length *= 2
    return keys + keys[-1:] * (min(length, 500) - len(keys))


def load_relationship(
    session: Any, prop: Relationship, states: Sequence[State], options: Mapping[str, Any] = {}
) -> None:
    """Load a relationship of instances that lack it, 500 a statement, with execution options; inside a greenlet.

    The states agree on their loader options.
    """
    first: Any = states[0]
    loader: Any = cast("Any", prop)._get_strategy((("lazy", "selectin"),))
    loader._load_for_path(
        _Context(session, first.load_options, once_each=prop.secondary is not None),
        first.load_path if first.load_options else first.mapper._path_registry,
        [(state, False) for state in states],
        None,
        prop.entity,
        None,
        None,
        options or without_flush(shard_of(session, first)),
    )


def is_by_key(prop: Relationship) -> bool:
    """Whether it leads to one instance whose key the owner holds, so that the identity map may know it."""
    if prop.direction is not RelationshipDirection.MANYTOONE or prop.uselist:
        return False
    loader: Any = cast("Any", prop)._get_strategy((("lazy", "selectin"),))
    return loader._query_info.load_only_child


def load_by_key(
    session: Any, prop: Relationship, states: Iterable[State], most: int, options: Mapping[str, Any] = {}
) -> list[State]:
    """Load a relationship that is by key, taking states until `most` different keys are to be asked for.

    What the identity map holds is not asked for; inside a greenlet.  Those whose key is not loaded itself, or has a
    NULL in it, are left as they are, and returned.
    """
    given, waiting, without_key = _from_identity_map(session, prop, states, most)
    if waiting:
        asked = [first for first, *_ in waiting.values()]
        load_relationship(session, prop, asked, options)
        for owners in waiting.values():
            if prop.key in owners[0].dict:
                value = owners[0].dict[prop.key]
                given += [(owner, owner.dict, value) for owner in owners[1:]]
    impl: Any = cast("Any", prop.parent.class_manager)[prop.key].impl
    for state, values, value in given:
        if state.__dict__:  # it holds more than a load leaves, an earlier change of this attribute maybe
            impl.set_committed_value(state, values, value)
        else:
            values[prop.key] = value
    return without_key


def _from_identity_map(
    session: Any, prop: Relationship, states: Iterable[State], most: int
) -> tuple[list[tuple[State, Any, Any]], dict[Any, list[State]], list[State]]:
    """(states, their values and what the session knows for them; others by their key; those without one)."""
    loader: Any = cast("Any", prop)._get_strategy((("lazy", "selectin"),))
    target, parent = cast("Any", prop.mapper), cast("Any", prop.parent)
    columns = loader._query_info.child_lookup_cols
    key_of = parent._state_ident_getter(columns, passive=PassiveFlag.PASSIVE_NO_FETCH)
    name = parent._columntoproperty[columns[0]].key if len(columns) == 1 else None
    known, absent = session.identity_map._dict, LoaderCallableStatus.PASSIVE_NO_RESULT
    # By the value of one column, or the tuple of several.
    met, waiting = dict[Any, Any](), dict[Any, list[State]]()
    given, without_key = list[tuple[State, Any, Any]](), list[State]()
    for state in states:
        values: dict[Any, Any] = cast("Any", state.obj()).__dict__  # whoever found it holds it
        key = values.get(name, absent)
        if key is absent:
            identity = tuple(key_of(state, values))
            if absent in identity or _may_be_partial(identity, target):
                without_key.append(state)
                continue
            key = identity if name is None else identity[0]
        value = met.get(key, absent)
        if value is not absent:
            given.append((state, values, value))
        elif key in waiting:
            waiting[key].append(state)
        elif key is None:
            met[None] = None
            given.append((state, values, None))
        else:
            found = known.get((target._identity_class, key if name is None else (key,), None))
            instance = None if found is None or found.expired else found.obj()
            if isinstance(instance, target.class_) and session.visible(instance):
                met[key] = instance
                given.append((state, values, instance))
            else:
                waiting[key] = [state]
                if len(waiting) == most:
                    break
    return given, waiting, without_key


def _may_be_partial(identity: tuple[Any, ...], target: Any) -> bool:
    """Whether a row may have this key, some of which is NULL: an IN would not find it."""
    return len(identity) > 1 and target.allow_partial_pks and 0 < identity.count(None) < len(identity)


def load_columns(session: Any, states: Sequence[State], keys: frozenset[str]) -> None:
    """Load columns of instances that lack them, with one statement; inside a greenlet.

    The states are of one class, and agree on their options and their token.
    """
    first: Any = states[0]
    mapper: Any = first.mapper
    columns: list[Any] = list(mapper.primary_key)
    identities: list[Any] = [cast("Any", state).key[1] for state in states]
    single = len(columns) == 1
    keys_in = _padded([key[0] if single else key for key in identities])
    wanted = columns[0].in_(keys_in) if single else tuple_(*columns).in_(keys_in)
    statement: Any = select(mapper).where(wanted)
    needed = set(mapper._primary_key_propkeys)
    if mapper.polymorphic_on is not None:
        needed.add(mapper.get_property_by_column(mapper.polymorphic_on).key)
    # For a refresh: the session holds the rows, so that there are no criteria, and options that do not fit pass.
    refreshing = {"_only_load_props": keys | needed, "_for_refresh_state": True}
    compile_options = cast("Any", context)._ORMCompileState.default_compile_options + refreshing
    if first.load_options:  # as SQLAlchemy does for one
        compile_options += {"_current_path": first.load_path.parent}
        statement = statement.options(*first.load_options)
    statement._compile_options = compile_options
    numbers = [(state, state.runid) for state in states]
    session.execute(statement, execution_options=without_flush(token_of(first))).unique().all()
    for state, number in numbers:  # it came by another load, and is still the peer of those
        state.runid = number


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
