"""How a plan comes to its hydrator: SQLAlchemy is shown the columns, and what it would do is written down.

Where that cannot be, SQLAlchemy itself loads the rows, each time.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Result
from sqlalchemy.util.concurrency import greenlet_spawn

from catalysis.engine.alchemy import compiling, loading
from catalysis.engine.alchemy.recipes import NotGenerated, Recipe, recipe_of
from catalysis.engine.alchemy.sessions import HookedSession, heard_loading, once_each
from catalysis.engine.alchemy.states import compiled
from catalysis.engine.binding import Sent, context_of
from catalysis.engine.conversions import conversion
from catalysis.engine.drivers import Answer, driver_of
from catalysis.engine.hydrate import Hydrator, hydrate_with
from catalysis.engine.plan import Reading


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
        empty = Sent(sent.sql, sent.parameters, context_of(reading, sent), sent.statement, sent.options)
        plan.recipe = recipe_of(load_rows(session, reading, empty, Answer(describe, [], 0)))
        plan.hydrator = _hydrator(reading, plan.recipe)
    except NotGenerated as why:
        plan.not_generated = str(why)


def hydrator_of_many(reading: Reading) -> Hydrator:
    """The generated hydrator by what is compiled, for a plan that has the other; made at its first large result."""
    plan = reading.plan
    if plan.hydrator_of_many is None:
        assert plan.recipe is not None
        assert plan.hydrator is not None
        plan.hydrator_of_many = _hydrator(reading, plan.recipe, of_many=True) if compiled else plan.hydrator
    return plan.hydrator_of_many


def _hydrator(reading: Reading, recipe: Recipe, *, of_many: bool = False) -> Hydrator:
    texts = driver_of(reading.engine.dialect).gives_text
    keys = {column for node in recipe.row.nodes for column in node.key}
    converted = [
        conversion(*each, is_text=texts, is_key=number in keys)
        for number, each in enumerate(recipe.processors)
    ]
    return hydrate_with(recipe.row, converted, of_many=of_many)


def load_rows(session: HookedSession, reading: Reading, sent: Sent, answer: Answer) -> Result[Any]:
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
