"""Indexes as each database states them: Alembic's two dialect implementations, taught to compare and keep them.

Subclassing an implementation under its own `__dialect__` is Alembic's way to extend one, and it goes for the
whole process.  Nothing here decides what goes into a revision but "this index is (not) what the model says".
"""

import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from alembic.autogenerate.api import AutogenContext
from alembic.ddl._autogen import ComparisonResult
from alembic.ddl.postgresql import PostgresqlImpl
from alembic.ddl.sqlite import SQLiteImpl
from alembic.operations.ops import CreateIndexOp, DropIndexOp, ModifyTableOps
from alembic.runtime.plugins import Plugin
from alembic.util import PriorityDispatchResult
from alembic.util.sqla_compat import is_expression_index
from sqlalchemy import Column, Enum, Index, String, Table, TextClause, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateIndex

from catalysis.errors import MigrationError

MAY_NOT_ASK = {"42501", "25006"}
"""SQLSTATEs of a role that may make no temporary table: insufficient privilege, read-only transaction."""

INDEXES = "SELECT name, sql FROM sqlite_master WHERE tbl_name = ? AND type = 'index' AND sql IS NOT NULL"
"""The indexes of a table, without those of its constraints, which have no text."""

LOST_BY_REBUILDING = """
    SELECT name, sql FROM sqlite_master WHERE tbl_name = ? AND (type = 'trigger' OR type = 'index' AND
    EXISTS (SELECT 1 FROM pragma_index_info(sqlite_master.name) AS part WHERE part.cid = -2))
"""
"""The triggers and, as they are not reflected, the indexes over an expression: SQLite numbers such a part -2."""


class CatalysisSQLiteImpl(SQLiteImpl):
    """SQLite keeps the text of each CREATE INDEX: compared here, and executed again when a table is rebuilt."""

    __dialect__ = "sqlite"
    transactional_ddl = True  # `Database` begins transactions itself; the driver would not

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._kept: dict[str, list[str]] = {}

    def texts(self, query: str, table_name: str) -> dict[str, str]:
        """The text of each of a table's things that the query finds, by its name."""
        assert self.connection is not None
        return {row.name: row.sql for row in self.connection.exec_driver_sql(query, (table_name,))}

    def correct_for_autogen_constraints(
        self,
        conn_unique_constraints: Any,
        conn_indexes: Any,
        metadata_unique_constraints: Any,
        metadata_indexes: Any,
    ) -> None:
        """Take the indexes from Alembic, which sees only what SQLAlchemy reflects: `compare_index_texts` sees all."""
        for indexes in (conn_indexes, metadata_indexes):
            if indexes:
                indexes.clear()

    def compare_type(self, inspector_column: Column[Any], metadata_column: Column[Any]) -> bool:
        """An enum without a CHECK is text here, whatever the length of its longest value was."""
        declared = metadata_column.type
        if isinstance(declared, Enum) and not declared.create_constraint:
            return not isinstance(inspector_column.type, String)
        return super().compare_type(inspector_column, metadata_column)  # pyright: ignore[reportUnknownMemberType] - annotated in part

    def prep_table_for_batch(self, batch_impl: Any, table: Table) -> None:
        """Note what the rebuilding of a table would lose."""
        self._kept[table.name] = list(self.texts(LOST_BY_REBUILDING, table.name).values())

    def rename_table(self, old_table_name: str, new_table_name: str, schema: str | None = None) -> None:
        """Rename, and if that ends the rebuilding of a table, make again what was noted."""
        super().rename_table(old_table_name, new_table_name, schema)
        for definition in self._kept.pop(new_table_name, ()):
            assert self.connection is not None  # batch mode refuses to work offline
            try:
                self.connection.exec_driver_sql(definition)
            except DBAPIError as failure:
                raise MigrationError(
                    f"Table {new_table_name!r} was rebuilt, but this does not fit it any more: {definition}  "
                    "Drop that index or trigger before the change, and make it anew after it"
                ) from failure


