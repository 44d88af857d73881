"""`load`: attributes of many objects at once, said out loud; works anywhere, in a managed scope or not."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar, cast, overload

from sqlalchemy import inspect
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Mapper
from sqlalchemy.orm.exc import DetachedInstanceError

from catalysis.engine.alchemy.sessions import HookedSession
from catalysis.engine.alchemy.sharding import chooses_connections, shard_of, token_of, without_flush
from catalysis.engine.alchemy.touches import (
    State,
    has_changed,
    is_by_key,
    is_relationship,
    is_whole,
    load_by_key,
    load_columns,
    load_relationship,
    states_at,
)
from catalysis.engine.waiting import flush_first, load_together
from catalysis.loading.batch import CHUNK
from catalysis.loading.computed import MOST, Computed

T = TypeVar("T")


@overload
async def load(objects: object | Iterable[object], computed: Computed[T], /) -> list[T]: ...
@overload
async def load(objects: object | Iterable[object], /, *attributes: Any) -> None: ...
async def load(objects: object | Iterable[object], /, *attributes: Any) -> Any:
    """Load what the objects lack of these attributes, with one statement for each and 500 objects.

    `await load(tasks, Task.user, User.role)`: an attribute is loaded for those given whose class has it, and for
    those that an attribute before it leads to.  Relationships and deferred or expired columns will do; what is
    loaded already stays as it is.  Outside a transaction, what does not depend on each other is loaded at once.

    `await load(groups, count(Group.memberships))`: returns a list of one value for each object, in their order;
    see `count`, `exists`, `total` and `top`.

    Raises:
        InvalidRequestError: an attribute belongs to none of the objects, or they are not a `Session`'s.
        DetachedInstanceError: an object belongs to no session any more.
    """
    if len(attributes) == 1 and isinstance(attributes[0], Computed):
        return await _compute(list(_each(objects)), cast("Computed[Any]", attributes[0]))
    for attribute in attributes:
        if not is_whole(attribute):
            raise InvalidRequestError(
                "load() takes mapped attributes as they are (User.tasks, without of_type() or and_()), or one of "
                f"count(), exists(), total() and top() alone; it was given {attribute}."
            )
    given = await _states(_each(objects))
    if mappers := {state.mapper for states in given.values() for state in states}:
        _belongs_to_some(mappers, attributes)
    for session, states in given.items():
        await _load(session, states, attributes)


def _each(objects: object | Iterable[object]) -> Iterable[object]:
    if inspect(objects, raiseerr=False) is not None:
        return (objects,)
    return cast("Iterable[object]", objects)


async def _states(objects: Iterable[object]) -> dict[HookedSession, list[State]]:
    """Their states by session, flushed; without those that no row stands behind yet: they have nothing to load."""
    found: list[State] = []
    for each in objects:
        state: Any = inspect(each, raiseerr=False)
        if not getattr(state, "is_instance", False):
            raise InvalidRequestError(f"load() takes mapped instances; {type(each).__name__} is none.")
        if state.detached:
            raise DetachedInstanceError(
                f"This {type(each).__name__} belongs to no session, so nothing can be loaded for it.  Load it "
                "while its session is open, or bring it back: `session.add(it)`."
            )
        if not state.transient:
            found.append(state)
    by_session = _by_session(found)
    for session in by_session:
        await flush_first(session)
    return {
        session: [state for state in states if state.has_identity] for session, states in by_session.items()
    }


def _by_session(states: Iterable[State]) -> dict[HookedSession, list[State]]:
    found: dict[HookedSession, list[State]] = {}
    for state in states:
        session = state.session
        if not isinstance(session, HookedSession):
            raise InvalidRequestError(
                f"load() needs instances of a catalysis.Session; this {state.mapper.class_.__name__} is of a "
                f"{type(session).__name__}."
            )
        found.setdefault(session, []).append(state)
    return found


def _belongs_to_some(mappers: set[Mapper[Any]], attributes: Sequence[Any]) -> None:
    for attribute in attributes:
        if not any(_may_have(mapper, attribute) for mapper in mappers):
            raise InvalidRequestError(
                f"load(): none of the objects is a {attribute.class_.__name__}, nor does an attribute before "
                f"{attribute} lead to one.  Give {attribute.class_.__name__} objects, or the way to them first."
            )
        if is_relationship(prop := attribute.property):
            mappers = mappers | {prop.mapper}


def _may_have(mapper: Mapper[Any], attribute: Any) -> bool:
    return mapper.isa(attribute.parent.mapper) or attribute.parent.mapper.isa(mapper)


async def _load(session: HookedSession, states: list[State], attributes: Sequence[Any]) -> None:
    reached = dict.fromkeys(states)
    for wave in _waves(attributes):
        calls: list[Callable[[], None]] = []
        owners: list[tuple[Any, list[State]]] = []
        for attribute in wave:
            own = [state for state in reached if state.mapper.isa(attribute.parent.mapper)]
            calls += _calls(session, attribute, own)
            owners.append((attribute.property, own))
        await load_together(session, calls)
        for prop, own in owners:
            if is_relationship(prop):
                reached |= dict.fromkeys(states_at(own, prop))


def _waves(attributes: Sequence[Any]) -> Iterator[list[Any]]:
    """Attributes that do not lead to each other's owners, which can be loaded at once."""
    wave: list[Any] = []
    for attribute in attributes:
        if any(
            is_relationship(each.property) and _may_have(each.property.mapper, attribute) for each in wave
        ):
            yield wave
            wave = []
        wave.append(attribute)
    if wave:
        yield wave


