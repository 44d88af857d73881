"""How the pools of connections stand."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import QueuePool


@dataclass(frozen=True, slots=True)
class PoolFigures:
    """How the connections stand: open in all, lent out now, the most that may be open (None: no bound)."""

    open: int
    lent: int
    limit: int | None


def figures_of(engine: AsyncEngine, overflow: int | None) -> PoolFigures:
    """An engine's pool; zeros for one that does not count.  `overflow`: of how many; None for a pool that was given."""
    pool = engine.pool
    if not isinstance(pool, QueuePool):
        return PoolFigures(0, 0, None)
    bounded = overflow is not None and pool.size() > 0 and overflow >= 0
    limit = pool.size() + overflow if bounded and overflow is not None else None
    return PoolFigures(pool.checkedin() + pool.checkedout(), pool.checkedout(), limit)


def together(every: Iterable[PoolFigures]) -> PoolFigures:
    """Several pools as one."""
    figures = list(every)
    limits = [each.limit for each in figures if each.limit is not None]
    limit = sum(limits) if limits and len(limits) == len(figures) else None
    return PoolFigures(sum(each.open for each in figures), sum(each.lent for each in figures), limit)
