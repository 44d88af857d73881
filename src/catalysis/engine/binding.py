"""What goes to the driver: a plan's SQL, with the values of one execution."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.util import immutabledict

from catalysis.engine.alchemy import compiling, loading
from catalysis.engine.alchemy.sessions import HookedSession, heard_loading
from catalysis.engine.plan import Reading, add_variant, variant_for


@dataclass(slots=True)
class Sent:
    """What goes to the driver, and SQLAlchemy's context of it where SQLAlchemy is to load the rows."""

    sql: str
    parameters: Sequence[Any]
    context: Any = None
    statement: Any = None
    options: Mapping[str, Any] | None = None


def bind(session: HookedSession, reading: Reading) -> Sent | None:
    """SQL and parameters for the driver; None if they cannot be made."""
    plan = reading.plan
    generated = plan.hydrator is not None and reading.is_generated and not heard_loading(session)
    simple = plan.variables is not None and not reading.named
    given: Any = reading.given
    if simple and (reading.params or plan.requires_values):
        given = compiling.filled(given, reading.params or {})
        simple = given is not None
    try:
        key, variant = variant_for(plan, given) if simple else (None, None)
        if generated and variant is not None:
            return Sent(variant.sql, compiling.bound_values(variant.binds, given))
        statement = session.with_defaults(reading.statement) if plan.takes_defaults else reading.statement
        options: Any = immutabledict(reading.options).union({"prebuffer_rows": True})
        if plan.plugin is not None:
            arguments = dict(reading.bind_arguments)
            options = loading.load_options(
                plan.plugin, session, statement, reading.params, options, arguments
            )
        sent = Sent("", (), None, statement, options)
        context = context_of(reading, sent)
    except Exception:  # SQLAlchemy will meet it too, and raise it as its own
        return None
    if simple and variant is None:
        add_variant(plan, key, given)
    sent.sql, sent.parameters = context.statement, context.parameters[0]
    sent.context = None if generated else context
    return sent


def context_of(reading: Reading, sent: Sent) -> Any:
    """SQLAlchemy's context of the execution; each serves for one result.

    Raises:
        StatementError, InvalidRequestError: a value is missing or cannot be bound.
    """
    plan = reading.plan
    return compiling.execution_context(
        plan.compiled,
        compiling.detached_connection(reading.engine),
        sent.statement,
        reading.given,
        reading.named,
        reading.params,
        sent.options or {},
    )
