"""Distribution in revisions: Citus's own three verbs as operations, and how autogenerate finds where they are needed.

On a database without Citus the operations do nothing, so one history of revisions serves a file, a server and a
cluster.  Such a database cannot tell whether a table of its own was meant to be distributed: there autogenerate writes
the operations for new tables alone; on a cluster, for every table that is not as its model says.
"""

import logging
from collections.abc import Iterator
from typing import Any

from alembic.autogenerate.api import AutogenContext
from alembic.autogenerate.render import renderers
from alembic.operations import Operations
from alembic.operations.ops import CreateTableOp, DropTableOp, MigrateOperation, UpgradeOps
from alembic.runtime.plugins import Plugin
from alembic.util import DispatchPriority, PriorityDispatchResult
from sqlalchemy import text

from catalysis.distribution.declared import Distributed, Distribution, Local, Reference
from catalysis.distribution.placing import HAS_CITUS, Placement, has_citus
from catalysis.distribution.rules import check_distribution
from catalysis.engine.alchemy.carrying import DISTRIBUTION

_log = logging.getLogger(__name__)

PLACED = text(
    """
    SELECT nspname AS schema, nspname = current_schema() AS is_default, relname AS name, citus_table_type AS kind,
        distribution_column AS column
    FROM citus_tables
    JOIN pg_class ON pg_class.oid = table_name
    JOIN pg_namespace ON pg_namespace.oid = relnamespace
    """
)

TableKey = tuple[str | None, str]
"""Schema and name; a table of the default schema is found under None too."""


class DistributionOp(MigrateOperation):
    """An operation on one table's distribution; `cascades`: it has foreign keys, or is referred to."""

    def __init__(self, placement: Placement, *, cascades: bool = False, with_table: bool = False) -> None:
        self.placement = placement
        self.cascades = cascades
        self.with_table = with_table
        """Whether the same revision makes or drops the table, which drops its shards with it."""
        if with_table:
            # Alembic counts what such an operation holds as the differences: the table itself is one already.
            self.ops: tuple[MigrateOperation, ...] = ()


@Operations.register_operation("create_distributed_table")
@Operations.register_operation("create_reference_table")
class PlaceTableOp(DistributionOp):
    """See `create_distributed_table` and `create_reference_table`."""

    @classmethod
    def create_distributed_table(
        cls,
        operations: Operations,
        table_name: str,
        distribution_column: str,
        *,
        colocate_with: str | None = None,
        schema: str | None = None,
    ) -> None:
        """Divide the table's rows among shards by a column, on a cluster of Citus; nothing elsewhere.

        `colocate_with`: a table beside whose shards they are to lie, or "none".
        """
        operations.invoke(cls(Placement(table_name, Distributed(distribution_column, colocate_with), schema)))

    @classmethod
    def create_reference_table(
        cls, operations: Operations, table_name: str, *, schema: str | None = None
    ) -> None:
        """Keep all rows of the table on every node of a cluster of Citus; nothing elsewhere."""
        operations.invoke(cls(Placement(table_name, Reference(), schema)))

    def reverse(self) -> MigrateOperation:
        """Take it back."""
        return UndistributeTableOp(self.placement, cascades=self.cascades, with_table=self.with_table)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """For `check`."""
        return ("place_table", self.placement.table, str(self.placement))


@Operations.register_operation("undistribute_table")
class UndistributeTableOp(DistributionOp):
    """See `undistribute_table`."""

    @classmethod
    def undistribute_table(
        cls,
        operations: Operations,
        table_name: str,
        *,
        cascade_via_foreign_keys: bool = False,
        schema: str | None = None,
    ) -> None:
        """Bring the table's rows back to the coordinator, where the table is distributed; nothing elsewhere.

        `cascade_via_foreign_keys`: those of all tables that foreign keys join to it too, without which Citus refuses.
        """
        operations.invoke(cls(Placement(table_name, Local(), schema), cascades=cascade_via_foreign_keys))

    def reverse(self) -> MigrateOperation:
        """Distribute it as it was."""
        return PlaceTableOp(self.placement, cascades=self.cascades, with_table=self.with_table)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """For `check`."""
        return ("undistribute_table", self.placement.table, str(self.placement))


@Operations.implementation_for(PlaceTableOp)
def _place(operations: Operations, operation: PlaceTableOp) -> None:
    if _meets_citus(operations, operation.placement.create):
        operations.get_bind().exec_driver_sql(f"SELECT {operation.placement.create}")


@Operations.implementation_for(UndistributeTableOp)
def _undistribute(operations: Operations, operation: UndistributeTableOp) -> None:
    placement = operation.placement
    call = placement.undistribute(cascade=operation.cascades)
    if _meets_citus(operations, call) and (placement.schema, placement.table) in placed_in(
        operations.get_bind()
    ):
        operations.get_bind().exec_driver_sql(f"SELECT {call}")


