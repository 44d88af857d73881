"""Changing the values of an enum type that PostgreSQL has and columns use.

PostgreSQL can add values to a type and nothing else; for any other change the type is replaced, together with
what names its values (defaults, partial indexes, checks).  SQL only: when to do it is decided in `enums.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from catalysis.errors import MigrationError

INVALID_TEXT_REPRESENTATION = "22P02"

VALUES = text("SELECT enumlabel FROM pg_enum WHERE enumtypid = to_regtype(:type) ORDER BY enumsortorder")

COLUMNS = text(
    """
    SELECT attrelid::regclass::text AS table, quote_ident(attname) AS column,
           CASE WHEN atttypid = pg_type.oid THEN '' ELSE '[]' END AS dimension,
           pg_get_expr(adbin, adrelid) AS default
    FROM pg_type
    JOIN pg_attribute ON atttypid IN (pg_type.oid, typarray) AND NOT attisdropped AND attinhcount = 0
    JOIN pg_class ON pg_class.oid = attrelid AND relkind IN ('r', 'p')
    LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE pg_type.oid = to_regtype(:type)
    """
)

DEPENDENTS = text(
    """
    WITH users AS (
        SELECT classid, objid FROM pg_type JOIN pg_depend ON refobjid IN (pg_type.oid, typarray)
        WHERE refclassid = 'pg_type'::regclass AND pg_type.oid = to_regtype(:type)
    )
    SELECT format('DROP INDEX %s', indexrelid::regclass) AS drop, pg_get_indexdef(indexrelid) AS create
    FROM pg_index WHERE ('pg_class'::regclass, indexrelid) IN (SELECT * FROM users)
    UNION ALL
    SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname),
           format('ALTER TABLE %s ADD CONSTRAINT %I %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
    FROM pg_constraint WHERE contype = 'c' AND ('pg_constraint'::regclass, oid) IN (SELECT * FROM users)
    """
)
"""Indexes and checks with a literal of the type: their operators would have to compare the old type to the new."""


@dataclass(frozen=True, slots=True)
class EnumChange:
    """One type on its way from the values it has to those it shall have."""

    connection: Connection
    type: str
    """The qualified and quoted name."""
    old_values: list[str]
    values: list[str]

    @classmethod
    def of(cls, connection: Connection, name: str, schema: str | None, values: Sequence[str]) -> "EnumChange":
        """The change that gives the type `values`.

        Raises:
            MigrationError: there is no such type.
        """
        preparer = connection.dialect.identifier_preparer
        qualified = ".".join(preparer.quote_identifier(part) for part in (schema, name) if part)
        old_values = list(connection.scalars(VALUES, {"type": qualified}))
        if not old_values:
            raise MigrationError(
                f"There is no enum type {name!r} to alter.  Create it with op.create_enum first."
            )
        return cls(connection, qualified, old_values, list(values))

    @property
    def only_adds(self) -> bool:
        """Whether every value stays, in the same order."""
        return [value for value in self.values if value in self.old_values] == self.old_values

    def add_values(self) -> None:
        """Add what is missing, each at its place; a run that broke off may be repeated."""
        for position, value in enumerate(self.values):
            if value not in self.old_values:
                following = next(
                    (other for other in self.values[position:] if other in self.old_values), None
                )
                place = f" BEFORE {_literal(following)}" if following is not None else ""
                self._execute(f"ALTER TYPE {self.type} ADD VALUE IF NOT EXISTS {_literal(value)}{place}")

    def replace_type(self) -> None:
        """Put a new type in the place of the old one.

        Raises:
            MigrationError: a row holds a value that the new type does not have.
        """
        columns = self.connection.execute(COLUMNS, {"type": self.type}).all()
        dependents = self.connection.execute(DEPENDENTS, {"type": self.type}).all()
        for dependent in dependents:
            self._execute(dependent.drop)
        self._execute(f"ALTER TYPE {self.type} RENAME TO catalysis_replaced")
        replaced = ".".join([*self.type.split(".")[:-1], "catalysis_replaced"])
        self._execute(f"CREATE TYPE {self.type} AS ENUM ({', '.join(map(_literal, self.values))})")
        for column in columns:
            self._convert(column)
        self._execute(f"DROP TYPE {replaced}")
        for dependent in dependents:
            self._execute(dependent.create)

    def _convert(self, column: Any) -> None:
        alter = f"ALTER TABLE {column.table} ALTER COLUMN {column.column}"
        target = self.type + column.dimension
        if column.default is not None:
            self._execute(f"{alter} DROP DEFAULT")
        try:
            self._execute(f"{alter} TYPE {target} USING {column.column}::text{column.dimension}::{target}")
        except DBAPIError as failure:
            if getattr(failure.orig, "sqlstate", None) != INVALID_TEXT_REPRESENTATION:
                raise
            raise MigrationError(
                f"Rows of {column.table} still hold in {column.column} a value that the enum {self.type} loses.  "
                "Update them before op.alter_enum, in this revision."
            ) from failure
        if column.default is not None:
            self._execute(f"{alter} SET DEFAULT {column.default}")

    def _execute(self, statement: str) -> None:
        self.connection.exec_driver_sql(statement)


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
