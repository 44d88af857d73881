"""The one module that touches SQLAlchemy's private names.

Each is used in one place below, and `tests/engine/test_alchemy.py` fails when an upgrade changes it.
"""

from collections.abc import Iterator
from typing import Any, cast

from sqlalchemy import Delete, Result, Select
from sqlalchemy.orm import InstanceState, Mapper, ORMExecuteState
from sqlalchemy.sql.base import ExecutableOption
from sqlalchemy.sql.selectable import SelectBase
from sqlalchemy.util.concurrency import in_greenlet
from sqlmodel.orm.session import Session as SyncSession


def can_wait() -> bool:
    """Whether code that does not await may wait for the database here: inside a greenlet that SQLAlchemy drives."""
    return in_greenlet()


def awaited_attribute(executing: ORMExecuteState) -> tuple[InstanceState[Any], str] | None:
    """The instance and attribute an attribute access is loading; None for a statement of another kind."""
    owner = executing.lazy_loaded_from
    if owner is not None:
        path: Any = executing.loader_strategy_path
        return owner, path[-1].key
    if executing.is_column_load:
        options: Any = executing
        refreshed = options.load_options._refresh_state
        wanted = options._orm_compile_options()._only_load_props or refreshed.unloaded
        return refreshed, min(wanted & set(refreshed.mapper.column_attrs.keys()) or wanted)
    return None


# --- Statements -----------------------------------------------------------------------------------


def add_option(executing: ORMExecuteState, option: ExecutableOption) -> None:
    """Add a loader option to the statement about to run, unless it came with the object whose lazy load this is.

    SQLAlchemy takes a SELECT whose only columns are certain expressions (a filtered aggregate, a window function)
    for one that has nothing to do with mapped classes, and would pass the option over; it is told otherwise.
    """
    statement: Any = executing.statement
    if option not in statement._with_options:
        executing.statement = statement = statement.options(option)
    if isinstance(statement, Select) and not executing.is_orm_statement:
        found = (mapper for each in _columns(statement) for mapper in mappers_in(each))
        if (mapper := next(found, None)) is not None:
            plugin = {"compile_state_plugin": "orm", "plugin_subject": mapper}
            cast("Any", statement)._set_propagate_attrs(plugin)


def remove_option(executing: ORMExecuteState, option: ExecutableOption) -> None:
    """Take an option off the statement about to run, which the object brought along whose lazy load it is."""
    statement: Any = executing.statement
    if option in statement._with_options:
        executing.statement = without = statement.options()
        without._with_options = tuple(each for each in statement._with_options if each is not option)


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


def has_extras(statement: Delete) -> bool:
    """Whether a DELETE has what an UPDATE would not take over: CTEs of its own, prefixes, hints."""
    parts: Any = statement
    return bool(parts._independent_ctes or parts._prefixes or parts._hints)


# --- Sessions -------------------------------------------------------------------------------------


class HookedSession(SyncSession):
    """The synchronous session inside a `Session`, with a place to step in where SQLAlchemy offers no event."""

    def visible(self, instance: object) -> bool:
        """Whether an instance found in the identity map may be handed out for its key."""
        return True

    def about_to_execute(self) -> int:
        """A statement is on its way; what is returned is given back when it has ended."""
        return 0

    def has_executed(self, before: int, *, rows: int | None, failed: bool) -> None:
        """The statement has ended; `rows` are those it changed, where the driver says."""

    def _execute_internal(self, *args: Any, **kwargs: Any) -> Any:
        """Every statement of the session passes here; joined collections come out with unique parents."""
        before = self.about_to_execute()
        try:
            result: Any = super()._execute_internal(*args, **kwargs)
        except BaseException:
            self.has_executed(before, rows=None, failed=True)
            raise
        if not isinstance(result, Result):  # of `scalar()`: a value, which is not ours to touch
            self.has_executed(before, rows=None, failed=False)
            return result
        answer = cast("Any", result)
        self.has_executed(before, rows=getattr(answer, "rowcount", None), failed=False)
        # Only an ORM result has such a context; a cursor's has another.
        return (
            answer.unique()
            if getattr(getattr(answer, "context", None), "requires_uniquing", False)
            else answer
        )

    def _identity_lookup(self, *args: Any, **kwargs: Any) -> Any:
        """Every lookup by key passes here: `get`, and the lazy load of a many-to-one."""
        found: Any = super()._identity_lookup(*args, **kwargs)
        return found if found is None or self.visible(found) else None