def _calls(session: HookedSession, attribute: Any, owners: Iterable[State]) -> Iterator[Callable[[], None]]:
    """A function for each statement: for 500 instances that lack the attribute and agree on their options."""
    alike: dict[Any, list[State]] = {}
    key, leads = attribute.property.key, is_relationship(attribute.property)
    for state in owners:
        # What was deleted and not flushed is not there either, and has changed.
        if key not in state.dict and not has_changed(state, frozenset((key,))):
            options: Any = cast("Any", state).load_options
            kind = None if leads else state.mapper  # columns of several classes are not of one statement
            path, token = state.load_path if options else None, token_of(state)
            alike.setdefault((token, kind, options, path), []).append(state)
    is_sharded = chooses_connections(session)
    for states in alike.values():
        if leads and not is_sharded and is_by_key(attribute.property):
            yield partial(_load_by_key, session, attribute.property, states)
            continue
        for start in range(0, len(states), CHUNK):
            chunk = states[start : start + CHUNK]
            if leads:
                yield partial(load_relationship, session, attribute.property, chunk)
            else:
                yield partial(load_columns, session, chunk, frozenset((key,)))


def _load_by_key(session: HookedSession, prop: Any, states: Sequence[State]) -> None:
    without_key = load_by_key(session, prop, states, len(states) + 1)
    if without_key:  # expired, or its column deferred
        load_relationship(session, prop, without_key)


async def _compute(objects: list[object], computed: Computed[Any]) -> list[Any]:
    by_session = await _states(objects)
    if not all(inspect(each).mapper.isa(computed.owner) for each in objects):
        raise InvalidRequestError(
            f"load(): {computed} is computed for {computed.owner.class_.__name__} objects alone."
        )
    values: dict[Any, Any] = {}
    for session, own in by_session.items():
        alike: dict[Any, dict[Any, State]] = {}
        for state in own:
            alike.setdefault(shard_of(session, state), {})[_key(state)] = state
        for shard, there in alike.items():
            found, keys = dict[Any, Any](), [*there]
            options = without_flush(shard)
            chunks = [keys[start : start + MOST] for start in range(0, len(keys), MOST)]
            await load_together(
                session, [partial(computed.compute, session, chunk, found, options) for chunk in chunks]
            )
            values |= {(id(session), shard, key): value for key, value in found.items()}
    return [_value(each, computed, values) for each in objects]


def _value(instance: object, computed: Computed[Any], values: dict[Any, Any]) -> Any:
    state: Any = inspect(instance)
    session = state.session
    key = (id(session), shard_of(session, state), _key(state)) if state.has_identity else None
    return values[key] if key in values else computed.none()


def _key(state: Any) -> Any:
    return state.key[1]
