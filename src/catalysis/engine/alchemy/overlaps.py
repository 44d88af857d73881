"""What a relationship was told that it overlaps with."""

from collections.abc import Iterable
from typing import Any


def overlaps_of(relation: Any) -> Iterable[str]:
    """The names given as `overlaps=` of a `relationship`, which SQLAlchemy keeps to itself."""
    return relation._overlaps
