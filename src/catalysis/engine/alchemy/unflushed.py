"""What of an instance is changed and not flushed, taken out as if it had been, and put back."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import inspect
from sqlalchemy.orm import InstanceState, Mapper


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


def take_as_updated(
    session: Any, mapper: Mapper[Any], key: Sequence[str], rows: Sequence[dict[str, Any]]
) -> None:
    """Give the session's instances what an UPDATE by primary key, the attributes `key`, has set.

    As SQLAlchemy does after one of its own: what is changed and not flushed is expired.
    """
    for row in rows:
        instance = session.identity_map.get(
            mapper.identity_key_from_primary_key(tuple(row[each] for each in key))
        )
        if instance is None:
            continue
        state: Any = inspect(instance)
        changed = row.keys() - set(key)
        unmodified = state.unmodified & changed
        state.dict.update({each: row[each] for each in unmodified & state.dict.keys()})
        state.manager.dispatch.refresh(state, None, unmodified)
        state._commit(state.dict, list(unmodified))
        if expired := (changed & state.dict.keys()) - unmodified:
            session.expire(instance, expired)
