"""After a flush: instances whose rows were written become clean and persistent, as `_register_persistent` makes them.

That looks at each as if its key might have changed.  Where it cannot have, it is quicker; others are left to it.
"""

from collections.abc import Iterable
from typing import Any


def settle(session: Any, states: Iterable[Any]) -> set[Any]:
    """Settle the saved states of a flush; those that are left are SQLAlchemy's to settle."""
    if session.dispatch.pending_to_persistent:
        return set(states)
    left = set[Any]()
    transaction, new, identity_map = session._transaction, session._new, session.identity_map
    known = identity_map._dict
    keys: dict[Any, tuple[str, ...]] = {}
    for state in states:
        mapper = state.manager.mapper
        names = keys.get(mapper)
        if names is None:
            names = keys[mapper] = tuple([each.key for each in mapper._identity_key_props])
        if state.obj() is None:
            left.add(state)
        elif state.key is not None:
            if known.get(state.key) is not state or _has_moved(state, names):
                left.add(state)
            else:
                transaction._dirty[state] = True
                _make_clean(state, identity_map)
        elif (key := _key_of(state, names, mapper)) is None or key in known:
            left.add(state)
        else:
            state.key = key
            known[key] = state
            state._instance_dict = identity_map._wr
            transaction._new[state] = True
            _make_clean(state, identity_map)
            new.pop(state, None)
    return left


def _has_moved(state: Any, names: tuple[str, ...]) -> bool:
    """Whether its key may be another than before the flush."""
    values, before = state.dict, state.committed_state
    return any(name in before or name not in values for name in names)


def _key_of(state: Any, names: tuple[str, ...], mapper: Any) -> Any:
    """The key of a new instance; None if it is not there, or only in part."""
    values = state.dict
    key = tuple([values.get(name) for name in names])
    return None if None in key else (mapper._identity_class, key, state.identity_token)


def _make_clean(state: Any, identity_map: Any) -> None:
    """What `InstanceState._commit_all_states` does to each."""
    state.committed_state.clear()
    state.__dict__.pop("_pending_mutations", None)
    if expired := state.expired_attributes:
        expired.difference_update(state.dict)
    if state.modified:
        identity_map._modified.discard(state)
    state.modified = state.expired = False
    state._strong_obj = None
    state._orphaned_outside_of_session = False
