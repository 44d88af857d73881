"""The models alone against good practice.  Pure: nothing is asked of a database, and only the certain is said."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy import (
    Column,
    DateTime,
    Float,
    ForeignKeyConstraint,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapper, RelationshipDirection, RelationshipProperty
from sqlalchemy.sql.elements import UnaryExpression
from sqlmodel import SQLModel

from catalysis.diagnosis import known_mappers
from catalysis.doctor.complaint import Complaint, Rule
from catalysis.engine.alchemy.overlaps import overlaps_of

POSTGRESQL = "https://www.postgresql.org/docs/current/"
SQLALCHEMY = "https://docs.sqlalchemy.org/en/21/"


@dataclass(frozen=True, slots=True)
class Models:
    """The tables of some metadata, and the classes mapped to them."""

    metadata: tuple[MetaData, ...]
    tables: tuple["Table[Any]", ...]
    mappers: tuple[Mapper[Any], ...]

    @classmethod
    def of(cls, metadata: Iterable[MetaData]) -> Self:
        """All tables and mappers, by name.

        Raises:
            ModelError: a mapping is broken; SQLAlchemy's own errors where it alone can tell.
        """
        distinct = tuple(dict.fromkeys(metadata))
        tables = sorted((table for each in distinct for table in each.tables.values()), key=str)
        known = set(tables)
        mappers = [each for each in known_mappers() if each.local_table in known]
        for registry in dict.fromkeys(each.registry for each in mappers):
            registry.configure(cascade=True)
        return cls(distinct, tuple(tables), tuple(sorted(mappers, key=lambda each: each.class_.__name__)))

    @property
    def schemas(self) -> list[str]:
        """Those that tables name."""
        return sorted({table.schema for table in self.tables if table.schema})

    def has_column(self, table: str, column: str, schema: str) -> bool:
        """Whether a table of the models has it; one that names no schema is taken for that of any."""
        return any(
            each.name == table and (each.schema or schema) == schema and column in each.columns
            for each in self.tables
        )


Find = Callable[[Models], Iterator[Complaint]]

# --- Keys and indexes -----------------------------------------------------------------------------

NO_INDEX = Rule(
    "D101",
    "foreign-key-without-index",
    "warning",
    "a foreign key whose columns no index, primary key or unique constraint begins with",
    POSTGRESQL + "ddl-constraints.html#DDL-CONSTRAINTS-FK",
)
NOT_UNIQUE = Rule(
    "D102",
    "one-to-one-without-unique",
    "warning",
    "a one-to-one relationship whose foreign key may repeat",
    SQLALCHEMY + "orm/basic_relationships.html#one-to-one",
)

_UNMARKED = re.compile(r'^(?:"?\w+"?\.)*"?deleted_at"? IS NULL$', re.IGNORECASE)
_PRESENT = re.compile(r'^(?:"?\w+"?\.)*"?(\w+)"? IS NOT NULL$', re.IGNORECASE)


def foreign_keys_without_index(models: Models) -> Iterator[Complaint]:
    """Deleting or changing a referred row reads the whole referring table, and so does a join from there."""
    for table in models.tables:
        for key in _foreign_keys(table):
            wanted = [column.name for column in key.columns]
            if any(set(led[: len(wanted)]) == set(wanted) for led in _led_by(table, wanted)):
                continue
            yield NO_INDEX.complain(
                _columns(table, wanted),
                f"It refers to {_referred(key)}, and no index begins with it: deleting a row there, and every join "
                f"from there, reads all of {table.fullname}.",
                _indexed(models, table, key),
            )


def one_to_one_without_unique(models: Models) -> Iterator[Complaint]:
    """`uselist=False` reads one row; only the database can keep there from being a second."""
    for relation, back in _both_ways(models):
        if relation.direction is not RelationshipDirection.ONETOMANY or relation.uselist or back.uselist:
            continue
        if relation.secondary is not None or relation.viewonly:
            continue
        columns: list[Any] = [remote for _, remote in relation.local_remote_pairs or ()]
        tables: list[Any] = list({column.table for column in columns})
        table = tables[0]
        if len(tables) != 1 or table not in models.tables:
            continue
        names = {column.name for column in columns}
        if not any(set(unique) <= names for unique in _unique(table)):
            yield NOT_UNIQUE.complain(
                _columns(table, sorted(names)),
                f"{_named(relation)} and {_named(back)} are one to one, but two rows may refer to the same one: "
                "then one of them is read, whichever comes.",
                f"unique=True on {table.fullname}.{names.pop()}, in a revision: op.create_index(…, unique=True)"
                if len(names) == 1
                else f"UniqueConstraint({', '.join(map(repr, sorted(names)))}) in __table_args__",
            )


def _foreign_keys(table: "Table[Any]") -> list[ForeignKeyConstraint]:
    return sorted(table.foreign_key_constraints, key=lambda key: [column.name for column in key.columns])


def _led_by(table: "Table[Any]", wanted: Sequence[str]) -> Iterator[Sequence[str]]:
    """The columns that each index of a table begins with, as far as rows can be found by them."""
    for constraint in table.constraints:
        if isinstance(constraint, PrimaryKeyConstraint | UniqueConstraint):
            yield [column.name for column in constraint.columns]
    for index in table.indexes:
        method = index.dialect_options["postgresql"]["using"] or "btree"
        if str(method).lower() in ("btree", "hash") and _serves(index, wanted):
            yield _leading(index)


def _unique(table: Any) -> Iterator[Sequence[str]]:
    for constraint in table.constraints:
        if isinstance(constraint, PrimaryKeyConstraint | UniqueConstraint) and len(constraint.columns):
            yield [column.name for column in constraint.columns]
    for index in table.indexes:
        leading = _leading(index)
        if index.unique and len(leading) == len(index.expressions) and _serves(index, leading):
            yield leading


def _leading(index: Index) -> list[str]:
    names: list[str] = []
    expressions: Iterable[Any] = index.expressions
    for expression in expressions:
        plain: Any = expression.element if isinstance(expression, UnaryExpression) else expression
        if not isinstance(plain, Column):
            break
        names.append(plain.name)
    return names


def _serves(index: Index, wanted: Sequence[str]) -> bool:
    """Whether it is whole, or leaves out only what nobody looks for by the columns: marked rows, and NULLs."""
    predicates = [index.dialect_options[name]["where"] for name in ("postgresql", "sqlite")]
    for predicate in [str(each) for each in predicates if each is not None]:
        present = _PRESENT.match(predicate)
        if not _UNMARKED.match(predicate) and not (present and present[1] in wanted):
            return False
    return True


def _indexed(models: Models, table: "Table[Any]", key: ForeignKeyConstraint) -> str:
    names = [column.name for column in key.columns]
    if len(names) > 1:
        return (
            f"Index({', '.join(map(repr, ['_'.join(['ix', table.name, *names]), *names]))}) in __table_args__"
        )
    classes = [each.class_ for each in models.mappers if each.local_table is table]
    if not classes:
        return f"Column({names[0]!r}, ForeignKey({_referred(key)!r}), index=True)"
    if issubclass(classes[0], SQLModel):
        return f"{names[0]}: … = Field(foreign_key={_referred(key)!r}, index=True)"
    return f"{names[0]}: … = mapped_column(ForeignKey({_referred(key)!r}), index=True)"


def _referred(key: ForeignKeyConstraint) -> str:
    return ", ".join(element.target_fullname for element in key.elements)


def _columns(table: "Table[Any]", names: Sequence[str]) -> str:
    return f"{table.fullname}.{names[0]}" if len(names) == 1 else f"{table.fullname}.({', '.join(names)})"


# --- Types ----------------------------------------------------------------------------------------

NAIVE = Rule(
    "D103",
    "naive-timestamp",
    "warning",
    "a column of the models for date and time without a time zone",
    "https://wiki.postgresql.org/wiki/Don%27t_Do_This#Don.27t_use_timestamp_.28without_time_zone.29",
)
MONEY = Rule(
    "D106",
    "money-as-float",
    "info",
    "a column that is called a price, an amount… and is a binary floating point number",
    POSTGRESQL + "datatype-numeric.html#DATATYPE-FLOAT",
)

_MONEY = {"price", "amount", "balance", "salary", "fee", "payment", "revenue", "money", "wage"}


def naive_timestamps(models: Models) -> Iterator[Complaint]:
    """A type of the application's own (`TypeDecorator`) has its say about zones, so plain ones alone are judged."""
    for table, column in _all_columns(models):
        if isinstance(column.type, DateTime) and not column.type.timezone:
            yield NAIVE.complain(
                _columns(table, [column.name]),
                "It holds date and time without a zone, so that nobody can tell which moment a value is.",
                _aware(models, table, column),
            )


