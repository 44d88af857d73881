"""What a statement says, and statements with more said."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, cast

from sqlalchemy import Alias, ColumnElement, CompoundSelect, Delete, FromClause, Join, Select
from sqlalchemy.orm import (
    Mapper,
    ORMExecuteState,
    QueryableAttribute,
    RelationshipProperty,
)
from sqlalchemy.orm.strategy_options import (
    _AbstractLoad,  # pyright: ignore[reportPrivateUsage] - `Load` leaves the options for "*" out
)
from sqlalchemy.sql.base import ExecutableOption
from sqlalchemy.sql.operators import asc_op, desc_op, nulls_first_op, nulls_last_op
from sqlalchemy.sql.selectable import SelectBase
from sqlalchemy.sql.visitors import iterate

Pageable = Select[*tuple[Any, ...]] | CompoundSelect[*tuple[Any, ...]]
StatementT = TypeVar("StatementT", bound=Pageable)


# --- Statements -----------------------------------------------------------------------------------


def add_option(executing: ORMExecuteState, option: ExecutableOption) -> None:
    """Add a loader option to the statement about to run, unless it came with the object whose lazy load this is."""
    executing.statement = with_option(executing.statement, option, is_orm=executing.is_orm_statement)


def with_option(statement: Any, option: ExecutableOption, *, is_orm: bool) -> Any:
    """The statement with a loader option, unless it has it.

    SQLAlchemy takes a SELECT whose only columns are certain expressions (a filtered aggregate, a window function)
    for one that has nothing to do with mapped classes, and would pass the option over; it is told otherwise.
    """
    changed: Any = statement
    if option not in statement._with_options:
        changed = statement.options(option)
    if isinstance(statement, Select) and not is_orm:
        found = (mapper for each in _columns(changed) for mapper in mappers_in(each))
        if (mapper := next(found, None)) is not None:
            changed = changed._clone()
            changed._set_propagate_attrs({"compile_state_plugin": "orm", "plugin_subject": mapper})
    return changed


def remove_option(executing: ORMExecuteState, option: ExecutableOption) -> None:
    """Take an option off the statement about to run, which the object brought along whose lazy load it is."""
    executing.statement = without_option(executing.statement, option)


def without_option(statement: Any, option: ExecutableOption) -> Any:
    """The statement without an option it may have."""
    if option not in statement._with_options:
        return statement
    without = statement.options()
    without._with_options = tuple(each for each in statement._with_options if each is not option)
    return without


def registries_in(statement: Any) -> set[Any]:
    """The registries of the mapped classes that a statement names, and those that their relationships reach."""
    found: set[Any] = set()
    for element in iterate(statement):
        entity = getattr(element, "_annotations", {}).get("parententity")
        if entity is not None and entity.mapper.registry not in found:
            own = entity.mapper.registry
            found.update(own._recurse_with_dependencies({own}))
    return found


def is_orm(statement: Any) -> bool:
    """Whether SQLAlchemy runs it as a statement over mapped classes."""
    return statement._propagate_attrs.get("compile_state_plugin") == "orm"


def is_column_load(statement: Any) -> bool:
    """Whether it loads columns of an instance that the session holds, by its key."""
    return getattr(getattr(statement, "_compile_options", None), "_for_refresh_state", False)


def _columns(statement: Any) -> list[Any]:
    return statement._raw_columns


def mappers_in(element: Any) -> Iterator[Mapper[Any]]:
    """The mapped classes that an expression speaks of, not looking into its subqueries."""
    waiting = [element]
    while waiting:
        each = waiting.pop()
        entity = each._annotations.get("parententity") if hasattr(each, "_annotations") else None
        if entity is not None:
            yield entity.mapper
        waiting += [child for child in each.get_children() if not isinstance(child, SelectBase)]


def options_of(statement: Any) -> tuple[ExecutableOption, ...]:
    """All options of a statement, the user's own classes included."""
    return statement._with_options


def returning_of(statement: Delete) -> tuple[Any, ...]:
    """What stands in RETURNING, as it was given."""
    return cast("Any", statement)._returning


def is_of_class(statement: Delete) -> bool:
    """Whether what it deletes from was named as a mapped class, or an alias of one, and not as a table."""
    return "parententity" in cast("Any", statement).table._annotations


def has_extras(statement: Delete) -> bool:
    """Whether a DELETE has what an UPDATE would not take over: CTEs of its own, prefixes, hints."""
    parts: Any = statement
    return bool(parts._independent_ctes or parts._prefixes or parts._hints)


# --- What a SELECT says ---------------------------------------------------------------------------


def orders(statement: Pageable) -> list[Any]:
    """The elements of ORDER BY as they were given."""
    parts: Any = statement
    return list(_flattened(parts._order_by_clauses, "clauselist"))


def groups(statement: Pageable) -> list[Any]:
    """The elements of GROUP BY as they were given."""
    parts: Any = statement
    return list(_flattened(parts._group_by_clauses, "clauselist", "tuple"))


def _flattened(clauses: Sequence[Any], *lists: str) -> Iterator[Any]:
    for clause in clauses:
        if clause.__visit_name__ in lists:  # a composite attribute is a list of its columns
            yield from _flattened(clause.clauses, *lists)
        else:
            yield clause


def is_limited(statement: Pageable) -> bool:
    """Whether it has LIMIT, OFFSET or FETCH."""
    parts: Any = statement
    return any(
        clause is not None for clause in (parts._limit_clause, parts._offset_clause, parts._fetch_clause)
    )


