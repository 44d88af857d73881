"""Sessions over several databases at once, such as SQLAlchemy's `ShardedSession`.

A function of the user's says where each instance belongs.  Equal keys there are different rows, so what is loaded for
several instances is loaded for those of one database.
"""

from typing import Any


def chooses_connections(session: Any) -> bool:
    """Whether the session is told by a function where each instance belongs."""
    return session.connection_callable is not None


def shard_of(session: Any, state: Any) -> Any:
    """Which of the databases that such a session has an instance is from; None in a session of one."""
    return state.key[2] if chooses_connections(session) else None


def without_flush(session: Any, state: Any) -> dict[str, Any]:
    """Execution options of what is loaded for instances such as this one: nothing is flushed first."""
    shard = shard_of(session, state)
    return {"autoflush": False} if shard is None else {"autoflush": False, "identity_token": shard}
