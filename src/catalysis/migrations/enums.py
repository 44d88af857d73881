"""Native enum types in revisions: three operations, and how autogenerate finds where they are needed.

`op.create_enum`, `op.alter_enum` and `op.drop_enum` say what type there is after them; where the database has no
enum types (SQLite) they do nothing, so one revision serves both.  Columns are written with `create_type=False`:
the types live and die by these operations alone.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from alembic.autogenerate.api import AutogenContext
from alembic.autogenerate.render import renderers
from alembic.operations import Operations
from alembic.operations.ops import (
    AddColumnOp,
    AlterColumnOp,
    CreateTableOp,
    DropColumnOp,
    DropTableOp,
    MigrateOperation,
    ModifyTableOps,
    UpgradeOps,
)
from alembic.runtime.plugins import Plugin
from alembic.util import DispatchPriority, PriorityDispatchResult
from sqlalchemy import ARRAY, Column, Enum, MetaData, Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql.base import PGInspector
from sqlalchemy.types import TypeDecorator, TypeEngine

from catalysis.errors import MigrationError
from catalysis.migrations.alter_enum import EnumChange

POSTGRESQL = postgresql.dialect()

EnumKey = tuple[str | None, str]
"""Schema (None: the default one) and name of a type."""

Place = tuple[str | None, str, str]
"""Schema, table and column."""


class EnumOp(MigrateOperation):
    """An operation on one enum type; `values` are its values afterwards, `old_values` those before."""

    verb: str

    def __init__(
        self, name: str, values: Sequence[str], *, old_values: Sequence[str] = (), schema: str | None = None
    ) -> None:
        self.name = name
        self.values = list(values)
        self.old_values = list(old_values)
        self.schema = schema

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """For `check`."""
        return (f"{self.verb}_enum", self.schema, self.name, self.old_values, self.values)

    @property
    def type(self) -> postgresql.ENUM:
        """The type as SQLAlchemy creates and drops it."""
        return postgresql.ENUM(*self.values, name=self.name, schema=self.schema, metadata=MetaData())


@Operations.register_operation("create_enum")
class CreateEnumOp(EnumOp):
    """See `create_enum`."""

    verb = "create"

    @classmethod
    def create_enum(
        cls, operations: Operations, name: str, values: Sequence[str], *, schema: str | None = None
    ) -> None:
        """Create the enum type `name` unless it is there; nothing where there are no enum types."""
        operations.invoke(cls(name, values, schema=schema))

    def reverse(self) -> MigrateOperation:
        """Drop it."""
        return DropEnumOp(self.name, (), old_values=self.values, schema=self.schema)


@Operations.register_operation("drop_enum")
class DropEnumOp(EnumOp):
    """See `drop_enum`."""

    verb = "drop"

    @classmethod
    def drop_enum(cls, operations: Operations, name: str, *, schema: str | None = None) -> None:
        """Drop the enum type `name` if it is there; nothing where there are no enum types."""
        operations.invoke(cls(name, (), schema=schema))

    def reverse(self) -> MigrateOperation:
        """Create it with the values it had."""
        return CreateEnumOp(self.name, self.old_values, schema=self.schema)


@Operations.register_operation("alter_enum")
class AlterEnumOp(EnumOp):
    """See `alter_enum`."""

    verb = "alter"

    @classmethod
    def alter_enum(
        cls, operations: Operations, name: str, values: Sequence[str], *, schema: str | None = None
    ) -> None:
        """Give the enum type `name` exactly these values, in this order; nothing where there are no enum types.

        Values that are only added are added at once, outside the transaction (PostgreSQL lets no transaction use
        a value it has added): whatever the revision did before is committed, so keep this its first operation.
        Otherwise the type is replaced, and the tables that use it are rewritten, within the transaction.

        Raises:
            MigrationError: there is no such type, or it must be looked at and the revision runs offline (`--sql`).
        """
        operations.invoke(cls(name, values, schema=schema))

    def reverse(self) -> MigrateOperation:
        """Give it the values it had."""
        return AlterEnumOp(self.name, self.old_values, old_values=self.values, schema=self.schema)


@Operations.implementation_for(CreateEnumOp)
def _create(operations: Operations, operation: CreateEnumOp) -> None:
    if _has_enum_types(operations):
        operation.type.create(operations.get_bind(), checkfirst=not operations.get_context().as_sql)


@Operations.implementation_for(DropEnumOp)
def _drop(operations: Operations, operation: DropEnumOp) -> None:
    if _has_enum_types(operations):
        operation.type.drop(operations.get_bind(), checkfirst=not operations.get_context().as_sql)


@Operations.implementation_for(AlterEnumOp)
def _alter(operations: Operations, operation: AlterEnumOp) -> None:
    context = operations.get_context()
    if not _has_enum_types(operations):
        return
    if context.as_sql:
        raise MigrationError(
            f"op.alter_enum({operation.name!r}, …) must look at the type: it cannot run offline."
        )
    change = EnumChange.of(operations.get_bind(), operation.name, operation.schema, operation.values)
    if not change.only_adds:
        change.replace_type()
    elif change.values != change.old_values:
        with context.autocommit_block():
            replace(change, connection=operations.get_bind()).add_values()


def _has_enum_types(operations: Operations) -> bool:
    return isinstance(Enum("a", name="a").dialect_impl(operations.get_context().dialect), postgresql.ENUM)


@renderers.dispatch_for(EnumOp)
def _render(autogen_context: AutogenContext, operation: EnumOp) -> str:
    arguments = [repr(operation.name)]
    if operation.values:
        arguments.append(repr(operation.values))
    if operation.schema:
        arguments.append(f"schema={operation.schema!r}")
    prefix = autogen_context.opts["alembic_module_prefix"]
    return f"{prefix}{operation.verb}_enum({', '.join(arguments)})"


def setup(plugin: Plugin) -> None:
    """Called by Alembic for a module that is a plugin."""
    plugin.add_autogenerate_comparator(compare_enums, "autogenerate", "enums", priority=DispatchPriority.LAST)


def compare_enums(autogen_context: AutogenContext, upgrade_ops: UpgradeOps) -> PriorityDispatchResult:
    """Put around the operations found so far those on the enum types that they bring, change or leave unused."""
    declared = declared_enums(autogen_context.sorted_tables)
    added, removed = _columns_changed(upgrade_ops)
    before: list[MigrateOperation] = [
        CreateEnumOp(enum.name, enum.values, schema=enum.schema)
        for enum in declared.values()
        if enum.places <= added
    ]
    for key, old_values in _existing_enums(autogen_context, declared).items():
        if key in declared and declared[key].values != old_values:
            enum = declared[key]
            before.append(AlterEnumOp(enum.name, enum.values, old_values=old_values, schema=enum.schema))
    unused = {key: values for key, values in removed.items() if key not in declared}
    after = [
        DropEnumOp(name, (), old_values=values, schema=schema) for (schema, name), values in unused.items()
    ]
    upgrade_ops.ops = [*before, *upgrade_ops.ops, *after]
    return PriorityDispatchResult.CONTINUE


@dataclass(frozen=True, slots=True)
class DeclaredEnum:
    """An enum type of the models and the columns that use it."""

    name: str
    schema: str | None
    values: list[str]
    places: set[Place] = field(default_factory=set[Place])


def declared_enums(tables: Iterable[Table]) -> dict[EnumKey, DeclaredEnum]:
    """The native enum types of the models' tables, but for those that ask to be left alone (`create_type=False`)."""
    found: dict[EnumKey, DeclaredEnum] = {}
    for table in tables:
        for column in table.columns:
            enum: Any = native_enum(column.type)
            if enum is not None and enum.name and enum.create_type:
                declared = DeclaredEnum(str(enum.name), enum.schema, list(enum.enums))
                place = (table.schema, table.name, column.name)
                found.setdefault((enum.schema, enum.name), declared).places.add(place)
    return found