def money_as_float(models: Models) -> Iterator[Complaint]:
    """Told by its name, so it is a hint."""
    for table, column in _all_columns(models):
        if isinstance(column.type, Float) and _MONEY & set(column.name.lower().split("_")):
            yield MONEY.complain(
                _columns(table, [column.name]),
                "By its name it is money, and binary fractions round what is decimal.",
                f"{column.name}: Decimal = Field(max_digits=12, decimal_places=2), or Numeric(12, 2)",
            )


def _aware(models: Models, table: "Table[Any]", column: "Column[Any]") -> str:
    of_sqlmodel = any(
        each.local_table is table and issubclass(each.class_, SQLModel) for each in models.mappers
    )
    form = (
        "Field(sa_type=DateTime(timezone=True))" if of_sqlmodel else "mapped_column(DateTime(timezone=True))"
    )
    return f"{column.name}: … = {form}"


def _all_columns(models: Models) -> Iterator[tuple["Table[Any]", "Column[Any]"]]:
    for table in models.tables:
        for column in table.columns:
            yield table, column


# --- Relationships --------------------------------------------------------------------------------

APART = Rule(
    "D104",
    "relationships-apart",
    "warning",
    "two relationships over the same foreign key that do not know of each other",
    SQLALCHEMY + "errors.html#error-qzyx",
)
MULTIPLIED = Rule(
    "D105",
    "joined-collections-multiply",
    "warning",
    "a class that joins more than one collection whenever it is loaded",
    SQLALCHEMY + "orm/queryguide/relationships.html#what-kind-of-loading-to-use",
)


