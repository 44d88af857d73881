"""The driver's rows as instances, by the hydrator of their plan."""

from typing import Any

from catalysis.engine.alchemy import loading
from catalysis.engine.alchemy.sessions import HookedSession
from catalysis.engine.collector import MANY, paused
from catalysis.engine.drivers import Answer
from catalysis.engine.learning import hydrator_of_many
from catalysis.engine.plan import Reading
from catalysis.engine.waiting import load_together
from catalysis.events import note_origin, rows_of


async def hydrate(session: HookedSession, reading: Reading, answer: Answer) -> tuple[loading.Load, list[Any]]:
    """The driver's rows as the result's, of a plan that has its hydrator."""
    plan, load = reading.plan, load_of(session, reading, len(answer.rows))
    assert plan.recipe is not None
    assert plan.hydrator is not None
    if len(answer.rows) < MANY:
        rows = plan.hydrator(answer.rows, load)
    else:
        with paused(len(answer.rows)):
            rows = hydrator_of_many(reading)(answer.rows, load)
    if len(rows) > 1:  # one alone has no peers, and may be somebody's peer already
        load.adopt(lambda number: rows_of(number) <= len(rows))
    if plan.recipe.row.loads_after:
        while calls := load.take_post_loads():
            await load_together(session, calls)
    return load, rows


def load_of(session: HookedSession, reading: Reading, rows: int) -> loading.Load:
    """What a plan's hydrator loads rows into."""
    plan = reading.plan
    assert plan.recipe is not None
    load = loading.Load(plan.recipe, session, reading.statement, reading.options, plan.takes_defaults)
    note_origin(load.number, plan.compiled.string, rows)
    return load
