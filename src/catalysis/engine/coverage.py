"""Whether the native path covers a statement of a session as things stand; what a plan itself decides is in `plan`."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Mapper

from catalysis.engine.alchemy.compiling import is_select, subject_of
from catalysis.engine.alchemy.pooling import interference
from catalysis.engine.alchemy.sessions import HookedSession, bind_of, has_foreign_hooks
from catalysis.engine.drivers import driver_of, is_driven
from catalysis.engine.lease import OUR_LISTENERS
from catalysis.engine.plan import Reading, plan_get, plan_reading

_ROUTING = frozenset({"mapper", "clause"})


def reading_of(
    session: HookedSession,
    statement: Any,
    params: Any,
    options: Mapping[str, Any],
    bind_arguments: Mapping[str, Any] | None,
    *,
    streams: bool = False,
) -> Reading | str:
    """What `run` (or `stream`) needs to execute the statement; or the reason why SQLAlchemy has to.

    Raises:
        UnboundExecutionError: the session does not know where to send it.
    """
    if not is_select(statement):
        return "not a SELECT"
    if bind_arguments and bind_arguments.keys() - _ROUTING:
        return "bind arguments"
    if (refused := _unasked(session)) is not None:
        return refused
    bind = bind_of(session, subject_of(statement), statement)
    if (refused := refused_by(session, bind)) is not None:
        return refused
    literal = driver_of(bind.dialect).plans_by_limit
    return plan_reading(
        session, bind, statement, params, options, bind_arguments, literal_limits=literal, streams=streams
    )


def getting_of(session: HookedSession, mapper: Mapper[Any], key: Sequence[Any]) -> Reading | str:
    """The same for loading one instance by its key, which has no NULL in it."""
    if (refused := _unasked(session)) is not None:
        return refused
    bind = bind_of(session, mapper, None)
    return refused_by(session, bind) or plan_get(session, bind, mapper, key)


def _unasked(session: HookedSession) -> str | None:
    """Why nothing is read natively, wherever it would go: a `ShardedSession` cannot say that beforehand."""
    return "a do_orm_execute listener" if has_foreign_hooks(session) else None


def refused_by(session: HookedSession, bind: Engine | Connection) -> str | None:
    """Why nothing of the session goes natively to where it is bound; None if it does."""
    if session.execution_options:
        return "execution options of the session"
    if not is_driven(bind.dialect):
        return f"the driver {bind.dialect.driver}"
    return interference(bind, OUR_LISTENERS)
