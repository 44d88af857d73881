"""Slow statements, logged at once; their plans, made in the background and logged after them.

A plan is made for any values of the parameters, so that none are kept.  It is made on a connection of its own, in a
task of its own, and rather not at all than at somebody's cost: not where the pool is nearly empty, not twice for one
statement in a while, and not many at a time.
"""

import asyncio
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self, cast

from sqlalchemy.pool import NullPool, QueuePool

from catalysis.database import Database, PoolFigures
from catalysis.events import Observer, QueryEvent, observe
from catalysis.integrations.logs import fields_of, summary_of
from catalysis.integrations.statements import LONGEST, describe, without_literals
from catalysis.tools.explain_sql import explain_sql
from catalysis.tools.query_plans.text import lines_of
from catalysis.tools.query_plans.tree import QueryPlan, QueryPlanNode

PLAN_EVERY = 600.0
"""Seconds in which a statement is explained once."""
REMEMBERED = 500
"""Statements of which it is known when they were explained last."""
AT_A_TIME = 2
"""Plans that are made at the same time."""
PATIENCE = 5.0
"""Seconds that the making of a plan may take."""

_PLANNABLE = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "VALUES"})
logger = logging.getLogger("catalysis.slow")


def log_slow_queries(
    database: Database, seconds: float, *, plan: bool = True, plan_every: float = PLAN_EVERY
) -> "SlowQueryLog":
    """Log the statements of `database` that take `seconds` or longer, by the logger `catalysis.slow` at WARNING.

    The record has the fields of `catalysis.integrations.logs.fields_of`.  With `plan` a second one follows, with the
    plan's text and its findings as the fields `plan` and `findings`; at most once in `plan_every` seconds for each
    statement.  Neither has parameters or literals.

    Returns:
        What ends it: `await log.close()`, or `async with` for the length of a block.
    """
    return SlowQueryLog(database, seconds, plan, plan_every)


class SlowQueryLog(Observer):
    """The slow-query log of a database, until it is closed."""

    def __init__(self, database: Database, seconds: float, plan: bool, plan_every: float) -> None:
        """See `log_slow_queries`."""
        self._database, self._addresses, self._seconds = database, database.addresses, seconds
        self._plan, self._plan_every = plan, plan_every
        self._explained: OrderedDict[str, float] = OrderedDict()
        self._loop: asyncio.AbstractEventLoop | None = None
        """Of the tasks: the first that sent a slow statement.  What other loops send meanwhile has no plan."""
        self._waiting = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_open = True
        self._end: Callable[[], None] = observe(self)

    async def __aenter__(self) -> Self:
        """Itself: it has begun already."""
        return self

    async def __aexit__(self, *error: object) -> None:
        """Close it."""
        await self.close()

    async def close(self) -> None:
        """End the log, and the plans that are being made; may be called again."""
        self._is_open = False
        self._end()
        tasks = [task for task in self._tasks if task.get_loop() is asyncio.get_running_loop()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def on_statement(self, happened: QueryEvent, parameters: Any) -> None:
        """See `Observer`."""
        if happened.seconds < self._seconds or happened.database not in self._addresses:
            return
        try:
            logger.warning("Slow: %s", summary_of(happened), extra=fields_of(happened))
            if self._plan:
                self._schedule(happened)
        except Exception as failure:  # a handler's or a filter's: the statement has nothing to do with it
            logger.debug("A slow statement could not be logged: %s", type(failure).__name__)

    # --- Plans ------------------------------------------------------------------------------------

    def _schedule(self, happened: QueryEvent) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        if self._loop is None or self._loop.is_closed():
            self._loop, self._waiting = loop, 0
            self._tasks.clear()
        if loop is self._loop and self._is_due(happened.sql):
            self._waiting += 1
            # By way of the loop, since a task that starts eagerly would start in the statement's greenlet; it keeps
            # the statement's context, so that what adds a request's id to records does so.
            loop.call_soon(self._start, happened)

    def _is_due(self, sql: str) -> bool:
        """Whether the statement is to be explained now; if so, it counts as explained."""
        if self._waiting + len(self._tasks) >= AT_A_TIME or len(sql) > LONGEST:
            return False
        now, last = time.monotonic(), self._explained.get(sql)
        if describe(sql).operation not in _PLANNABLE or (last is not None and now - last < self._plan_every):
            return False
        self._explained[sql] = now
        self._explained.move_to_end(sql)
        if len(self._explained) > REMEMBERED:
            self._explained.popitem(last=False)
        return True

    def _start(self, happened: QueryEvent) -> None:
        self._waiting -= 1
        if self._is_open:
            task = asyncio.get_running_loop().create_task(self._explain(happened))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _explain(self, happened: QueryEvent) -> None:
        engine = self._database.engine
        if not _has_spare(engine.pool, self._database.pool_figures()):
            self._explained.pop(happened.sql, None)  # perhaps next time
            return
        try:
            async with asyncio.timeout(PATIENCE):
                plan = await explain_sql(engine, happened.sql)
            _log_plan(happened, plan)
        except Exception as failure:  # its text may quote the statement, literals and all
            logger.debug("No plan of a slow statement: %s", type(failure).__name__)


def _has_spare(pool: Any, figures: PoolFigures) -> bool:
    """Whether a connection can be lent without waiting, and another one is left."""
    if isinstance(pool, QueuePool):
        return figures.limit is None or figures.limit - figures.lent > 1
    return isinstance(pool, NullPool)  # others have one connection for all, which may be in a transaction


def _log_plan(happened: QueryEvent, plan: QueryPlan) -> None:
    text = "\n".join(lines_of(_masked(plan.root)))
    findings = [_without_those_of(plan, f"{each.message} {each.evidence}".strip()) for each in plan.findings]
    said = "\n".join([f"Plan of {summary_of(happened)}", text, *findings])
    logger.warning("%s", said, extra={**fields_of(happened), "plan": text, "findings": findings})


def _masked(node: QueryPlanNode) -> QueryPlanNode:
    """The same without the literals of its conditions."""
    return replace(
        node,
        filter=_without(node.filter),
        index_condition=_without(node.index_condition),
        details={name: _without(value) for name, value in node.details.items()},
        children=tuple(_masked(child) for child in node.children),
    )


_CONDITION = re.compile(r"['(]")


def _without(value: Any) -> Any:
    if isinstance(value, list):
        return [_without(part) for part in cast("list[Any]", value)]
    return without_literals(value) if isinstance(value, str) and _CONDITION.search(value) else value


def _without_those_of(plan: QueryPlan, said: str) -> str:
    """Words about a plan, with its conditions masked wherever they are quoted."""
    values = [
        value
        for node in plan.nodes()
        for value in (node.filter, node.index_condition, *node.details.values())
    ]
    conditions = [value for value in values if isinstance(value, str) and _CONDITION.search(value)]
    for each in sorted(conditions, key=len, reverse=True):  # one may be a part of another
        said = said.replace(each, without_literals(each))
    return said
