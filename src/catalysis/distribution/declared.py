"""Which tables are distributed, and how: kept with the table, for classes and bare tables alike."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast
from weakref import WeakSet

from sqlalchemy import MetaData, Table, event
from sqlalchemy.orm import Mapper

from catalysis.engine.alchemy.carrying import DISTRIBUTION
from catalysis.errors import ModelError


@dataclass(frozen=True, slots=True)
class Distributed:
    """Rows are divided among shards by the value of one column, which every key of the table includes."""

    by: str
    """The distribution column's name."""
    colocate_with: str | None = None
    """A table whose shards they lie beside, or "none" for a group of their own; None: with all others whose column
    has the same type, as Citus does by itself."""


@dataclass(frozen=True, slots=True)
class Reference:
    """All rows are on every node: for small tables that others join with and refer to."""


@dataclass(frozen=True, slots=True)
class Local:
    """Rows are on the coordinator alone, as without a word; takes back what a base class says."""


Distribution = Distributed | Reference | Local

_metadata: WeakSet[MetaData] = WeakSet()
"""Those with a table that is not local."""


def distribution_of(table: Any) -> Distribution:
    """What a table says of itself; `Local` where it says nothing."""
    return table.info.get(DISTRIBUTION, Local())


def has_distributed() -> bool:
    """Whether any table is more than local."""
    return bool(_metadata)


def is_clustered(metadata: MetaData) -> bool:
    """Whether a table of this metadata is."""
    return metadata in _metadata


def placed_tables(metadata: MetaData) -> list["Table[Any]"]:
    """The tables that are not local, those that others refer to first."""
    ordered = cast("Iterable[Table[Any]]", metadata.sorted_tables)
    return [table for table in ordered if not isinstance(distribution_of(table), Local)]


@event.listens_for(Table, "after_parent_attach")
def _note_table(table: "Table[Any]", metadata: MetaData) -> None:
    if not isinstance(distribution_of(table), Local):
        _metadata.add(metadata)


@event.listens_for(Mapper, "after_mapper_constructed")
def _note_class(mapper: Mapper[Any], cls: type[Any]) -> None:
    said = getattr(cls, "__distribution__", None)
    table: Any = mapper.local_table
    inherited = mapper.inherits is not None and mapper.inherits.local_table is table
    if said is None or inherited or not hasattr(table, "metadata"):
        return
    if not isinstance(said, Distributed | Reference | Local):
        raise ModelError(
            f'{cls.__name__}.__distribution__ is a {type(said).__name__}.  Say `Distributed(by="tenant_id")`, '
            "`Reference()` or `Local()`."
        )
    table.info[DISTRIBUTION] = said
    _note_table(table, table.metadata)
