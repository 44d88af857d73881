"""From a plan to a plan with findings: the facts they need are asked of the driver, below SQLAlchemy and unheard.

Most plans need none.  PostgreSQL's catalog is asked with one query, of tables that are scanned from end to end or
deleted from; SQLite with two, of which the second reads a bounded number of rows.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from catalysis.tools.query_plans.facts import (
    FACTS_POSTGRESQL,
    Facts,
    catalog_sqlite,
    facts_postgresql,
    read_catalog_sqlite,
    sample_sqlite,
    wanted_postgresql,
)
from catalysis.tools.query_plans.findings import POSTGRESQL, SQLITE, Finder, Statement, findings_of
from catalysis.tools.query_plans.sqlite import sampled_sqlite, wanted_sqlite, with_counts
from catalysis.tools.query_plans.tree import QueryPlan


async def fetch_unnamed(driver: Any, sql: str, *parameters: Any) -> list[Any]:
    """Rows from asyncpg of a statement prepared without a name, so that it does not stay on the server."""
    return await (await driver.prepare(sql, name="")).fetch(*parameters)


async def _facts_asyncpg(driver: Any, plan: QueryPlan, statement: Statement) -> Facts:
    names = wanted_postgresql(plan)
    if not names:
        return {}
    return facts_postgresql(await fetch_unnamed(driver, FACTS_POSTGRESQL, names))


async def _facts_aiosqlite(driver: Any, plan: QueryPlan, statement: Statement) -> Facts:
    names = wanted_sqlite(plan, statement.sql)
    if not names:
        return {}
    facts = read_catalog_sqlite(await driver.execute_fetchall(catalog_sqlite(names), names))
    wanted = sampled_sqlite(plan, statement.sql, facts)
    if not wanted:
        return {}
    (counts,) = await driver.execute_fetchall(sample_sqlite(wanted))
    return with_counts(facts, wanted, tuple(counts))


_FACTS: dict[str, Callable[[Any, QueryPlan, Statement], Awaitable[Facts]]] = {
    "asyncpg": _facts_asyncpg,
    "aiosqlite": _facts_aiosqlite,
}
_FINDERS: dict[str, tuple[Finder, ...]] = {"postgresql": POSTGRESQL, "sqlite": SQLITE}


async def examined(driver: Any, dialect: Any, plan: QueryPlan, statement: Statement) -> QueryPlan:
    """The plan with its findings; without `driver`, the driver's own connection, those that need no facts.

    A server that speaks PostgreSQL's protocol and has not its catalog gives no facts either, and its transaction is
    broken then: there must be a savepoint around this.
    """
    facts: Facts = {}
    if driver is not None and (ask := _FACTS.get(dialect.driver)) is not None:
        try:
            facts = await ask(driver, plan, statement)
        except Exception as failure:
            if str(getattr(failure, "sqlstate", ""))[:2] not in ("42", "0A"):
                raise
    return replace(plan, findings=findings_of(plan, statement, facts, _FINDERS[dialect.name]))
