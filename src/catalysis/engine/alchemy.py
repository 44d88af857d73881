"""The one module that touches SQLAlchemy's private names.

Each is used in one place below, and `tests/engine/test_alchemy.py` fails when an upgrade changes it.
"""

from typing import Any

from sqlalchemy.orm import InstanceState, ORMExecuteState
from sqlalchemy.sql.base import ExecutableOption
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


def add_option(executing: ORMExecuteState, option: ExecutableOption) -> None:
    """Add a loader option to the statement about to run, unless it came with the object whose lazy load this is."""
    statement: Any = executing.statement
    if option not in statement._with_options:
        executing.statement = statement.options(option)


class HookedSession(SyncSession):
    """The synchronous session inside a `Session`, with a place to step in where SQLAlchemy offers no event."""

    def visible(self, instance: object) -> bool:
        """Whether an instance found in the identity map may be handed out for its key."""
        return True

    def _execute_internal(self, *args: Any, **kwargs: Any) -> Any:
        """Every statement of the session passes here; joined collections come out with unique parents."""
        result: Any = super()._execute_internal(*args, **kwargs)
        # Only an ORM result has such a context; a scalar, a cursor's or a frozen result has not.
        context = getattr(result, "context", None)
        return result.unique() if getattr(context, "requires_uniquing", False) else result

    def _identity_lookup(self, *args: Any, **kwargs: Any) -> Any:
        """Every lookup by key passes here: `get`, and the lazy load of a many-to-one."""
        found: Any = super()._identity_lookup(*args, **kwargs)
        return found if found is None or self.visible(found) else None
