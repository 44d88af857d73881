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
    dirty, born = transaction._dirty, transaction._new
    known, modified, weak = identity_map._dict, identity_map._modified, identity_map._wr
    keys: dict[Any, tuple[Any, tuple[str, ...]]] = {}
    for state in states:
        manager, instance = state.manager, state.obj()
        if instance is None:
            left.add(state)
            continue
        values, before = instance.__dict__, state.committed_state
        if manager not in keys:
            mapper = manager.mapper
            names = tuple([each.key for each in mapper._identity_key_props])
            keys[manager] = mapper._identity_class, names
        identity_class, names = keys[manager]
        if (key := state.key) is not None:
            moved = [name for name in names if name in before or name not in values]
            if moved or known.get(key) is not state:
                left.add(state)
                continue
            dirty[state] = True
        else:
            parts = tuple([values.get(name) for name in names])
            key = identity_class, parts, state.identity_token
            if None in parts or key in known or state not in new:
                left.add(state)
                continue
            state.key = key
            known[key] = state
            state._instance_dict = weak
            born[state] = True
            del new[state]
        # And what `InstanceState._commit_all_states` does to each.
        before.clear()
        own = state.__dict__
        if "_pending_mutations" in own:
            del own["_pending_mutations"]
        if expired := state.expired_attributes:
            expired.difference_update(values)
        if state.modified:
            modified.discard(state)
        state.modified = state.expired = state._orphaned_outside_of_session = False
        state._strong_obj = None
    return left
