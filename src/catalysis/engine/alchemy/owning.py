"""What an INSERT or UPDATE says of the column that names a row's owner, and the same statement with more said."""

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any, NamedTuple, cast

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Delete,
    Insert,
    TextClause,
    Update,
    and_,
    select,
    tuple_,
)
from sqlalchemy.orm import Mapper
from sqlalchemy.sql.selectable import SelectBase
from sqlalchemy.sql.visitors import iterate


class LocalSetting(NamedTuple):
    """A setting of the database's, for one transaction."""

    name: str
    value: str


class Owned(NamedTuple):
    """A class whose rows have an owner, and the value that stands for the one at hand."""

    mapper: Mapper[Any]
    attribute: str
    owner: Any
    refuse: Callable[[str], Exception]

    @property
    def column(self) -> Any:
        """The column behind the attribute."""
        return self.mapper.columns[self.attribute]

    def names(self, key: Any) -> bool:
        """Whether this key of a statement's values means the owner."""
        if isinstance(key, str):
            return key in (self.attribute, self.column.key)
        return getattr(key, "key", None) in (self.attribute, self.column.key)

    def check(self, value: Any) -> None:
        """Raise unless it is the owner's, said as a value."""
        said: Any = cast("Any", value).effective_value if isinstance(value, BindParameter) else value
        if isinstance(said, ColumnElement) or hasattr(said, "__clause_element__") or said != self.owner:
            raise self.refuse(f"sets {self.mapper.class_.__name__}.{self.attribute} to another value")


def filled_row(owned: Owned, row: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """The row with its owner; one that has another is refused."""
    given = [key for key in row if owned.names(key) and row[key] is not None]
    for key in given:
        owned.check(row[key])
    if given:
        return row
    missing = [key for key in row if owned.names(key)]
    return {**row, (missing[0] if missing else owned.attribute): owned.owner}


def filled_insert(owned: Owned, statement: Any, params: Any) -> tuple[Any, Any]:
    """An INSERT and its parameters, every row with its owner, and a conflict met in the owner's rows alone.

    Raises:
        Exception: what `owned.refuse` makes: another owner, or rows that only the database knows.
    """
    if not isinstance(statement, Insert):
        raise owned.refuse("is an INSERT made by a lambda, which cannot be looked into")
    made: Any = statement
    if made.select is not None or _hides_rows(made):
        raise owned.refuse("inserts what a subquery or textual SQL gives")
    if (conflict := made._post_values_clause) is not None:
        made = made._clone()
        made._post_values_clause = _within(owned, conflict)
    if made._multi_values:
        groups = tuple([filled_row(owned, row) for row in group] for group in made._multi_values)
        made = made._clone()
        made._multi_values = groups
        return made, params
    values: Mapping[Any, Any] = made._values or {}
    own = [value for key, value in values.items() if owned.names(key)]
    for value in own:
        owned.check(value)
    if isinstance(params, list):
        rows = cast("list[Mapping[Any, Any]]", params)
        return made, [filled_row(owned, row) for row in rows]
    if params:
        return made, filled_row(owned, params)
    return (made if own else made.values({owned.attribute: owned.owner})), params


def _within(owned: Owned, conflict: Any) -> Any:
    """An ON CONFLICT clause that leaves rows of another owner as they are."""
    if conflict.__visit_name__ != "on_conflict_do_update":
        return conflict
    for key, value in conflict.update_values_to_set.items():
        if owned.names(key) and getattr(getattr(value, "table", None), "name", None) != "excluded":
            owned.check(value)
    limited = copy(conflict)
    own = owned.column == owned.owner
    given = conflict.update_whereclause
    limited.update_whereclause = own if given is None else and_(given, own)
    return limited


def check_set(owned: Owned, statement: Any, params: Any) -> None:
    """Refuse an UPDATE that gives rows to another owner."""
    rows: list[Any] = [*cast("list[Any]", params)] if isinstance(params, list) else [params]
    pairs: list[tuple[Any, Any]] = []
    for row in (getattr(statement, "_values", None), *rows):
        pairs += row.items() if row else ()
    for key, value in pairs:
        if owned.names(key):
            owned.check(value)


def owned_rows(owned: Owned, statement: Any) -> Any:
    """An UPDATE or DELETE of a flush, by key, that finds the owner's rows alone; anything else as it is."""
    if not isinstance(statement, Update | Delete):
        return statement
    table, own = cast("Any", statement.table), owned.column
    if table is own.table:
        return statement.where(own == owned.owner)
    if all(table is not each for mapper in owned.mapper.self_and_descendants for each in mapper.tables):
        return statement
    keys = [*table.primary_key]  # of a joined subclass
    owners = select(*owned.mapper.primary_key).where(own == owned.owner)
    return statement.where(keys[0].in_(owners) if len(keys) == 1 else tuple_(*keys).in_(owners))


def _hides_rows(statement: Any) -> bool:
    return any(isinstance(each, SelectBase | TextClause) for each in iterate(statement))
