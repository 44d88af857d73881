"""Revisions that run on both databases and need no module of the application: how autogenerate writes things down.

Types, defaults and index predicates of the models are written so that what was found on one database can be made
on the other, and operations are put in an order that SQLite's rebuilding of tables can follow.  What only the
database knew (a column that goes, a default before its change) stays in its own SQL: going back to that on the
other database may need a hand.
"""

import re
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal

from alembic.autogenerate import render
from alembic.autogenerate.api import AutogenContext
from alembic.operations import Operations
from alembic.operations.ops import (
    CreateIndexOp,
    DropIndexOp,
    DropTableOp,
    MigrateOperation,
    ModifyTableOps,
    UpgradeOps,
)
from alembic.runtime.plugins import Plugin
from alembic.util import DispatchPriority, PriorityDispatchResult
from sqlalchemy import DATETIME, UUID, ClauseElement, DefaultClause, Enum, TextClause, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.types import TypeDecorator, TypeEngine

DIALECTS = {"postgresql": postgresql.dialect(), "sqlite": sqlite.dialect()}

source_of_type: Callable[[TypeEngine[Any], AutogenContext], str] = render._repr_type  # pyright: ignore
"""Alembic's rendering of any type, `render_item` included; it has no public name."""

Rendered = str | Literal[False]
"""Python source, or False: as Alembic would."""


@Operations.register_operation("by_dialect")
class ByDialect(MigrateOperation):
    """See `by_dialect`."""

    @classmethod
    def by_dialect(cls, operations: Operations, *, postgresql: str, sqlite: str) -> TextClause:
        """The SQL for the database at hand, for a default or an expression that the two write differently."""
        sql = {"postgresql": postgresql, "sqlite": sqlite}[operations.get_context().dialect.name]
        return text(re.sub(r"(?<!:):(?!:)", r"\:", sql))


def render_item(kind: str, item: Any, autogen_context: AutogenContext) -> Rendered:
    """For `context.configure(render_item=…)`."""
    match kind:
        case "type":
            return _type(item, autogen_context)
        case "server_default" if isinstance(item, DefaultClause):
            return _server_default(item)
        case _:
            return False


def _type(type_: TypeEngine[Any], autogen_context: AutogenContext) -> Rendered:
    """A type that both databases can make, where Alembic would write one that only this database has."""
    match type_:
        case Enum(native_enum=True, name=str(name)):
            values = ", ".join(repr(value) for value in type_.enums)
            schema: Any = getattr(type_, "schema", None)
            return f"sa.Enum({values}, name={str(name)!r}{f', {schema=!r}' if schema else ''}, create_type=False)"
        case TypeDecorator():
            return _type_stored(type_, autogen_context)
        case postgresql.JSONB():
            autogen_context.imports.add("from sqlalchemy.dialects import postgresql")
            return "postgresql.JSONB()"
        case postgresql.JSON() | sqlite.JSON():
            return "sa.JSON()"
        case postgresql.TIMESTAMP(precision=None):
            return f"sa.DateTime(timezone={type_.timezone})"
        case DATETIME():
            return "sa.DateTime()"
        case UUID():
            return "sa.Uuid()"
        case postgresql.BYTEA():
            return "sa.LargeBinary()"
        case _:
            return False


def _type_stored(type_: TypeDecorator[Any], autogen_context: AutogenContext) -> str:
    """What a decorated type is in the database; the decorating goes on in Python, where a revision has no part."""
    stored = {
        name: source_of_type(type_.load_dialect_impl(each), autogen_context)
        for name, each in DIALECTS.items()
    }
    if stored["sqlite"] == stored["postgresql"]:
        return stored["sqlite"]
    return f"{stored['sqlite']}.with_variant({stored['postgresql']}, 'postgresql')"


def _server_default(default: DefaultClause) -> Rendered:
    if isinstance(default.arg, str | TextClause):
        return False
    sql = {name: _compiled(default.arg, name) for name in DIALECTS}
    if not sql["sqlite"].startswith("("):  # SQLite takes an expression for a default only in parentheses
        sql["sqlite"] = f"({sql['sqlite']})"
    return f"op.by_dialect(postgresql={sql['postgresql']!r}, sqlite={sql['sqlite']!r})"


def setup(plugin: Plugin) -> None:
    """Called by Alembic for a module that is a plugin."""
    plugin.add_autogenerate_comparator(arrange, "autogenerate", "arrangement", priority=DispatchPriority.LAST)


def arrange(autogen_context: AutogenContext, upgrade_ops: UpgradeOps) -> PriorityDispatchResult:
    """Order the operations found: indexes outside the batches, dropped tables after those that refer to them."""
    operations = [each for operation in upgrade_ops.ops for each in _indexes_outside(operation)]
    dropped = _referring_first([each for each in operations if isinstance(each, DropTableOp)])
    upgrade_ops.ops = [each for each in operations if not isinstance(each, DropTableOp)] + dropped
    return PriorityDispatchResult.CONTINUE


def _indexes_outside(operation: MigrateOperation) -> Iterator[MigrateOperation]:
    """A batch cannot handle indexes over expressions; and none of them needs a table to be rebuilt."""
    if not isinstance(operation, ModifyTableOps):
        yield operation
        return
    creations = [each for each in operation.ops if isinstance(each, CreateIndexOp)]
    removals = [each for each in operation.ops if isinstance(each, DropIndexOp)]
    operation.ops = [each for each in operation.ops if not isinstance(each, CreateIndexOp | DropIndexOp)]
    yield from map(_dropped_anywhere, sorted(removals, key=lambda removal: str(removal.index_name)))
    if operation.ops:
        yield operation
    yield from map(_created_anywhere, sorted(creations, key=lambda creation: str(creation.index_name)))


def _created_anywhere(creation: CreateIndexOp) -> CreateIndexOp:
    """Write each predicate in the SQL of the database it is for."""
    for key, value in creation.kw.items():
        if isinstance(value, ClauseElement) and not isinstance(value, TextClause):
            creation.kw[key] = text(_compiled(value, key.partition("_")[0]))
    return creation


def _dropped_anywhere(removal: DropIndexOp) -> DropIndexOp:
    """Reflection tells a predicate for the one database; on the other, `downgrade` must make the index with it too."""
    predicates = [removal.kw[f"{name}_where"] for name in DIALECTS if f"{name}_where" in removal.kw]
    if len(predicates) == 1:
        predicate = text(str(predicates[0]))
        removal.kw |= {f"{name}_where": predicate for name in DIALECTS}
    return removal


def _referring_first(dropped: list[DropTableOp]) -> list[MigrateOperation]:
    by_name = {operation.table_name: operation for operation in dropped}
    order: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(by_name, ()))
    for name, operation in by_name.items():
        for constraint in operation.to_table().foreign_key_constraints:
            referred = constraint.elements[0].target_fullname.split(".")[-2]
            if referred in by_name and referred != name:
                order.add(referred, name)
    try:
        return [by_name[name] for name in order.static_order()]
    except CycleError:  # no order will do; dropping a foreign key first is the author's choice
        return [*dropped]


def _compiled(expression: ClauseElement, dialect: str) -> str:
    options = {"literal_binds": True, "include_table": False}
    return str(expression.compile(dialect=DIALECTS[dialect], compile_kwargs=options))
