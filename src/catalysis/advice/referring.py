"""Statements that the server sends itself: a DELETE looks for the rows that refer to what it deletes."""

from sqlalchemy.engine import Dialect

from catalysis.advice.catalog import Catalog
from catalysis.advice.predicates import Asked
from catalysis.advice.workload import Statement


def derived_statements(
    statement: Statement, asked: Asked, catalog: Catalog, dialect: Dialect
) -> list[Statement]:
    """One for each foreign key to the table that `statement` deletes from, called once for each row deleted.

    No plan of the DELETE shows them.  Source: PostgreSQL, `ri_triggers.c`; SQLite documentation, "Foreign Key
    Support", section 3.
    """
    quote = dialect.identifier_preparer.quote
    derived: list[Statement] = []
    for key in catalog.foreign_keys:
        if key.refers_to != asked.writes:
            continue
        table = ".".join(quote(part) for part in (key.table.schema, key.table.name) if part)
        marks = [f"${n}" if dialect.name == "postgresql" else "?" for n in range(1, len(key.columns) + 1)]
        conditions = " AND ".join(
            f"{quote(column)} = {mark}" for column, mark in zip(key.columns, marks, strict=True)
        )
        derived.append(
            Statement(
                f"SELECT 1 FROM {table} WHERE {conditions}",  # noqa: S608 - quoted
                max(statement.rows, statement.calls),
                statement.seconds,
                derived_from=statement.sql,
            )
        )
    return derived
