"""From what statements ask to indexes that may help them; whether one does, the database says.  Pure functions.

The order of columns is the B-tree's: those compared for equality first, then the sort, where it can be walked, or
else one range.  Source: PostgreSQL documentation, "Multicolumn Indexes" and "Indexes and ORDER BY".
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from catalysis.advice.definitions import IndexDefinition, Key, TableName, is_served_by
from catalysis.advice.predicates import Asked, TableUse

MAX_KEYS = 4
_FEW_EQUAL = 100
"""Rows with one value of a column that are sorted for next to nothing."""
MAX_EQUAL = 3
MAX_INCLUDED = 2
"""More columns than that, or than half a table's, make an index that is another copy of the table."""


@dataclass(frozen=True, slots=True)
class Abilities:
    """What indexes a database can have."""

    includes: bool = False
    """Columns that are in an index without being searched by."""
    gin: bool = False
    trigrams: bool = False
    """The extension pg_trgm is there."""


@dataclass(frozen=True, slots=True)
class TableFacts:
    """What is known of a table's columns."""

    types: Mapping[str, str] = field(default_factory=dict[str, str])
    """`jsonb`, `text[]`, `uuid`…, as the database prints them."""
    distinct: Mapping[str, float] = field(default_factory=dict[str, float])
    """Estimated number of distinct values; a column that is not there is unknown."""
    rows: float = 0


_UNORDERED = frozenset({"json", "xml", "point", "line", "lseg", "box", "path", "polygon", "circle"})
"""Types that no B-tree sorts.  Source: PostgreSQL's operator classes in pg_opclass."""


def count_keys(asked: Iterable[Asked]) -> Counter[tuple[TableName, str]]:
    """How many uses compare each column for equality: what many ask for comes first, so that one index serves them."""
    return Counter(
        (use.table, key.sql) for each in asked for use in each.uses for key in (*use.equal, *use.joined)
    )


