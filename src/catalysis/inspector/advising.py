"""Advice on indexes for one recorded statement; asked for by a button, since trying takes time and locks."""

import asyncio
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from catalysis.database import Database
from catalysis.errors import CatalysisError
from catalysis.inspector.explaining import ONE_CONNECTION, has_one_connection
from catalysis.inspector.masking import mask
from catalysis.inspector.records import Statement

LONGEST = 30.0
"""Seconds that a page waits for advice."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """An index, and what shows that it helps; costs are in the planner's units."""

    ddl: str
    before: float | None
    after: float | None
    proved_by: str | None
    """`hypopg` or `transaction`; None if it was not tried."""
    reason: str | None
    """Why it was not."""


@dataclass(frozen=True, slots=True)
class Advised:
    """What is proposed, or why nothing is known."""

    problem: str | None = None
    proposals: tuple[Proposal, ...] = ()
    remarks: tuple[str, ...] = ()


async def advised(
    database: Database, statement: Statement, *, shows_values: bool, in_transaction: bool
) -> Advised:
    """Ask `advise` about this statement alone.  Never raises."""
    from catalysis.advice import Advice, Workload, advise
    from catalysis.advice import Statement as Sent

    if statement.is_cut or statement.database not in (None, *database.addresses):
        return Advised("It cannot be tried: it is not kept whole, or was sent to another database.")
    if has_one_connection(database):
        return Advised(ONE_CONNECTION)

    def clean(text: str) -> str:
        return text if shows_values else mask(text)

    values = statement.parameters if shows_values else None
    workload = Workload([Sent(statement.sent, statement.calls, statement.seconds, statement.rows, values)])
    try:
        async with asyncio.timeout(LONGEST):
            advice: Advice = await advise(database, workload, in_transaction=in_transaction)
    except TimeoutError:
        return Advised("The database did not answer in time.")
    except (CatalysisError, SQLAlchemyError, OSError) as failure:
        return Advised(f"It could not be tried: {type(failure).__name__}.")
    proved = [
        Proposal(clean(each.ddl), gain.before, gain.after, each.proved_by, None)
        for each in advice.indexes
        for gain in each.gains[:1]
    ]
    unproved = [Proposal(clean(each.ddl), None, None, None, each.reason) for each in advice.unproved]
    remarks = (*(each.reason for each in advice.skipped), *advice.remarks)
    return Advised(None, (*proved, *unproved), tuple(map(clean, remarks)))
