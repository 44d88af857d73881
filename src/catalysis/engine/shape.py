"""What one row of a plan holds, frozen: which columns become which attributes of which mapped class.

Nothing here knows SQLAlchemy's private names, a driver or a session; `hydrate.py` writes a function from it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Child:
    """A relationship that the same row loads."""

    attribute: str
    is_collection: bool
    is_plain_list: bool
    node: "Node"


@dataclass(frozen=True, slots=True)
class Node:
    """A mapped class at one place in the row."""

    number: int
    """Its place among the plan's nodes."""
    cls: type[Any]
    identity_class: type[Any]
    manager: Any
    """SQLAlchemy's `ClassManager` of the class."""
    load_path: Any
    """Where the class stands in the statement, in SQLAlchemy's terms."""
    key: tuple[int, ...]
    """The columns of the primary key."""
    needs_whole_key: bool
    """Whether one NULL in the key means that there is no instance; otherwise all of them must be NULL."""
    columns: tuple[tuple[str, int], ...]
    expired: tuple[str, ...]
    """Attributes the row does not hold, to be loaded when touched."""
    fresh: tuple[Callable[[Any, Any, Any], None], ...]
    """Called with (state, dict, row) for each new instance: what SQLAlchemy sets per instance, as `raiseload`."""
    children: tuple[Child, ...]
    loads_after: bool
    """Whether further statements load something for its instances (`selectinload`)."""

    @property
    def to_one(self) -> list[str]:
        """The attributes that the row fills with one instance each, or None."""
        return [child.attribute for child in self.children if not child.is_collection]


@dataclass(frozen=True, slots=True)
class Row:
    """A row: nodes and columns in the order in which they are selected."""

    entries: tuple[Node | int, ...]
    nodes: tuple[Node, ...]
    """All nodes, nested ones included, by number."""
    width: int
    is_scalar: bool
    """Whether the row is one instance, and handed out as such."""
    loads_after: bool
    has_options: bool
    """Whether the instances take options along, for what they load later."""