def relationships_apart(models: Models) -> Iterator[Complaint]:
    """SQLAlchemy warns of these once, when the mappers are configured; `overlaps` says that it is meant."""
    for mapper in models.mappers:
        for one in _own(mapper):
            if one.direction is not RelationshipDirection.MANYTOONE or one.viewonly:
                continue
            for many in _own(one.mapper):
                if _are_apart(one, many):
                    yield APART.complain(
                        _named(one),
                        f"{_named(one)} and {_named(many)} set the same foreign key and do not know of each other: a "
                        "change of the one is not seen in the other, and which is saved is left to chance.",
                        f"back_populates={many.key!r} on {_named(one)}, back_populates={one.key!r} on {_named(many)}",
                    )


def joined_collections(models: Models) -> Iterator[Complaint]:
    """Each row of the one collection comes with each row of the other."""
    for mapper in models.mappers:
        joined = [each.key for each in _own(mapper) if each.uselist and each.lazy in ("joined", False)]
        if len(joined) > 1:
            yield MULTIPLIED.complain(
                mapper.class_.__name__,
                f"Each load of it joins {' and '.join(joined)}: ten of the one and ten of the other make a hundred "
                "rows.",
                f"lazy='selectin' on {', '.join(f'{mapper.class_.__name__}.{key}' for key in joined[1:])}",
            )


def _are_apart(one: RelationshipProperty[Any], many: RelationshipProperty[Any]) -> bool:
    return (
        many.direction is RelationshipDirection.ONETOMANY
        and not many.viewonly
        and many.mapper.common_parent(one.parent)
        and set(many.local_remote_pairs or ())
        == {(there, here) for here, there in one.local_remote_pairs or ()}
        and one.back_populates != many.key
        and many.back_populates != one.key
        and many.key not in overlaps_of(one)
        and one.key not in overlaps_of(many)
    )


def _both_ways(models: Models) -> Iterator[tuple[RelationshipProperty[Any], RelationshipProperty[Any]]]:
    for mapper in models.mappers:
        for relation in _own(mapper):
            for back in relation.mapper.relationships:
                if back.back_populates == relation.key and back.mapper.common_parent(mapper):
                    yield relation, back


def _own(mapper: Mapper[Any]) -> list[RelationshipProperty[Any]]:
    """Those that the class declares itself."""
    return sorted((each for each in mapper.relationships if each.parent is mapper), key=lambda each: each.key)


def _named(relation: RelationshipProperty[Any]) -> str:
    return f"{relation.parent.class_.__name__}.{relation.key}"


# --- Names ----------------------------------------------------------------------------------------

UNNAMED = Rule(
    "D107",
    "constraints-without-names",
    "info",
    "constraints that have no name, and no naming convention that gives them one",
    "https://alembic.sqlalchemy.org/en/latest/naming.html",
)


def constraints_without_names(models: Models) -> Iterator[Complaint]:
    """A migration can only drop what has a name."""
    for metadata in models.metadata:
        tables = sorted(
            {
                table.fullname
                for table in metadata.tables.values()
                for constraint in table.constraints
                if not isinstance(constraint, PrimaryKeyConstraint) and not isinstance(constraint.name, str)
            }
        )
        if tables:
            yield UNNAMED.complain(
                f"{len(tables)} tables" if len(tables) > 1 else tables[0],
                f"Constraints of {_list(tables)} have no name: a migration cannot drop them, and each database names "
                "them otherwise.",
                "metadata.naming_convention = NAMING_CONVENTION, before the first table is declared",
            )


def _list(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


CHECKS: tuple[tuple[Rule, Find], ...] = (
    (NO_INDEX, foreign_keys_without_index),
    (NOT_UNIQUE, one_to_one_without_unique),
    (NAIVE, naive_timestamps),
    (APART, relationships_apart),
    (MULTIPLIED, joined_collections),
    (MONEY, money_as_float),
    (UNNAMED, constraints_without_names),
)


def examine_models(models: Models) -> Iterator[Complaint]:
    """What all checks of the models find."""
    for _, find in CHECKS:
        yield from find(models)
