"""From a statement to a `Plan`: decided once, cached by SQLAlchemy's own key of the statement, and never awaiting.

A plan is built from the statement, the mappers it names and the engine's dialect alone, so the cache belongs to an
engine and is emptied when mappers are configured anew.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple, cast
from weakref import WeakSet

from sqlalchemy import Connection, Engine, bindparam, event, select
from sqlalchemy.orm import Mapper

from catalysis.engine.alchemy.carrying import DISTRIBUTION_CHECK, Uncarried
from catalysis.engine.alchemy.compiling import (
    Given,
    Variable,
    Variant,
    cache_key,
    compiled_for,
    locks_rows,
    outer_options,
    own_execution_options,
    requires_values,
    unkeyed_options,
    variables_of,
    variant_key,
    variant_of,
    with_literal_limit,
)
from catalysis.engine.alchemy.criteria import own_positions, with_own_values
from catalysis.engine.alchemy.loading import autoflushes, plugin_of
from catalysis.engine.alchemy.recipes import Recipe
from catalysis.engine.alchemy.sessions import HookedSession
from catalysis.engine.purity import needs_transaction
from catalysis.errors import TenantError, UnsupportedStatement

PLANS = 1_000
"""The most plans an engine keeps; those not used for longest go first."""

_PLAIN_OPTIONS = frozenset(
    {"prebuffer_rows", "autoflush", "populate_existing", "_sa_orm_load_options", "sa_top_level_orm_context"}
) | {DISTRIBUTION_CHECK}
_STREAMING = frozenset({"stream_results", "yield_per"})
_OF_OUTER = _PLAIN_OPTIONS | _STREAMING | {"_result_disable_adapt_to_context"}
"""What the statement may have that an eager load belongs to; SQLAlchemy adds the last to each."""


@dataclass(slots=True)
class Plan:
    """How a statement is executed.  Frozen but for its hydrators, which are made from the first rows."""

    compiled: Any
    variables: tuple[Variable, ...] | None
    """The parameters that shape the SQL; None if SQLAlchemy binds each execution."""
    plugin: Any
    """The part of SQLAlchemy that runs statements over mapped classes; None for a Core statement."""
    takes_defaults: bool
    """Whether the session adds something to the statement."""
    needs_transaction: bool
    requires_values: bool
    """Whether it has parameters that each execution brings by name."""
    variants: dict[Any, Variant] = field(default_factory=dict[Any, Variant])
    """The SQL and its binds, by what shapes them; most statements have one."""
    recipe: Recipe | None = None
    hydrator: Callable[[Sequence[Any], Any], list[Any]] | None = None
    hydrator_of_many: Callable[[Sequence[Any], Any], list[Any]] | None = None
    """The same by what is compiled, made at the first result of many rows."""
    get_statement: Any = None
    """The statement itself, kept where it loads by key, which needs no other."""
    own: tuple[int, ...] = ()
    """The places of the session's own among the parameters."""
    own_is_given: bool = False
    """Whether the statement brought parameters in these places, which are another session's then."""
    last_used: int = 0
    uncarried: Uncarried | None = None
    """A distributed table that it asks every shard of."""
    not_generated: str | None = None
    """Why SQLAlchemy turns the rows into instances; None until the first rows have come."""


@dataclass(slots=True)
class Refusal:
    """Kept in the place of a plan for a statement that is SQLAlchemy's."""

    reason: str
    last_used: int = 0


class Reading(NamedTuple):
    """One execution of a plan, before anything has been waited for.

    There is one a statement, and a frozen dataclass takes four times as long to make.
    """

    plan: Plan
    bind: Engine | Connection
    engine: Engine
    statement: Any
    params: Mapping[str, Any] | None
    given: Sequence[Any]
    """The statement's own bound parameters, in the plan's order."""
    named: Any
    """Values given by the statement's `params()`."""
    options: Mapping[str, Any]
    bind_arguments: Mapping[str, Any]
    is_generated: bool
    """Whether the options allow the generated hydrator."""

    @property
    def wants_autoflush(self) -> bool:
        """Whether what the session holds unflushed goes first; a Core statement has no say in that."""
        if self.plan.plugin is None:
            return True
        return autoflushes(self.options)


_PLANS = "_catalysis_plans"
"""Under this name an engine keeps its plans, which refer to it: so they go together."""
_planned: WeakSet[Engine] = WeakSet()
_clock = count()


@event.listens_for(Mapper, "after_configured")
def _forget_plans() -> None:
    for engine in list(_planned):
        engine.__dict__.pop(_PLANS, None)


def plans_of(engine: Engine) -> int:
    """How many plans the engine keeps."""
    return len(engine.__dict__.get(_PLANS, ()))


