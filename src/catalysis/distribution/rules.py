"""What Citus asks of distributed tables, checked before a statement or a migration meets a cluster.

Source: Citus documentation, "Creating and Modifying Distributed Objects (DDL)", on keys and constraints; for what a
foreign key may do when its parent changes, the comment on `ErrorIfUnsupportedForeignConstraintExists` in Citus.
"""

from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import ForeignKeyConstraint, MetaData, PrimaryKeyConstraint, UniqueConstraint, event
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import NoReferencedColumnError, NoReferencedTableError
from sqlalchemy.orm import Mapper

from catalysis.distribution.declared import Distributed, Local, Reference, distribution_of, is_clustered
from catalysis.errors import ModelError

_DIALECT: Any = postgresql.dialect()

_checked: WeakKeyDictionary[MetaData, int] = WeakKeyDictionary()
"""How many tables each had when all of them were in order."""


@event.listens_for(Mapper, "before_mapper_configured")
def _check_mapped(mapper: Mapper[Any], cls: type[Any]) -> None:
    metadata = getattr(mapper.local_table, "metadata", None)
    if metadata is not None and is_clustered(metadata):
        check_distribution(metadata)


def check_distribution(metadata: MetaData) -> None:
    """Check that a cluster could take the tables as they say they are distributed.

    Raises:
        ModelError: naming the table, the constraint that is in the way, and the mend.
    """
    if not is_clustered(metadata) or _checked.get(metadata) == len(metadata.tables):
        return
    for table in metadata.tables.values():
        distribution = distribution_of(table)
        if isinstance(distribution, Distributed):
            _check_column(table, distribution)
            _check_colocation(table, distribution)
        for constraint in table.foreign_key_constraints:
            _check_foreign_key(table, constraint)
    _checked[metadata] = len(metadata.tables)


def _check_column(table: Any, distribution: Distributed) -> None:
    if distribution.by not in table.c:
        raise ModelError(
            f"Table {table.name!r} is distributed by {distribution.by!r}, but has no such column.  Add it, or name "
            "another: `Distributed(by=…)`."
        )
    for what, columns in _unique_keys(table):
        if distribution.by not in columns:
            raise ModelError(
                f"Table {table.name!r} is distributed by {distribution.by!r}, but its {what} ({', '.join(columns)}) "
                f"does not include that column: no node of a cluster sees all rows.  Add {distribution.by!r} to it"
                + (" with primary_key=True." if what == "primary key" else ".")
            )


def _unique_keys(table: Any) -> Iterator[tuple[str, list[str]]]:
    for constraint in table.constraints:
        columns = [column.name for column in getattr(constraint, "columns", ())]
        if isinstance(constraint, PrimaryKeyConstraint) and columns:
            yield "primary key", columns
        elif isinstance(constraint, UniqueConstraint):
            yield "unique constraint", columns
    for index in table.indexes:
        if index.unique:
            yield f"unique index {index.name!r}", [column.name for column in index.columns]


def _check_colocation(table: Any, distribution: Distributed) -> None:
    named = distribution.colocate_with
    if named is None or named == "none":
        return
    other = _named(table, named)
    if other is None or not isinstance(distribution_of(other), Distributed):
        raise ModelError(
            f"Table {table.name!r} is to lie beside {named!r}, which is no distributed table.  Name one in "
            "`Distributed(colocate_with=…)`, or leave that out."
        )
    if _kind(other) != _kind(table):
        raise ModelError(
            f"Table {table.name!r} is to lie beside {named!r}, whose distribution column has another type: "
            f"{_kind(other)}, not {_kind(table)}.  Give both columns the same."
        )


def _named(table: Any, name: str) -> Any:
    tables = table.metadata.tables
    return tables.get(f"{table.schema}.{name}") if table.schema and "." not in name else tables.get(name)


def _distributed(table: Any) -> Distributed | None:
    said = distribution_of(table)
    return said if isinstance(said, Distributed) and said.by in table.c else None


def _kind(table: Any) -> str:
    said = _distributed(table)
    return "" if said is None else table.c[said.by].type.compile(_DIALECT)


def _group(table: Any) -> object:
    """What tables that lie beside each other have in common."""
    seen: list[Any] = []
    while table not in seen and (said := _distributed(table)) is not None:
        if said.colocate_with is None:
            return _kind(table)
        if said.colocate_with == "none":
            return table
        seen.append(table)
        table = _named(table, said.colocate_with)
        if table is None:
            break
    return None


def _check_foreign_key(table: Any, constraint: ForeignKeyConstraint) -> None:
    try:
        referred: Any = constraint.referred_table
        pairs = [(each.parent.name, each.column.name) for each in constraint.elements]
    except (
        NoReferencedTableError,
        NoReferencedColumnError,
    ):  # SQLAlchemy says so, and `diagnosis` explains it
        return
    here, there = distribution_of(table), distribution_of(referred)
    wrong = None
    if isinstance(here, Distributed) and isinstance(there, Distributed):
        if (here.by, there.by) not in pairs:
            wrong = (
                f"both are distributed, and it does not go from {table.name}.{here.by} to {referred.name}.{there.by}.  "
                f"Make it a composite one: `ForeignKeyConstraint([{here.by!r}, …], ['{referred.name}.{there.by}', …])`"
            )
        elif _group(table) != _group(referred):
            wrong = (
                "their shards do not lie beside each other.  Say "
                f"`Distributed({here.by!r}, colocate_with={referred.name!r})`"
            )
    elif isinstance(there, Distributed):
        kind = "a reference table" if isinstance(here, Reference) else "local"
        wrong = (
            f"{table.name!r} is {kind}, and {referred.name!r} is distributed.  Distribute both, or neither"
        )
    elif isinstance(here, Distributed) and isinstance(there, Local):
        wrong = f"{table.name!r} is distributed, and {referred.name!r} is local.  Make that `Reference()`"
    if wrong is None and isinstance(here, Distributed) and here.by in dict(pairs):
        wrong = _wrong_action(here, constraint)
    if wrong is not None:
        raise ModelError(
            f"The foreign key of {table.name!r} to {referred.name!r} cannot be in a cluster: {wrong}."
        )


def _wrong_action(here: Distributed, constraint: ForeignKeyConstraint) -> str | None:
    """What would change the distribution column, which no cluster lets change."""
    deletes, updates = (
        " ".join((each or "").upper().split()) for each in (constraint.ondelete, constraint.onupdate)
    )
    if deletes in ("SET NULL", "SET DEFAULT"):
        others = [each.parent.name for each in constraint.elements if each.parent.name != here.by]
        return (
            f"ON DELETE {deletes} would change {here.by!r}.  Write ondelete='{deletes} ({', '.join(others)})'"
        )
    if updates in ("SET NULL", "SET DEFAULT", "CASCADE"):
        return f"ON UPDATE {updates} would change {here.by!r}.  Leave onupdate out"
    return None