def is_distinct(statement: Pageable) -> bool:
    """Whether it is a SELECT DISTINCT, with or without ON."""
    parts: Any = statement
    return isinstance(statement, Select) and bool(parts._distinct)


def distinct_on(statement: Pageable) -> list[ColumnElement[Any]]:
    """The expressions of PostgreSQL's DISTINCT ON, however it was written."""
    parts: Any = statement
    if not isinstance(statement, Select):
        return []
    extension = parts._pre_columns_clause  # select().ext(postgresql.distinct_on(...))
    clauses = (*parts._distinct_on, *getattr(extension, "_distinct_on", ()))
    return [expression for clause in clauses if (expression := read_order(clause, statement)[0]) is not None]


def is_selecting_from(statement: Pageable) -> bool:
    """Whether it was told what to select from, by `select_from()`."""
    parts: Any = statement
    return bool(parts._from_obj)


def is_joined(statement: Pageable) -> bool:
    """Whether its FROM is more than what its columns imply."""
    parts: Any = statement
    # `with_only_columns` moves the joins made so far into the memoized ones.
    return bool(parts._setup_joins or parts._memoized_select_entities) or is_selecting_from(statement)


def origins(statement: Select[*tuple[Any, ...]]) -> Sequence[FromClause]:
    """What it selects from: tables, aliases, subqueries and joins of them, without those of eager loads."""
    if not is_joined(statement):
        return list(statement.columns_clause_froms)
    return unordered(statement).get_final_froms()


def leaves(origin: FromClause) -> Iterator[FromClause]:
    """The tables, aliases and subqueries in a tree of joins."""
    if isinstance(origin, Join):
        yield from leaves(origin.left)
        yield from leaves(origin.right)
    else:
        yield origin


def unnameable(statement: Select[*tuple[Any, ...]], leaf: FromClause) -> bool:
    """Whether only SQLAlchemy can refer to it: the alias it makes of a relationship's secondary table."""
    parts: Any = statement
    holders = (parts, *parts._memoized_select_entities)
    targets: list[Any] = [target for holder in holders for target, *_ in holder._setup_joins]
    given = [leaf for origin in (*targets, *parts._from_obj) if _is_from(origin) for leaf in leaves(origin)]
    made: Any = leaf
    return isinstance(leaf, Alias) and "parententity" not in made._annotations and leaf not in given


def _is_from(target: Any) -> bool:
    return isinstance(target, FromClause)


def read_order(clause: Any, statement: Pageable) -> tuple[ColumnElement[Any] | None, bool, bool | None]:
    """One element of ORDER BY: the expression itself, whether DESC, and whether NULLS FIRST (None: not said).

    The expression is free of labels; it is None if only the database can tell what it is: textual SQL, or a
    name that is no column's.
    """
    descending, nulls_first = False, None
    while True:
        kind = getattr(clause, "__visit_name__", None)
        modifier = clause.modifier if kind == "unary" else None
        if modifier in (asc_op, desc_op):
            descending = modifier is desc_op
        elif modifier in (nulls_first_op, nulls_last_op):
            nulls_first = modifier is nulls_first_op
        elif kind == "textual_label_reference":
            clause = _named(clause.element, statement)
            continue
        elif kind not in ("label", "label_reference"):
            known = isinstance(clause, ColumnElement)
            return cast("ColumnElement[Any]", clause) if known else None, descending, nulls_first
        clause = clause.element


def plain(given: Any) -> Any:
    """What is behind an attribute or a label; anything else as it is."""
    behind = given
    if isinstance(given, QueryableAttribute):
        behind = behind.expression
    return behind.element if getattr(behind, "__visit_name__", None) == "label" else behind


def _named(name: str, statement: Pageable) -> ColumnElement[Any] | None:
    found = statement.selected_columns.get(name)
    if found is None and isinstance(statement, Select):
        for origin in origins(statement):
            found = next((leaf.c[name] for leaf in leaves(origin) if name in leaf.c), None)
    return found


def with_hidden(statement: Any, columns: Sequence[ColumnElement[Any]]) -> Any:
    """The statement with the columns behind its own, and nothing else changed."""
    if statement._setup_joins and not is_selecting_from(statement):
        # A join without a condition looks for its left side among what is selected: that stays as it was.
        statement = statement.select_from(*statement.columns_clause_froms)
    return statement.add_columns(*[column.label(f"catalysis_{n}") for n, column in enumerate(columns)])


def options(statement: Pageable) -> list[Any]:
    """Its ORM options but for those that say how attributes are loaded."""
    parts: Any = statement
    memoized = getattr(parts, "_memoized_select_entities", ())
    every = [option for holder in (parts, *memoized) for option in holder._with_options]
    return [option for option in every if not isinstance(option, _AbstractLoad)]


def unordered(statement: StatementT) -> StatementT:
    """A copy without ORDER BY, FOR UPDATE and ORM options."""
    copy: Any = statement.order_by(None)
    copy._for_update_arg = None
    copy._with_options = ()
    return copy


def collection_from_join(statement: Pageable) -> str | None:
    """The relationship of a `contains_eager()` that fills a collection, if there is one, as `User.tasks`."""
    parts: Any = statement
    loads: list[Any] = [option for option in parts._with_options if isinstance(option, _AbstractLoad)]
    for element in [element for load in loads for element in getattr(load, "context", ())]:
        along: list[Any] = [step for step in element.path.path if isinstance(step, RelationshipProperty)]
        if "eager_from_alias" in element.local_opts and along and along[-1].uselist:
            return f"{along[-1].parent.class_.__name__}.{along[-1].key}"
    return None
