"""One touched attribute, all its peers, one statement."""

from itertools import islice
from typing import Any

from sqlalchemy import Result

from catalysis.engine.alchemy.touches import (
    Touch,
    answer_for,
    is_batched,
    is_by_key,
    load_by_key,
    load_columns,
    load_relationship,
    peer_test,
)
from catalysis.loading.peers import Peers

CHUNK = 500
"""The most instances that one statement is sent for; of a to-one by its key, the most keys that it asks for."""
REACH = 4 * CHUNK
"""The most instances that one touch gives what they lack."""


def load_with_peers(session: Any, peers: Peers, touch: Touch) -> Result[Any] | None:
    """Load what is touched for the instance and its peers, and answer the touch; inside a greenlet.

    None: its statement serves it alone, or it is a relationship and no peer lacks it; SQLAlchemy loads it by itself.
    """
    if not is_batched(touch):
        return None
    around = peers.around(session, touch.state, peer_test(touch, session))
    prop = touch.relationship
    if prop is not None and is_by_key(prop):
        left = load_by_key(session, prop, islice(around, REACH), CHUNK, touch.options)
        return None if touch.state in left else answer_for(touch)
    states = list(islice(around, CHUNK))
    if prop is None:
        load_columns(session, states, touch.keys)
    elif len(states) > 1:
        load_relationship(session, prop, states, touch.options)
    else:
        return None
    return answer_for(touch)
