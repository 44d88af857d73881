"""Who was loaded together: the instances of one load, found again when one of them is touched.

Nothing is noted while rows become instances.  Each carries the number of the load that brought it, and a session
keeps its instances in the order in which they came, so that the peers of one are looked for backwards from the
latest, until there come only strangers.  What was found is kept for the next touch, by weak reference.
"""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from sqlalchemy.orm.attributes import instance_state

from catalysis.engine.alchemy.touches import State, latest_states, load_number

STRANGERS = 2_000
"""So many instances of other loads in a row end the search."""
GROUPS = 8
"""The groups a session keeps."""


class Peers:
    """The groups of one session."""

    def __init__(self) -> None:
        self._groups: dict[tuple[int | None, Any], _Group] = {}

    def around(self, session: Any, state: State, belongs: Callable[[State], bool]) -> Iterator[State]:
        """The touched state and its peers that belong: those that came after it, then those before it."""
        key = (load_number(state), state.mapper.base_mapper)
        group = self._groups.pop(key, None)
        place = None if group is None else group.place(state)
        if group is None or place is None:
            group = _Group(_loaded_with(session, *key))
            place = group.place(state)
        self._groups[key] = group  # the latest stands last
        while len(self._groups) > GROUPS:
            del self._groups[next(iter(self._groups))]
        return iter((state,)) if place is None else group.around(place, belongs)


class _Group:
    """Weak references to the instances of one class that one load brought, in their order."""

    def __init__(self, states: list[State]) -> None:
        self._members: list[Any] = [state.obj for state in states]
        self._places = {id(reference): place for place, reference in enumerate(self._members)}

    def place(self, state: State) -> int | None:
        return self._places.get(id(state.obj))

    def around(self, place: int, belongs: Callable[[State], bool]) -> Iterator[State]:
        for near in chain(range(place, len(self._members)), range(place - 1, -1, -1)):
            instance = self._members[near]()
            if instance is not None and belongs(state := instance_state(instance)):
                yield state


def _loaded_with(session: Any, number: int | None, base: Any) -> list[State]:
    window = 2 * STRANGERS
    while True:
        latest = latest_states(session, window)
        is_end = len(latest) < window
        if is_end or not any(load_number(state) == number for state in latest[-STRANGERS:]):
            return list(_of(latest, number, base))
        window *= 4


def _of(latest: list[State], number: int | None, base: Any) -> Iterator[State]:
    for state in reversed(latest):
        if load_number(state) == number and state.mapper.base_mapper is base:
            yield state
