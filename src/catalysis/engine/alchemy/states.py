"""Source lines for a generated hydrator: a session's identity map, and SQLAlchemy's state of a new instance.

What `InstanceState.__init__` and `loading._instance` do for each new instance, without their calls.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy.orm import InstanceState

NAMES: dict[str, Any] = {"State": InstanceState, "new_state": InstanceState.__new__}
"""What the lines below refer to."""

IDENTITY_MAP = (
    "session = run.session",
    "identity_map = session.identity_map",
    "states, home = identity_map._dict, identity_map._wr",
    "get, session_id, number = states.get, session.hash_key, run.number",
)
"""`get(key)` gives the state of an instance the session knows; `states[key] = …` makes it known."""


def state_lines(n: int, expired: Sequence[str]) -> Iterator[str]:
    """Lines that make `s{n}`, the state of the new instance `o{n}` of class `C{n}` with the key `k{n}`."""
    yield f"s{n} = new_state(State)"
    yield f"s{n}.class_ = C{n}"
    yield f"s{n}.manager = M{n}"
    yield f"s{n}.obj = ref(o{n}, s{n}._cleanup)"
    yield f"s{n}.committed_state = {{}}"
    yield f"s{n}.expired_attributes = {set(expired) or 'set()'}"
    yield (
        f"s{n}.__dict__ = {{'key': k{n}, 'identity_token': None, 'session_id': session_id, '_instance_dict': home, "
        f"'runid': number, 'load_options': options, 'load_path': P{n}}}"
    )
