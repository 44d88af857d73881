"""Sessions over several databases at once, such as SQLAlchemy's `ShardedSession`.

A function of the user's says where each instance belongs.  Equal keys there are different rows, so what is loaded for
several instances is loaded for those of one database.
"""

from collections.abc import Iterable
from typing import Any


def chooses_connections(session: Any) -> bool:
    """Whether the session is told by a function where each instance belongs."""
    return session.connection_callable is not None


def shard_of(session: Any, state: Any) -> Any:
    """Which of the databases that such a session has an instance is from; None in a session of one."""
    return token_of(state) if chooses_connections(session) else None


def token_of(state: Any) -> Any:
    """What tells rows of equal keys apart, in such a session or where a statement's options say; None mostly."""
    return state.key[2]


def by_token(states: Iterable[Any]) -> Iterable[list[Any]]:
    """The states, those of one token together."""
    found: dict[Any, list[Any]] = {}
    for state in states:
        found.setdefault(token_of(state), []).append(state)
    return found.values()


def without_flush(token: Any) -> dict[str, Any]:
    """Execution options of what is loaded for instances of one token: nothing is flushed first."""
    return {"autoflush": False} if token is None else {"autoflush": False, "identity_token": token}
