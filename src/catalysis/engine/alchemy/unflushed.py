"""What of an instance is changed and not flushed, taken out as if it had been, and put back."""

from typing import Any, NamedTuple

from sqlalchemy.orm import InstanceState


class Taken(NamedTuple):
    """The unflushed state of one instance, before something of it was taken."""

    state: Any
    committed: dict[str, Any]
    instance: object


def changed_attributes(state: InstanceState[Any]) -> frozenset[str]:
    """The column attributes whose values a flush would send; a comparison may have no truth, as one of arrays."""
    known: Any = state
    columns = state.mapper.column_attrs
    return frozenset(
        key
        for key, before in known.committed_state.items()
        if key in columns
        and key in state.dict
        and columns[key].columns[0].type.compare_values(state.dict[key], before) is not True
    )


def take_as_saved(session: Any, state: Any, names: frozenset[str]) -> Taken:
    """Let these attributes count as saved; a rollback expires them, as it does what was flushed."""
    instance = state.obj()
    taken = Taken(state, dict(state.committed_state), instance)
    if names >= state.committed_state.keys() and not state.__dict__.get("_pending_mutations"):
        state._commit_all(state.dict, session.identity_map)
    else:
        state._commit(state.dict, names)
    session._register_altered([state])
    return taken


def put_back(session: Any, taken: Taken) -> None:
    """Let the attributes count as unsaved again."""
    state = taken.state
    if state.session_id != session.hash_key or state.key not in session.identity_map:
        return
    state.committed_state.update(taken.committed)
    if not state.modified:
        state.modified = True
        session.identity_map._modified.add(state)
        state._strong_obj = taken.instance