def _meets_citus(operations: Operations, call: str) -> bool:
    """Whether there is a cluster to send the call to; offline it is written down with that question."""
    context = operations.get_context()
    if context.dialect.name != "postgresql":
        return False
    if context.as_sql:
        asked = f"DO $$ BEGIN IF ({HAS_CITUS}) THEN PERFORM {call}; END IF; END $$"
        operations.execute(asked.replace(":", r"\:"))
        return False
    if not has_citus(operations.get_bind()):
        _log.info("%s was passed over: this database has no Citus", call)
        return False
    return True


def placed_in(connection: Any) -> dict[TableKey, Distribution]:
    """How the tables of a cluster are distributed; local ones are not among them."""
    found: dict[TableKey, Distribution] = {}
    for row in connection.execute(PLACED):
        if row.kind in ("distributed", "reference"):
            found[row.schema, row.name] = (
                Distributed(row.column) if row.kind == "distributed" else Reference()
            )
            if row.is_default:
                found[None, row.name] = found[row.schema, row.name]
    return found


@renderers.dispatch_for(PlaceTableOp)
def _render_place(autogen_context: AutogenContext, operation: PlaceTableOp) -> str:
    arguments = [repr(operation.placement.table)]
    match operation.placement.distribution:
        case Distributed(by, colocate_with):
            verb = "create_distributed_table"
            arguments += [repr(by), *([f"colocate_with={colocate_with!r}"] if colocate_with else [])]
        case _:
            verb = "create_reference_table"
    return _call(autogen_context, verb, arguments, operation)


@renderers.dispatch_for(UndistributeTableOp)
def _render_undistribute(autogen_context: AutogenContext, operation: UndistributeTableOp) -> str | list[str]:
    if operation.with_table:
        return []
    cascade = ["cascade_via_foreign_keys=True"] if operation.cascades else []
    return _call(
        autogen_context, "undistribute_table", [repr(operation.placement.table), *cascade], operation
    )


def _call(autogen_context: AutogenContext, verb: str, arguments: list[str], operation: DistributionOp) -> str:
    if operation.placement.schema:
        arguments.append(f"schema={operation.placement.schema!r}")
    return f"{autogen_context.opts['alembic_module_prefix']}{verb}({', '.join(arguments)})"


def setup(plugin: Plugin) -> None:
    """Called by Alembic for a module that is a plugin."""
    plugin.add_autogenerate_comparator(
        compare_distribution, "autogenerate", "distribution", priority=DispatchPriority.LAST
    )


def compare_distribution(autogen_context: AutogenContext, upgrade_ops: UpgradeOps) -> PriorityDispatchResult:
    """Put what distributes tables behind the operations found so far, those that others refer to first.

    Raises:
        ModelError: a model says what no cluster would take.
    """
    tables: list[Any] = autogen_context.sorted_tables
    for metadata in {table.metadata for table in tables}:
        check_distribution(metadata)
    created = {_table_key(each): each for each in upgrade_ops.ops if isinstance(each, CreateTableOp)}
    for creation in created.values():
        creation.info.pop(DISTRIBUTION, None)  # Alembic would write it into the revision
    connection = autogen_context.connection
    placed = placed_in(connection) if connection is not None and has_citus(connection) else None
    gone = [
        UndistributeTableOp(Placement(each.table_name, placed[key], each.schema), with_table=True)
        for each in upgrade_ops.ops
        if isinstance(each, DropTableOp) and placed and (key := _table_key(each)) in placed
    ]
    changed = [
        operation for table in tables for operation in _changes(autogen_context, table, created, placed)
    ]
    upgrade_ops.ops = [*gone, *upgrade_ops.ops, *changed]
    return PriorityDispatchResult.CONTINUE


def _table_key(operation: CreateTableOp | DropTableOp) -> TableKey:
    return operation.schema, operation.table_name


def _changes(
    autogen_context: AutogenContext,
    table: Any,
    created: dict[TableKey, CreateTableOp],
    placed: dict[TableKey, Distribution] | None,
) -> Iterator[DistributionOp]:
    said, key = Placement.of(table), (table.schema, table.name)
    if key in created:
        if said.create:
            yield PlaceTableOp(said, with_table=True)
        return
    if placed is None or not autogen_context.run_object_filters(table, table.name, "table", False, table):
        return
    found = Placement(table.name, placed.get(key, Local()), table.schema)
    if str(found) == str(said):
        return
    cascades = _is_joined(table)
    if found.create:
        yield UndistributeTableOp(found, cascades=cascades)
    if said.create:
        yield PlaceTableOp(said, cascades=cascades)


def _is_joined(table: Any) -> bool:
    """Whether it has foreign keys, or is referred to by any."""
    others = (each for every in table.metadata.tables.values() for each in every.foreign_keys)
    return bool(table.foreign_keys) or any(each.references(table) for each in others)
