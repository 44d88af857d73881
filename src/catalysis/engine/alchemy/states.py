"""SQLAlchemy's state of an instance, made by a generated hydrator: smaller, and without a call.

`NativeState` keeps in slots what SQLAlchemy keeps in a dictionary for each instance, and makes two containers only
when somebody asks for them.  It means the same: what a slot does not hold reads as the default of the parent class.

Where `_instances.c` was compiled, one call of it makes an instance with its state, instead of the lines below.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel
from sqlalchemy.orm import InstanceState
from sqlmodel import SQLModel

from catalysis.engine.shape import Node

_private: Any = InstanceState


class NativeState(InstanceState[Any]):
    """The state of an instance that was loaded natively; pickled, it comes back as SQLAlchemy's own."""

    __slots__ = (
        "_instance_dict",
        "_strong_obj",
        "key",
        "load_options",
        "load_path",
        "runid",
        "session_id",
    )

    def __getattr__(self, name: str) -> Any:
        """What was never set, or deleted."""
        if name == "committed_state":
            self.committed_state = made = dict[str, Any]()
            return made
        if name == "expired_attributes":
            self.expired_attributes = expired = set[str]()
            return expired
        if name == "_instance_dict":
            return _nowhere
        if name in NativeState.__slots__:
            return getattr(InstanceState, name)
        raise AttributeError(name)

    @property
    def _unloaded_non_object(self) -> set[str]:
        """As the parent, which a flush asks for each row; it builds three sets to find out."""
        manager: Any = self.manager
        known, changed = self.dict, self.committed_state
        return {
            each.key
            for each in manager._scalar_loader_impls
            if each.key not in known and each.key not in changed
        }

    def __getstate__(self) -> dict[str, Any]:
        """As the parent, which looks into the dictionary for what is in slots here."""
        state: dict[str, Any] = _private.__getstate__(self)
        if self.key is not None:
            state["key"] = self.key
        if self.load_options:
            state["load_options"] = self.load_options
        return state

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Unpickled where Catalysis is not installed, it still is a state."""
        return InstanceState.__new__, (InstanceState,), self.__getstate__()


def state_class(manager: Any) -> type[NativeState]:
    """`NativeState` for one mapped class, which every state of it would otherwise be told.

    It is kept with the class itself, so that both go together.
    """
    if _KEPT not in manager.__dict__:
        fixed = {"__slots__": (), "class_": manager.class_, "manager": manager, "mapper": manager.mapper}
        setattr(manager, _KEPT, type("NativeState", (NativeState,), fixed))
    return getattr(manager, _KEPT)


_KEPT = "_catalysis_state_class"


def _nowhere() -> None:
    """In no identity map."""


# --- In C -----------------------------------------------------------------------------------------


def _compiled() -> Any:
    if os.environ.get("CATALYSIS_PURE_PYTHON", "0") not in ("", "0"):
        return None
    try:
        from catalysis.engine.alchemy import _instances

        _instances.prepare(NativeState, BaseModel)
    except (
        ImportError,
        AttributeError,
        TypeError,
    ):  # no compiler where it was installed, or slots that have changed
        return None
    return _instances


compiled: Any = _compiled()
"""The module in C; None without."""


def maker_arguments(node: Node) -> tuple[Any, ...] | None:
    """What a maker has to know of a node; None where only the lines below can make its instances."""
    if compiled is None or (is_model := _is_model(node.cls)) is None:
        return None
    names = tuple(name for name, _ in node.columns)
    return (
        node.cls,
        state_class(node.manager),
        node.identity_class,
        node.load_path,
        names,
        dict.fromkeys(("_sa_instance_state", *names, *node.to_one)),
        frozenset(node.expired) if node.expired else None,
        len(node.key),
        node.needs_whole_key,
        is_model,
    )


def _is_model(cls: type[Any]) -> bool | None:
    """Whether SQLModel makes its instances, or Python itself (False); None if somebody else has a hand in it."""
    makers = [each for each in cls.__mro__ if "__new__" in each.__dict__]
    return len(makers) == 2 if makers in ([SQLModel, object], [object]) else None


# --- Source lines for a hydrator ------------------------------------------------------------------

_slot: Any = BaseModel.__dict__
NAMES: dict[str, Any] = {
    "new_object": object.__new__,
    "set_fields_set": _slot["__pydantic_fields_set__"].__set__,
    "set_extra": _slot["__pydantic_extra__"].__set__,
    "set_private": _slot["__pydantic_private__"].__set__,
}
"""What the lines below refer to."""

IDENTITY_MAP = (
    "session = load.session",
    "identity_map = session.identity_map",
    "states, home = identity_map._dict, identity_map._wr",
    "get, session_id, number = states.get, session.hash_key, load.number",
)
"""`get(key)` gives the state of an instance the session knows; `states[key] = …` makes it known."""


def instance_lines(n: int, cls: type[Any], manager: Any, names: dict[str, Any]) -> Iterator[str]:
    """Lines that make `o{n}`, an empty instance of `C{n}`: what `ClassManager.new_instance` does."""
    names[f"S{n}"] = state_class(manager)
    names[f"set_dict{n}"] = next(
        each.__dict__["__dict__"].__set__ for each in cls.__mro__ if "__dict__" in each.__dict__
    )
    if _is_model(cls):
        yield f"o{n} = new_object(C{n})"
        yield f"set_fields_set(o{n}, set())"  # and the rest of sqlmodel's init_pydantic_private_attrs
        yield f"set_extra(o{n}, None)"
        yield f"set_private(o{n}, None)"
    else:
        names[f"new{n}"] = cls.__new__
        yield f"o{n} = new{n}(C{n})"


def state_lines(n: int, expired: Sequence[str], *, has_options: bool) -> Iterator[str]:
    """Lines that make `s{n}`, the state of the new instance `o{n}` of class `C{n}` with the key `k{n}`."""
    yield f"s{n} = new_object(S{n})"
    yield f"s{n}.obj = ref(o{n}, s{n}._cleanup)"
    yield f"s{n}.key = k{n}"
    yield f"s{n}.session_id = session_id"
    yield f"s{n}._instance_dict = home"
    yield f"s{n}.runid = number"
    yield f"s{n}._strong_obj = None"
    if has_options:
        yield f"s{n}.load_options = options"
    yield f"s{n}.load_path = P{n}"
    if expired:
        yield f"s{n}.expired_attributes = {set(expired)}"
