"""Advice as an Alembic revision: written into the project's migrations, and never applied from here.

On PostgreSQL the indexes are made and dropped CONCURRENTLY, so outside of a transaction, but for those of partitioned
tables; on SQLite within the run's.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alembic.autogenerate import render
from alembic.autogenerate.api import AutogenContext
from alembic.autogenerate.render import renderers
from alembic.config import Config
from alembic.operations.ops import (
    CreateIndexOp,
    DowngradeOps,
    DropIndexOp,
    MigrateOperation,
    MigrationScript,
    UpgradeOps,
)
from sqlalchemy import text
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.elements import TextClause

from catalysis.advice.advise import Advice, ProposedIndex
from catalysis.advice.definitions import IndexDefinition
from catalysis.database import Database
from catalysis.errors import AdviceError
from catalysis.migrations import revise


class Concurrently(MigrateOperation):
    """Operations on indexes that PostgreSQL does while others write, which it does outside of transactions only."""

    def __init__(self, operations: Sequence[CreateIndexOp | DropIndexOp]) -> None:
        self.operations = operations


@renderers.dispatch_for(Concurrently)
def _render(autogen_context: AutogenContext, operation: Concurrently) -> list[str]:
    autogen_context.imports.add("from contextlib import nullcontext")
    lines = [
        'postgresql = op.get_context().dialect.name == "postgresql"',
        "with op.get_context().autocommit_block() if postgresql else nullcontext():",
    ]
    for each in operation.operations:
        lines += render.render_op(autogen_context, each)
    return [*lines, ""]


async def write_revision(
    database: Database,
    advice: Advice,
    message: str,
    *,
    config: Config | None = None,
    drop: Sequence[str] = (),
) -> Path:
    """Write a revision that makes the proposed indexes, and drops those of `advice.to_drop` named in `drop`.

    Its downgrade does the reverse.  The models do not know the indexes yet: `model_line` is what to add to them.

    Raises:
        AdviceError: there is nothing to do, or `drop` names an index that the advice does not.
        MigrationError: the database is not at the newest revision; or as for `catalysis.migrations.revise`.
    """
    to_drop = {each.name: each.index for each in advice.to_drop}
    if unknown := set(drop) - to_drop.keys():
        raise AdviceError(f"The advice is not to drop {', '.join(sorted(unknown))}.")
    if not advice.indexes and not drop:
        raise AdviceError("No revision written: no index is proposed.")
    making = [_create(each.name, each.definition, concurrently=each.concurrently) for each in advice.indexes]
    dropping = [
        _create(name, to_drop[name].definition, concurrently=not to_drop[name].partitioned) for name in drop
    ]

    def fill(script: MigrationScript) -> None:
        script.upgrade_ops = UpgradeOps([Concurrently([*making, *map(_drop, dropping)])])
        script.downgrade_ops = DowngradeOps([Concurrently([*dropping, *map(_drop, reversed(making))])])

    path = await revise(database, message, config=config, fill=fill)
    assert path is not None  # it has operations
    return path


def _create(name: str, definition: IndexDefinition, *, concurrently: bool) -> CreateIndexOp:
    options: dict[str, Any] = {"postgresql_concurrently": True} if concurrently else {}
    table = definition.table
    columns: Any = _columns(definition)
    return CreateIndexOp(name, table.name, columns, schema=table.schema, **options, **_options(definition))


def _drop(created: CreateIndexOp) -> DropIndexOp:
    assert created.index_name is not None  # `_create` names it
    options = {key: value for key, value in created.kw.items() if key == "postgresql_concurrently"}
    return DropIndexOp(created.index_name, created.table_name, schema=created.schema, **options)


def _columns(definition: IndexDefinition) -> list[str | TextClause]:
    """Plain columns by name; what has a direction or is an expression as SQL."""
    columns: list[str | TextClause] = []
    quote = postgresql.dialect().identifier_preparer.quote  # and SQLite's
    for key in definition.keys:
        direction = " DESC" if key.descending else ""
        nulls = f" NULLS {key.nulls}" if key.nulls else ""
        what = f"({key.sql})" if key.is_expression else quote(key.sql)
        special = key.is_expression or direction or nulls or not _by_name(definition)
        collated = f" {key.operator_class}" if special and key.operator_class else ""
        columns.append(_sql(f"{what}{collated}{direction}{nulls}") if special else key.sql)
    return columns


def _by_name(definition: IndexDefinition) -> bool:
    """Whether operator classes are given beside the columns; with collations and directions they stand after each."""
    return not any(
        key.descending or key.nulls or (key.operator_class or "").startswith("COLLATE")
        for key in definition.keys
    )


def _options(definition: IndexDefinition) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if definition.where is not None:
        options["postgresql_where"] = options["sqlite_where"] = _sql(definition.where)
    if definition.include:
        options["postgresql_include"] = list(definition.include)
    if definition.method != "btree":
        options["postgresql_using"] = definition.method
    classes = {
        key.sql: key.operator_class for key in definition.keys if key.operator_class and not key.is_expression
    }
    if classes and _by_name(definition):
        options["postgresql_ops"] = classes
    return options


def _sql(sql: str) -> TextClause:
    return text(sql.replace(":", "\\:"))


def model_line(index: ProposedIndex) -> str:
    """The `Index(…)` to add to the model's `__table_args__`, so that models and database agree."""
    columns = [
        f'"{each}"' if isinstance(each, str) else f"text({_unescaped(each)!r})"
        for each in _columns(index.definition)
    ]
    options = [
        f"{name}=text({_unescaped(value)!r})" if isinstance(value, TextClause) else f"{name}={value!r}"
        for name, value in _options(index.definition).items()
    ]
    return f'Index("{index.name}", {", ".join([*columns, *options])})'


def _unescaped(clause: TextClause) -> str:
    return clause.text.replace("\\:", ":")