def native_enum(type_: TypeEngine[Any]) -> postgresql.ENUM | None:
    """What PostgreSQL makes of a column's type, if that is an enum type or an array of one."""
    found: Any = type_.dialect_impl(POSTGRESQL)
    match found:
        case postgresql.ENUM():
            return found
        case TypeDecorator(impl_instance=stored):
            return native_enum(stored)
        case ARRAY(item_type=item):
            return native_enum(item)
        case _:
            return None


def _columns_changed(upgrade_ops: UpgradeOps) -> tuple[set[Place], dict[EnumKey, list[str]]]:
    """The columns that the operations add or retype, and the enum types of those they remove or retype."""
    added: set[Place] = set()
    removed: list[TypeEngine[Any]] = []
    for operation in _flat(upgrade_ops):
        match operation:
            case CreateTableOp(schema=schema, table_name=table):
                added |= {
                    (schema, table, each.name) for each in operation.columns if isinstance(each, Column)
                }
            case DropTableOp():
                removed += [column.type for column in operation.to_table().columns]
            case AddColumnOp(schema=schema, table_name=table):
                added.add((schema, table, operation.column.name))
            case DropColumnOp():
                removed.append(operation.to_column().type)
            case AlterColumnOp(modify_type=new, existing_type=old) if new is not None and old is not None:
                added.add((operation.schema, operation.table_name, operation.column_name))
                removed.append(old)
            case _:
                pass
    enums: list[Any] = [enum for type_ in removed if (enum := native_enum(type_)) and enum.name]
    return added, {(enum.schema, str(enum.name)): list(enum.enums) for enum in enums}


def _flat(upgrade_ops: UpgradeOps) -> Iterator[MigrateOperation]:
    for operation in upgrade_ops.ops:
        yield from operation.ops if isinstance(operation, ModifyTableOps) else [operation]


def _existing_enums(
    autogen_context: AutogenContext, declared: dict[EnumKey, DeclaredEnum]
) -> dict[EnumKey, list[str]]:
    inspector = autogen_context.inspector
    if not isinstance(inspector, PGInspector):
        return {}
    return {
        (schema, enum["name"]): list(enum["labels"])
        for schema in {schema for schema, _ in declared}
        for enum in inspector.get_enums(schema)
    }
