"""An index as a value: what it is of, what it is called, and the statement that makes it.  No database here."""

import hashlib
import re
from dataclasses import dataclass

from sqlalchemy.engine import Dialect

NAME_BYTES = 63
"""The longest name that PostgreSQL keeps whole."""


@dataclass(frozen=True, slots=True, order=True)
class TableName:
    """A table; no schema means the one found without naming it."""

    name: str
    schema: str | None = None

    def __str__(self) -> str:
        return self.name if self.schema is None else f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Key:
    """One column of an index, or one expression in SQL, with its direction and operator class."""

    sql: str
    is_expression: bool = False
    descending: bool = False
    nulls: str | None = None
    """`FIRST` or `LAST` where it is not what the direction implies."""
    operator_class: str | None = None
    """With the collation before it, as in CREATE INDEX; None where both are the column's own."""

    def ddl(self, dialect: Dialect) -> str:
        """As it stands in CREATE INDEX."""
        what = f"({self.sql})" if self.is_expression else dialect.identifier_preparer.quote(self.sql)
        parts = [what, self.operator_class, "DESC" if self.descending else None]
        return " ".join(each for each in [*parts, self.nulls and f"NULLS {self.nulls}"] if each)


@dataclass(frozen=True, slots=True)
class IndexDefinition:
    """What CREATE INDEX says, but for the name."""

    table: TableName
    keys: tuple[Key, ...]
    include: tuple[str, ...] = ()
    predicate: tuple[str, ...] = ()
    """Conditions in SQL, all of which a row in the index meets."""
    method: str = "btree"

    @property
    def where(self) -> str | None:
        """The predicate as one condition."""
        return " AND ".join(self.predicate) or None

    @property
    def complexity(self) -> int:
        """How much there is to it: of two indexes that do the same, the simpler one is taken."""
        expressions = sum(key.is_expression for key in self.keys)
        return 2 * len(self.keys) + 2 * len(self.include) + len(self.predicate) + expressions

    @property
    def name(self) -> str:
        """`ix_task_user_id_created_at`, as NAMING_CONVENTION has it; at most 63 bytes."""
        words = [re.sub(r"\W+", "_", key.sql).strip("_").lower() for key in self.keys]
        if self.predicate:
            words += ["where", *(re.sub(r"\W+", "_", each).strip("_").lower() for each in self.predicate)]
        if self.include:
            words += ["with", *self.include]
        if self.method != "btree":
            words.append(self.method)
        return _shortened("_".join(["ix", self.table.name, *words]))

    def ddl(self, dialect: Dialect, *, name: str | None = None, concurrently: bool = False) -> str:
        """The CREATE INDEX statement."""
        quote = dialect.identifier_preparer.quote
        table = self.table
        qualified = ".".join(quote(part) for part in (table.schema, table.name) if part)
        using = f" USING {self.method}" if self.method != "btree" else ""
        keys = ", ".join(key.ddl(dialect) for key in self.keys)
        include = f" INCLUDE ({', '.join(map(quote, self.include))})" if self.include else ""
        where = f" WHERE {self.where}" if self.predicate else ""
        how = "CONCURRENTLY " if concurrently and dialect.name == "postgresql" else ""
        return f"CREATE INDEX {how}{quote(name or self.name)} ON {qualified}{using} ({keys}){include}{where}"


def _shortened(name: str) -> str:
    encoded = name.encode()
    if len(encoded) <= NAME_BYTES:
        return name
    digest = hashlib.blake2s(encoded, digest_size=2).hexdigest()
    return f"{encoded[: NAME_BYTES - 5].decode(errors='ignore').rstrip('_')}_{digest}"


def plain(sql: str) -> str:
    """SQL without casts, blanks, quotes, parentheses and case: two texts of one expression become the same."""
    return re.sub(r"::[\w ]+(\(\d+\))?(\[\])?|[\s\"()]", "", sql).lower()


def is_served_by(wanted: IndexDefinition, there: IndexDefinition) -> bool:
    """Whether every scan of `wanted` could be one of `there`: its keys are the first of those, walked either way.

    Only with the same predicate: a partial index is smaller than any other, which is what it is for.
    """
    if wanted.table != there.table or wanted.method != there.method:
        return False
    if {plain(each) for each in wanted.predicate} != {plain(each) for each in there.predicate}:
        return False
    if wanted.method != "btree":
        return set(map(_identity, wanted.keys)) <= set(map(_identity, there.keys))
    first = there.keys[: len(wanted.keys)]
    if [_identity(key) for key in wanted.keys] != [_identity(key) for key in first]:
        return False
    held = {key.sql for key in there.keys} | set(there.include)
    return _directions(wanted.keys) in (_directions(first), _turned(first)) and set(wanted.include) <= held


def _identity(key: Key) -> tuple[str, str | None]:
    return (plain(key.sql), key.operator_class)


def _directions(keys: tuple[Key, ...]) -> list[tuple[bool, bool]]:
    """For each key whether it falls and whether nulls come first, as PostgreSQL has it: nulls are the largest."""
    return [(key.descending, (key.nulls == "FIRST") if key.nulls else key.descending) for key in keys]


def _turned(keys: tuple[Key, ...]) -> list[tuple[bool, bool]]:
    return [(not falls, not nulls_first) for falls, nulls_first in _directions(keys)]