def plan_reading(
    session: HookedSession,
    bind: Engine | Connection,
    statement: Any,
    params: Any,
    options: Mapping[str, Any],
    bind_arguments: Mapping[str, Any] | None,
    *,
    literal_limits: bool = False,
    streams: bool = False,
) -> "Reading | str":
    """The plan of a statement and what this execution brings; or why it is SQLAlchemy's.

    `literal_limits`: whether a LIMIT is written into the SQL, for a database that plans by it.
    """
    if params is not None and not isinstance(params, Mapping):
        return "several sets of parameters"
    by_name = cast("Mapping[str, Any] | None", params)
    engine = bind.engine
    if own := own_execution_options(statement):
        options = {**own, **options}
    refused = _refused(options, _PLAIN_OPTIONS | _STREAMING if streams else _PLAIN_OPTIONS)
    if refused is not None or (refused := _refused(outer_options(options), _OF_OUTER)) is not None:
        return refused
    if (key := cache_key(statement)) is None:
        return "a statement that SQLAlchemy cannot cache"
    plans = _plans_of(engine)
    # Parameters by name meet the names that were compiled, and anonymous ones are not in SQLAlchemy's key.
    names = tuple(sorted(by_name)) if by_name else ()
    full_key = (key[0], names, unkeyed_options(statement), session.plan_flags())
    plan = plans.get(full_key)
    if plan is None:
        plan = plans[full_key] = _plan(session, engine, statement, len(key[1]), literal_limits=literal_limits)
        _bound(plans)
    plan.last_used = next(_clock)
    if isinstance(plan, Refusal):
        return plan.reason
    if plan.uncarried is not None:
        session.meet_uncarried(plan.uncarried, options)
    generated = not (options.keys() & {"populate_existing", "_sa_orm_load_options"})
    given = _with_own(session, plan, key[1])
    return Reading(
        plan, bind, engine, statement, by_name, given, key[2], options, bind_arguments or {}, generated
    )


def _with_own(session: HookedSession, plan: Plan, given: Sequence[Any]) -> Sequence[Any]:
    if not plan.own:
        return given
    return with_own_values(given, plan.own, is_there=plan.own_is_given, parameter=session.own_parameter)


VARIANTS = 32
"""The most variants a plan keeps; a statement that comes in more is bound by SQLAlchemy each time."""


def variant_for(plan: Plan, given: Sequence[Any]) -> tuple[Any, Variant | None]:
    """The key of the variant that these parameters ask for, and the variant if it is known."""
    key = variant_key(plan.variables, given) if plan.variables else ()
    return key, plan.variants.get(key)


def add_variant(plan: Plan, key: Any, given: Sequence[Any]) -> None:
    """Make the variant for these parameters, if there is room and it can be made without SQLAlchemy's help."""
    if len(plan.variants) < VARIANTS and (variant := variant_of(plan.compiled, given)) is not None:
        plan.variants[key] = variant


def plan_get(
    session: HookedSession, bind: Engine | Connection, mapper: Mapper[Any], key: Sequence[Any]
) -> "Reading | str":
    """The plan of loading one instance of a class by its key, found by the class alone."""
    engine = bind.engine
    plans = _plans_of(engine)
    full_key = (mapper, session.plan_flags())
    plan = plans.get(full_key)
    if plan is None or isinstance(plan, Refusal):
        statement = select(mapper).where(
            *[
                column == bindparam(None, value, type_=column.type)
                for column, value in zip(mapper.primary_key, key, strict=True)
            ]
        )
        reading = plan_reading(session, bind, statement, None, {}, None)
        if isinstance(reading, str):
            return reading
        plan = reading.plan
        plan.get_statement = statement
        plans[full_key] = plan
        _bound(plans)
    plan.last_used = next(_clock)
    given = _with_own(session, plan, [Given(value) for value in key])
    return Reading(plan, bind, engine, plan.get_statement, None, given, None, {}, {}, True)


def _plans_of(engine: Engine) -> dict[Hashable, Plan | Refusal]:
    plans: dict[Hashable, Plan | Refusal] | None = engine.__dict__.get(_PLANS)
    if plans is None:
        plans = engine.__dict__[_PLANS] = {}
        _planned.add(engine)
    return plans


def _bound(plans: dict[Hashable, Plan | Refusal]) -> None:
    """Let the plans go that were not used for longest, a fifth of them at once: hashing a key costs microseconds."""
    if len(plans) > PLANS:
        oldest = sorted(plans, key=lambda key: plans[key].last_used)
        for key in oldest[: PLANS // 5]:
            del plans[key]


def _refused(options: Mapping[str, Any], allowed: frozenset[str]) -> str | None:
    for name in options:
        if name not in allowed:
            return f"the execution option {name!r}"
    return None


def _plan(
    session: HookedSession, engine: Engine, statement: Any, given: int, *, literal_limits: bool
) -> Plan | Refusal:
    prepared = session.with_defaults(statement)
    try:
        session.check_plan(prepared, engine)
        uncarried = session.uncarried(prepared, engine)
        compiled: Any = compiled_for(with_literal_limit(prepared) if literal_limits else prepared, engine)
    except (TenantError, UnsupportedStatement):
        raise
    except Exception:  # whatever it is, SQLAlchemy will raise it when it comes to the statement
        return Refusal("a statement that does not compile")
    own = () if compiled.cache_key is None else own_positions(compiled.cache_key[1])
    if compiled.cache_key is None or len(compiled.cache_key[1]) not in (given, given + len(own)):
        return Refusal("a statement whose parameters cannot be told apart")
    if not compiled.positional or compiled.schema_translate_map:
        return Refusal("parameters by name")
    return Plan(
        compiled,
        variables_of(compiled),
        plugin_of(prepared),
        prepared is not statement,
        locks_rows(statement) or needs_transaction(compiled.string),
        requires_values(compiled),
        own=own,
        own_is_given=len(compiled.cache_key[1]) == given,
        uncarried=uncarried,
    )