class CatalysisPostgresqlImpl(PostgresqlImpl):
    """PostgreSQL rewrites what it is given, so it is asked to rewrite the model's index too, on an empty table."""

    __dialect__ = "postgresql"

    def compare_indexes(self, metadata_index: Index, reflected_index: Index) -> ComparisonResult:
        """Compare method, expressions, predicate and options as the server prints them; plain columns as Alembic."""
        table = reflected_index.table
        assert table is not None
        if not any(_is_special(index) for index in (metadata_index, reflected_index)):
            return super().compare_indexes(metadata_index, reflected_index)
        if missing := {each.name for each in metadata_index.columns} - set(table.columns.keys()):
            return ComparisonResult.Different(f"new columns {sorted(missing)}")
        found = self._definition(_qualified(reflected_index))
        try:
            wanted = self._definition_if_created(metadata_index, table)
            same = wanted == found or self._settled(wanted, table) == self._settled(found, table)
        except DBAPIError as failure:
            if getattr(failure.orig, "sqlstate", None) in MAY_NOT_ASK:
                return ComparisonResult.Skip("this role may not create temporary tables")
            return ComparisonResult.Different(
                "it cannot be made yet"
            )  # as with an enum value that comes with it
        return ComparisonResult.Equal() if same else ComparisonResult.Different(f"{found} to {wanted}")

    def alter_column(self, table_name: str, column_name: str, **kw: Any) -> None:
        """Text becomes an enum, and one enum another, by way of text; PostgreSQL has no cast of its own for it."""
        type_ = kw.get("type_")
        if isinstance(type_, Enum) and type_.native_enum:
            quoted = self.dialect.identifier_preparer.quote(column_name)
            kw.setdefault("postgresql_using", f"{quoted}::text::{type_.compile(dialect=self.dialect)}")
        super().alter_column(table_name, column_name, **kw)  # pyright: ignore[reportUnknownMemberType] - annotated in part

    def _definition(self, qualified_name: str) -> str:
        """Of `CREATE UNIQUE INDEX name ON table USING btree (…)` all but the names: `UNIQUE btree (…)`."""
        assert self.connection is not None
        query = text("SELECT pg_get_indexdef(to_regclass(:name))")
        head, _, what = (self.connection.scalar(query, {"name": qualified_name}) or "").partition(" USING ")
        return ("UNIQUE " if head.startswith("CREATE UNIQUE") else "") + what

    def _definition_if_created(self, index: Index, table: Table) -> str:
        creation = CreateIndexOp.from_index(index)
        creation.schema, creation.table_name, creation.index_name = (
            "pg_temp",
            "catalysis_probe",
            "catalysis_ix",
        )
        with self._probe(table):
            self.create_index(creation.to_index())
            return self._definition("pg_temp.catalysis_ix")

    def _settled(self, definition: str, table: Table) -> str:
        """What a definition becomes when made and printed over and over: PostgreSQL adds casts to its own text."""
        assert self.connection is not None
        unique, what = ("UNIQUE ", definition[7:]) if definition.startswith("UNIQUE ") else ("", definition)
        with self._probe(table):
            self.connection.exec_driver_sql(
                f"CREATE {unique}INDEX catalysis_ix ON pg_temp.catalysis_probe USING {what}"
            )
            printed = self._definition("pg_temp.catalysis_ix")
        return printed if printed == definition else self._settled(printed, table)

    @contextmanager
    def _probe(self, table: Table) -> Generator[None]:
        """An empty temporary table like the given one, for the time of a savepoint."""
        assert self.connection is not None
        like = self.dialect.identifier_preparer.format_table(table)
        savepoint = self.connection.begin_nested()
        try:
            self.connection.exec_driver_sql(f"CREATE TEMPORARY TABLE catalysis_probe (LIKE {like})")
            yield
        finally:
            savepoint.rollback()


def compare_index_texts(
    autogen_context: AutogenContext,
    modify_ops: ModifyTableOps,
    schema: str | None,
    table_name: str,
    conn_table: Table | None,
    metadata_table: Table | None,
) -> PriorityDispatchResult:
    """Alembic's comparison of a table's indexes, for SQLite: by the text of their CREATE INDEX."""
    impl = autogen_context.migration_context.impl
    assert isinstance(impl, CatalysisSQLiteImpl)
    declared = {
        str(index.name): index for index in (metadata_table.indexes if metadata_table is not None else ())
    }
    wanted = {name: str(CreateIndex(index).compile(dialect=impl.dialect)) for name, index in declared.items()}
    where: Any = {"table_name": table_name, "schema_name": schema}
    found = {
        name: definition
        for name, definition in impl.texts(INDEXES, table_name).items()
        if autogen_context.run_name_filters(name, "index", where)
    }
    for name in sorted(found.keys() | wanted.keys()):
        if _plain_sql(found.get(name, "")) == _plain_sql(wanted.get(name, "")):
            continue
        old = _index_of(found[name], name, table_name) if name in found else None
        new = declared.get(name)
        filtered: Any = (old, name, "index", True, None) if new is None else (new, name, "index", False, old)
        if not autogen_context.run_object_filters(*filtered):
            continue
        if old is not None:
            modify_ops.ops.append(DropIndexOp.from_index(old))
        if new is not None:
            modify_ops.ops.append(CreateIndexOp.from_index(new))
    return PriorityDispatchResult.CONTINUE


def setup(plugin: Plugin) -> None:
    """Called by Alembic for a module that is a plugin."""
    plugin.add_autogenerate_comparator(compare_index_texts, "table", "index texts", qualifier="sqlite")


def _index_of(definition: str, name: str, table_name: str) -> Index:
    found = re.search(r"\sON\s.*?\((?P<what>.*?)\)(?:\s+WHERE\s+(?P<where>.*))?$", definition, re.I | re.S)
    assert found is not None, definition  # SQLite had parsed it
    names = [part.strip().strip('"') for part in found["what"].split(",")]
    what: list[str | TextClause] = [*names] if all(map(str.isidentifier, names)) else [text(found["what"])]
    options: dict[str, Any] = {"sqlite_where": text(found["where"])} if found["where"] else {}
    unique = re.match(r"CREATE\s+UNIQUE", definition, re.I) is not None
    return CreateIndexOp(name, table_name, what, unique=unique, **options).to_index()


def _is_special(index: Index) -> bool:
    return is_expression_index(index) or any(key.startswith("postgresql_") for key in index.dialect_kwargs)


def _qualified(index: Index) -> str:
    assert index.table is not None
    return ".".join(
        '"{}"'.format(str(part).replace('"', '""')) for part in (index.table.schema, index.name) if part
    )


def _plain_sql(statement: str) -> str:
    """The statement without what does not matter: case, blanks and quotes of names; literals stay as they are."""
    parts = re.split(r"('(?:[^']|'')*')", statement)
    return "".join(
        part if place % 2 else re.sub(r'[\s"`\[\]]', "", part.lower()) for place, part in enumerate(parts)
    )
