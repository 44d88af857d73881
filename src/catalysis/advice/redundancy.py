"""Which indexes could go: what another one does as well, and what nobody has used.  Pure functions.

An index that is unique, or a constraint's, is never among them: it has more to do than to be searched.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from catalysis.advice.catalog import Catalog, ExistingIndex
from catalysis.advice.definitions import IndexDefinition, is_served_by

UNUSED_DAYS = 30
"""So long statistics must have been counted before an index that was never scanned is called unused."""


@dataclass(frozen=True, slots=True)
class IndexToDrop:
    """An index that could go, and why."""

    index: ExistingIndex
    reason: str

    @property
    def name(self) -> str:
        """Of the index."""
        return self.index.name

    @property
    def size(self) -> int | None:
        """Its bytes, where the database tells."""
        return self.index.size


def find_redundant(
    catalog: Catalog,
    proposed: Iterable[IndexDefinition] = (),
    *,
    unused_days: float = UNUSED_DAYS,
    now: datetime | None = None,
) -> tuple[IndexToDrop, ...]:
    """The indexes that could go, each with its reason; `proposed` are taken for being there."""
    there = [each for each in catalog.indexes if each.valid]
    optional = [each for each in there if not (each.unique or each.needed)]
    dropped: dict[str, IndexToDrop] = {}
    for each in sorted(optional, key=lambda one: (len(one.definition.keys), one.scans or 0, one.name)):
        reason = _served_by_another(each, there, dropped.keys())
        reason = reason or _served_by_proposed(each, proposed) or _unused(each, catalog, unused_days, now)
        if reason is not None:
            dropped[_key(each)] = IndexToDrop(each, reason)
    return tuple(dropped.values())


def _key(index: ExistingIndex) -> str:
    return f"{index.definition.table} {index.name}"


def _served_by_another(
    index: ExistingIndex, there: Sequence[ExistingIndex], dropped: Iterable[str]
) -> str | None:
    for other in there:
        if other is index or _key(other) in dropped or not is_served_by(index.definition, other.definition):
            continue
        if len(other.definition.keys) == len(index.definition.keys):
            return f"a duplicate of {other.name}"
        return f"its columns are the first of {other.name}, which serves the same searches"
    return None


def _served_by_proposed(index: ExistingIndex, proposed: Iterable[IndexDefinition]) -> str | None:
    for other in proposed:
        if is_served_by(index.definition, other):
            return f"its columns are the first of {other.name}, once that is made"
    return None


def _unused(index: ExistingIndex, catalog: Catalog, unused_days: float, now: datetime | None) -> str | None:
    if index.scans != 0 or catalog.counted_since is None:
        return None
    counted = (now or datetime.now(UTC)) - catalog.counted_since
    if counted < timedelta(days=unused_days):
        return None
    return (
        f"not used once in the {counted.days} days for which use is counted here; "
        "look at replicas, and whether it is younger than that"
    )
