"""Instances by their key: found in a session without asking anybody, and refreshed one by one where that is plain."""

from typing import Any, cast
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Mapper, loading

_PLAIN_KEYS = (int, str, UUID, bytes)


def plain_key(entity: Any, identity: Any) -> tuple[Mapper[Any], tuple[Any, ...]] | None:
    """The mapper and key of a `get` that asks for nothing unusual; None for SQLAlchemy to make sense of."""
    mapper: Any = getattr(entity, "__mapper__", None)
    if mapper is None or mapper.class_ is not entity or mapper.always_refresh:
        return None
    key: tuple[Any, ...] = cast("Any", identity) if isinstance(identity, tuple) else (identity,)
    plain = all(isinstance(value, _PLAIN_KEYS) for value in key) and len(key) == len(mapper.primary_key)
    return (mapper, key) if plain else None


ABSENT, UNSURE = object(), object()


def known_instance(session: Any, mapper: Any, key: tuple[Any, ...]) -> Any:
    """The instance in the identity map; `ABSENT`, or `UNSURE` where the database has to be asked about it."""
    state: Any = session.identity_map._dict.get((mapper._identity_class, key, None))
    instance = None if state is None else state.obj()
    if instance is None:
        return ABSENT
    if (
        state is None
        or state.expired
        or not isinstance(instance, mapper.class_)
        or not session.visible(instance)
    ):
        return UNSURE
    return instance


def refreshable_key(session: Any, instance: Any) -> tuple[Mapper[Any], Any] | None:
    """The mapper and key of an instance whose refreshing asks for nothing unusual; None for SQLAlchemy's to do."""
    state: Any = getattr(instance, "_sa_instance_state", None)
    if state is None or state.key is None or state.session_id != session.hash_key or state.load_options:
        return None
    manager, mapper = state.manager, state.manager.mapper
    heard = manager.dispatch
    if (
        heard.refresh
        or heard.load
        or heard.expire
        or not session._contains_state(state)
        or state in session._deleted
    ):
        return None
    return (mapper, state.key) if is_plain(mapper) and session.visible(instance) else None


_PLAIN = "_catalysis_refreshes_plainly"


def is_plain(mapper: Any) -> bool:
    """Whether a class is loaded by its own columns alone, one by one and at once."""
    if _PLAIN not in mapper.__dict__:
        plain = (
            len(mapper.primary_key) == 1
            and not mapper.polymorphic_map
            and not mapper.inherits
            and not any(each.deferred for each in mapper.column_attrs)
            and all(each.lazy in ("select", "raise", "raise_on_sql") for each in mapper.relationships)
        )
        mapper._set_memoized_attribute(_PLAIN, plain)  # forgotten when it gets another attribute
    return mapper.__dict__[_PLAIN]


def expire_whole(session: Any, instance: Any) -> None:
    """Expire all of an instance, and what its "refresh-expire" cascades reach."""
    state = instance._sa_instance_state
    if state.mapper.relationships._data.keys().isdisjoint(state.dict):  # nothing for a cascade to reach
        session._conditional_expire(state)
    else:
        session._expire_state(state, None)


def load_expired(session: Any, instance: Any) -> bool:
    """Let SQLAlchemy load all of an instance that has been expired, as its refresh goes on then; False if it has no
    row.  Inside a greenlet.
    """
    state, load = instance._sa_instance_state, cast("Any", loading)._load_on_ident
    found = load(
        session,
        select(state.mapper),
        state.key,
        refresh_state=state,
        require_pk_cols=True,
        no_autoflush=True,
        is_user_refresh=True,
    )
    return found is not None
