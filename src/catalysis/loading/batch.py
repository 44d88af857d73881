"""One touched attribute, all its peers, one statement."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Result

from catalysis.engine.alchemy.touches import (
    State,
    Touch,
    answer_for,
    is_batched,
    load_columns,
    load_relationship,
    may_load_for,
)
from catalysis.loading.peers import Peers


def load_with_peers(session: Any, peers: Peers, touch: Touch) -> Result[Any] | None:
    """Load what is touched for the instance and its peers, and answer the touch; inside a greenlet.

    None: its statement serves it alone, or it is a relationship and no peer lacks it; SQLAlchemy loads it by itself.
    """
    if not is_batched(touch):
        return None
    states = peers.around(session, touch.state, lambda state: may_load_for(state, touch, session))
    if len(states) < 2 and touch.relationship is not None:
        return None
    load_touched(session, touch, states)
    return answer_for(touch)


def load_touched(session: Any, touch: Touch, states: Sequence[State]) -> None:
    """Load the attributes of a touch for these; inside a greenlet."""
    if touch.relationship is None:
        load_columns(session, states, touch.keys)
    else:
        load_relationship(session, touch.relationship, states)
