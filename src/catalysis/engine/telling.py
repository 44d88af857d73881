"""Events of the statements that go natively."""

import time
from collections.abc import Callable
from time import perf_counter
from typing import Any

from catalysis.engine.lease import Lease
from catalysis.events import QueryEvent, address_of, call_site, current_scope, emit, name_of, transaction_of


def tell(lent: Lease, sql: str, parameters: Any, subject: Any) -> Callable[[int | None, str | None], None]:
    """A function that tells of the statement sent now, about a mapper, given the rows or the error that came back."""
    started = perf_counter()

    def ended(rows: int | None, error: str | None) -> None:
        seconds = perf_counter() - started
        happened = QueryEvent(
            sql,
            seconds,
            rows,
            True,
            None,
            error,
            call_site(),
            subject and name_of(subject),
            time.time() - seconds,
            address_of(lent.engine),
            current_scope(),
            transaction_of(lent.held),
        )
        emit(happened, parameters)

    return ended
