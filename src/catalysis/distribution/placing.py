"""The SQL that distributes a table, and takes that back; sent only where Citus is.

Everywhere else a table is what it was made as, so the same models and revisions serve a file, a server and a cluster.

Source: Citus documentation, "Citus Utility Functions".
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, event, text
from sqlalchemy.dialects import postgresql

from catalysis.distribution.declared import Distributed, Distribution, Local, Reference, distribution_of

_DIALECT: Any = postgresql.dialect()

HAS_CITUS = "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus')"


def has_citus(connection: Connection) -> bool:
    """Whether the database is a cluster of Citus."""
    return connection.dialect.name == "postgresql" and bool(connection.scalar(text(HAS_CITUS)))


@dataclass(frozen=True, slots=True)
class Placement:
    """A table and how it is, or is to be, distributed."""

    table: str
    distribution: Distribution
    schema: str | None = None

    @classmethod
    def of(cls, table: Any) -> "Placement":
        """What a table says of itself."""
        return cls(table.name, distribution_of(table), table.schema)

    @property
    def create(self) -> str:
        """The call that distributes it; empty for a local table."""
        match self.distribution:
            case Distributed(by, colocate_with):
                beside = f", colocate_with => {self._beside(colocate_with)}" if colocate_with else ""
                return f"create_distributed_table({self._name}, {_literal(by)}{beside})"
            case Reference():
                return f"create_reference_table({self._name})"
            case Local():
                return ""

    def undistribute(self, *, cascade: bool) -> str:
        """The call that brings all rows back to the coordinator; `cascade`: of all tables that foreign keys join."""
        return f"undistribute_table({self._name}{', cascade_via_foreign_keys => true' if cascade else ''})"

    @property
    def _name(self) -> str:
        return _literal(_qualified(self.schema, self.table))

    def _beside(self, name: str) -> str:
        schema, _, table = name.rpartition(".")
        return _literal(name if name == "none" else _qualified(schema or self.schema, table))

    def __str__(self) -> str:
        match self.distribution:
            case Distributed(by):
                return f"distributed by {by}"
            case Reference():
                return "a reference table"
            case Local():
                return "local"


def _qualified(schema: str | None, name: str) -> str:
    quote = _DIALECT.identifier_preparer.quote
    return ".".join(quote(part) for part in (schema, name) if part)


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


@event.listens_for(Table, "after_create")
def _distribute(table: "Table[Any]", connection: Any, **_: Any) -> None:
    """What `create_all` makes on a cluster is distributed with its indexes; what it refers to has been by then."""
    call = Placement.of(table).create
    if call and isinstance(connection, Connection) and has_citus(connection):
        connection.exec_driver_sql(f"SELECT {call}")
