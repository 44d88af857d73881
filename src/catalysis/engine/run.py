"""The trip of a reading statement: plan, lease, driver rows, instances.  Start here.

`coverage.reading_of` has found or made its plan.  What comes back as None goes through SQLAlchemy, whole, before
anything was sent: parameters that cannot be bound, a transaction that cannot be used.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from sqlalchemy import Result
from sqlalchemy.exc import DBAPIError
from sqlalchemy.util import immutabledict
from sqlalchemy.util.concurrency import greenlet_spawn

from catalysis.engine.alchemy import compiling, loading
from catalysis.engine.alchemy.recipes import NotGenerated, recipe_of
from catalysis.engine.alchemy.sessions import HookedSession, heard_loading, holds_nothing, once_each
from catalysis.engine.collector import MANY, paused
from catalysis.engine.conversions import conversion
from catalysis.engine.drivers import Answer, driver_of
from catalysis.engine.hydrate import hydrate_with
from catalysis.engine.lease import Lease, lease
from catalysis.engine.plan import Reading, add_variant, variant_for
from catalysis.events import QueryEvent, call_site, emit, is_heard

ATTEMPTS = 2
"""How often a read outside a transaction is tried: it changes nothing, and a fresh connection may do better."""


@dataclass(slots=True)
class Sent:
    """What goes to the driver, and SQLAlchemy's context of it where SQLAlchemy is to load the rows."""

    sql: str
    parameters: Sequence[Any]
    context: Any = None
    statement: Any = None
    options: Mapping[str, Any] | None = None


async def run(session: HookedSession, reading: Reading) -> Result[Any] | None:
    """Execute a reading statement and return its result, as SQLAlchemy's `AsyncSession.execute` would.

    Raises:
        DBAPIError: what the database answered, as SQLAlchemy raises it.
    """
    sent = bind(session, reading)
    answer = sent and await _fetch(session, reading, sent)
    if sent is None or answer is None:
        return None
    if await is_generated(session, reading, sent, answer.describe):
        return loading.result_of(*await _hydrate(session, reading, answer))
    return await greenlet_spawn(_load, session, reading, sent, answer)


async def run_one(session: HookedSession, reading: Reading) -> tuple[Any] | None:
    """Execute the loading of one instance by its key: a tuple of it, or of None; None as for `run`.

    Raises:
        DBAPIError: what the database answered, as SQLAlchemy raises it.
        MultipleResultsFound: the key is not one.
    """
    sent = bind(session, reading)
    answer = sent and await _fetch(session, reading, sent)
    if sent is None or answer is None:
        return None
    if len(answer.rows) < 2 and await is_generated(session, reading, sent, answer.describe):
        _, rows = await _hydrate(session, reading, answer)
        return (rows[0] if rows else None,)
    result = await greenlet_spawn(_load, session, reading, sent, answer)
    return (result.unique().scalars().one_or_none(),)


# --- Binding --------------------------------------------------------------------------------------


def bind(session: HookedSession, reading: Reading) -> Sent | None:
    """SQL and parameters for the driver; None if they cannot be made."""
    plan = reading.plan
    generated = plan.hydrator is not None and reading.is_generated and not heard_loading(session)
    simple = plan.variables is not None and not reading.params and not reading.named
    try:
        key, variant = variant_for(plan, reading.given) if simple else (None, None)
        if generated and variant is not None:
            return Sent(variant.sql, compiling.bound_values(variant.binds, reading.given))
        statement = session.with_defaults(reading.statement) if plan.takes_defaults else reading.statement
        options: Any = immutabledict(reading.options).union({"prebuffer_rows": True})
        if plan.plugin is not None:
            arguments = dict(reading.bind_arguments)
            options = loading.load_options(
                plan.plugin, session, statement, reading.params, options, arguments
            )
        sent = Sent("", (), None, statement, options)
        context = _context(reading, sent)
    except Exception:  # SQLAlchemy will meet it too, and raise it as its own
        return None
    if simple and variant is None:
        add_variant(plan, key, reading.given)
    sent.sql, sent.parameters = context.statement, context.parameters[0]
    sent.context = None if generated else context
    return sent


# --- Fetching -------------------------------------------------------------------------------------


async def _fetch(session: HookedSession, reading: Reading, sent: Sent) -> Answer | None:
    attempt = 0
    while True:
        attempt += 1
        lent = await _lease(session, reading)
        if lent is None:
            return None
        try:
            return await _ask(reading, sent, lent)
        except DBAPIError as failure:
            final = attempt == ATTEMPTS or lent.held is not None
            if final or not (failure.connection_invalidated or _was_stale(reading, failure)):
                raise


def _was_stale(reading: Reading, failure: DBAPIError) -> bool:
    driver, cause = driver_of(reading.engine.dialect), getattr(failure.orig, "__cause__", None)
    return isinstance(cause, Exception) and driver.was_stale(cause)