@dataclass(frozen=True, slots=True)
class Candidates:
    """Makes the candidates of one workload."""

    abilities: Abilities
    facts: Mapping[TableName, TableFacts]
    asked_for: Mapping[tuple[TableName, str], int]
    existing: Sequence[IndexDefinition]

    def of(self, use: TableUse) -> tuple[IndexDefinition, ...]:
        """Indexes for one use, none of which an existing one already stands for; most simple first."""
        made = [*self._ordered(use), *self._inverted(use)]
        wanted = [each for each in dict.fromkeys(made) if not self._is_there(each)]
        return tuple(sorted(wanted, key=lambda each: each.complexity))

    def _is_there(self, wanted: IndexDefinition) -> bool:
        return any(is_served_by(wanted, there) for there in self.existing if there.table == wanted.table)

    # --- B-trees ---------------------------------------------------------------------------------------

    def _ordered(self, use: TableUse) -> Iterator[IndexDefinition]:
        facts = self.facts.get(use.table, TableFacts())
        for keys in self._key_lists(use):
            if not keys or any(_base_type(facts.types.get(key.sql, "")) in _UNORDERED for key in keys):
                continue
            plain = IndexDefinition(use.table, keys)
            yield plain
            keyed = {key.sql for key in keys}
            conditions = tuple(sorted(each.sql for each in use.constants if each.key.sql not in keyed))
            partial = replace(plain, predicate=conditions)
            if conditions:
                yield partial
            covering = self._covering(use, plain)
            if covering is not None:
                yield covering

    def _covering(self, use: TableUse, index: IndexDefinition) -> IndexDefinition | None:
        rest = use.columns - {key.sql for key in index.keys}
        facts = self.facts.get(use.table, TableFacts())
        if not self.abilities.includes or not 0 < len(rest) <= MAX_INCLUDED:
            return None
        if 2 * (len(rest) + len(index.keys)) > len(facts.types) > 0:
            return None
        if any(key.is_expression for key in index.keys):
            return None  # PostgreSQL reads the column of an expression from the table all the same
        return replace(index, include=tuple(sorted(rest)))

    def _key_lists(self, use: TableUse) -> Iterator[tuple[Key, ...]]:
        equal = self._ranked(use.table, use.equal)
        joined = self._ranked(use.table, use.joined)
        heads: list[tuple[Key, ...]] = [tuple(equal[:MAX_EQUAL]), *((key,) for key in joined)]
        if equal and joined:
            heads += [(*equal[: MAX_EQUAL - 1], key) for key in joined]
        if len(equal) > 1:
            heads.append((self._most_selective(use.table, equal),))
        ranges = [each for keys in use.ranges for each in self._long_enough(use.table, keys)]
        order = self._long_enough(use.table, use.order)
        for head in dict.fromkeys(heads):
            if head:
                yield from (_joined(head, tail) for tail in dict.fromkeys([(), *ranges, *order]))
        yield from ranges
        if use.walks:
            yield from order
        if not (equal or joined or use.ranges):
            yield from ((each.key,) for each in use.constants)

    def _long_enough(self, table: TableName, keys: tuple[Key, ...]) -> list[tuple[Key, ...]]:
        """A sort as an index needs it: the first column alone where few rows are equal in it; both ways if in doubt."""
        facts = self.facts.get(table, TableFacts())
        distinct = facts.distinct.get(keys[0].sql) if keys else None
        if len(keys) < 2 or distinct is None:
            return [each for each in dict.fromkeys([keys[:1], keys]) if each]
        return [keys[:1] if distinct * _FEW_EQUAL >= facts.rows else keys]

    def _ranked(self, table: TableName, keys: Iterable[Key]) -> list[Key]:
        """Columns that most statements ask for first; of equal ones the more selective, then by name."""
        distinct = self.facts.get(table, TableFacts()).distinct
        return sorted(
            keys,
            key=lambda key: (-self.asked_for.get((table, key.sql), 0), -distinct.get(key.sql, 0), key.sql),
        )

    def _most_selective(self, table: TableName, keys: Sequence[Key]) -> Key:
        distinct = self.facts.get(table, TableFacts()).distinct
        return max(keys, key=lambda key: distinct.get(key.sql, 0))

    # --- What a value contains ---------------------------------------------------------------------------

    def _inverted(self, use: TableUse) -> Iterator[IndexDefinition]:
        if not self.abilities.gin:
            return
        types = self.facts.get(use.table, TableFacts()).types
        for key, operator in use.contains:
            kind = types.get(key.sql, "")
            if kind == "jsonb" and operator == "@>":
                # smaller, and more to the point than the default class, which also knows ? and ?|
                yield _gin(use.table, replace(key, operator_class="jsonb_path_ops"))
            if (kind == "jsonb" and operator != "<@") or kind.endswith("[]"):
                yield _gin(use.table, key)
        if self.abilities.trigrams:
            for key in use.matches:
                yield _gin(use.table, replace(key, operator_class="gin_trgm_ops"))


def may_serve(index: IndexDefinition, use: TableUse) -> bool:
    """Whether a scan for this use could begin in the index, whoever it was made for."""
    if index.table != use.table or not set(index.predicate) <= {each.sql for each in use.constants}:
        return False
    first = index.keys[0]
    if index.method != "btree":
        return first.sql in {key.sql for key in (*use.matches, *(each for each, _ in use.contains))}
    begins = {key.sql for key in (*use.equal, *use.joined, *(keys[0] for keys in use.ranges))}
    walked = use.order[0].sql if use.order and use.walks else None
    return first.sql in begins or first.sql == walked or first.sql in {each.key.sql for each in use.constants}


def _gin(table: TableName, key: Key) -> IndexDefinition:
    return IndexDefinition(table, (key,), method="gin")


def _joined(head: Sequence[Key], tail: Sequence[Key]) -> tuple[Key, ...]:
    """The columns of both in order, each once: what is equal needs no place in the sort."""
    there = {key.sql for key in head}
    return (*head, *(key for key in tail if key.sql not in there))[:MAX_KEYS]


def _base_type(printed: str) -> str:
    return printed.partition("(")[0]