async def _lease(session: HookedSession, reading: Reading) -> Lease | None:
    driver = driver_of(reading.engine.dialect)
    return await lease(session, reading.bind, driver, needs_transaction=reading.plan.needs_transaction)


async def _ask(reading: Reading, sent: Sent, lent: Lease) -> Answer:
    dialect = reading.engine.dialect
    driver = driver_of(dialect)
    ended = tell(sent.sql) if is_heard() else None
    try:
        answer = await driver.fetch(
            lent.connection, sent.sql, sent.parameters, dialect=dialect, in_transaction=lent.held is not None
        )
    except Exception as error:
        if ended is not None:
            ended(None, type(error).__name__)
        await lent.fail(error, sent.sql, sent.parameters)
    except BaseException as cancelled:
        lent.give_up(cancelled, survives=driver.survives_cancellation)
        raise
    if ended is not None:
        ended(len(answer.rows), None)
    if lent.held is None:
        await lent.give_back()
    return answer


def tell(sql: str) -> Callable[[int | None, str | None], None]:
    """A function that tells of the statement sent now, given the rows or the error that came back."""
    started = perf_counter()

    def ended(rows: int | None, error: str | None) -> None:
        emit(QueryEvent(sql, perf_counter() - started, rows, True, None, error, call_site()))

    return ended


# --- Instances ------------------------------------------------------------------------------------


async def _hydrate(
    session: HookedSession, reading: Reading, answer: Answer
) -> tuple[loading.Load, list[Any]]:
    plan = reading.plan
    assert plan.recipe is not None
    assert plan.hydrator is not None
    load = loading.Load(plan.recipe, session, reading.statement, reading.options, plan.takes_defaults)
    if len(answer.rows) < MANY:
        rows = plan.hydrator(answer.rows, load)
    else:
        with paused(len(answer.rows)):
            rows = plan.hydrator(answer.rows, load)
    if plan.recipe.row.loads_after:
        while calls := load.take_post_loads():
            await _load_after(session, calls)
    return load, rows


async def _load_after(session: HookedSession, calls: Sequence[Callable[[], None]]) -> None:
    """Load what does not depend on each other at once, outside a transaction."""
    if len(calls) > 1 and holds_nothing(session) and not session.turn.is_ours:
        tasks = [asyncio.ensure_future(greenlet_spawn(call)) for call in calls]
        try:
            await asyncio.gather(*tasks)
        finally:  # the first failure is the one to raise, and the others are not left running
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    else:
        for call in calls:
            await greenlet_spawn(call)


async def is_generated(
    session: HookedSession, reading: Reading, sent: Sent, describe: Callable[[], Any]
) -> bool:
    """Whether the generated hydrator is to be used; the first time, whether there can be one."""
    plan = reading.plan
    if plan.hydrator is None and plan.not_generated is None and reading.is_generated:
        await greenlet_spawn(_learn, session, reading, sent, describe)
    return sent.context is None or (
        plan.hydrator is not None and reading.is_generated and not heard_loading(session)
    )


def _learn(session: HookedSession, reading: Reading, sent: Sent, describe: Callable[[], Any]) -> None:
    """Learn from SQLAlchemy how it would load the rows: it is shown their columns, and no row."""
    plan = reading.plan
    if plan.plugin is None:
        plan.not_generated = "no mapped class is selected"
        return
    try:
        empty = Sent(sent.sql, sent.parameters, _context(reading, sent), sent.statement, sent.options)
        plan.recipe = recipe_of(_load(session, reading, empty, Answer(describe, [], 0)))
        texts = driver_of(reading.engine.dialect).gives_text
        keys = {column for node in plan.recipe.row.nodes for column in node.key}
        converted = [
            conversion(*each, is_text=texts, is_key=number in keys)
            for number, each in enumerate(plan.recipe.processors)
        ]
        plan.hydrator = hydrate_with(plan.recipe.row, converted)
    except NotGenerated as why:
        plan.not_generated = str(why)


def _context(reading: Reading, sent: Sent) -> Any:
    plan = reading.plan
    return compiling.execution_context(
        plan.compiled,
        plan.detached,
        sent.statement,
        reading.given,
        reading.named,
        reading.params,
        sent.options or {},
    )


def _load(session: HookedSession, reading: Reading, sent: Sent, answer: Answer) -> Result[Any]:
    """Let SQLAlchemy itself load the rows; inside a greenlet."""
    plan = reading.plan
    cursor = compiling.cursor_result(sent.context, answer.describe(), answer.rows, answer.rowcount)
    if plan.plugin is None:
        return cursor
    arguments = dict(reading.bind_arguments)
    return once_each(
        loading.loaded(
            plan.plugin, session, sent.statement, reading.params, sent.options or {}, arguments, cursor
        )
    )
