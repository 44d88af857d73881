"""Statements as records of the standard library's `logging`, with what is known of them in fields of the record.

Whatever formats records to JSON (structlog, a JSON formatter) finds the fields as those that `extra` sets.  No
parameter's value and no literal is in a record.
"""

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from catalysis.events import Observer, QueryEvent, observe
from catalysis.integrations.statements import describe

logger = logging.getLogger(__name__)


def log_statements(
    logger: logging.Logger | str = "catalysis.statements", *, level: int = logging.INFO
) -> Callable[[], None]:
    """Log every statement of the process at `level`, one that failed at WARNING at least.

    The fields of a record are those of `fields_of`.

    Returns:
        The function that ends it.
    """
    return observe(_Logged(logging.getLogger(logger) if isinstance(logger, str) else logger, level))


def fields_of(happened: QueryEvent) -> dict[str, Any]:
    """What a record says of a statement: `sql`, `seconds`, `rows`, `native`, `reason`, `error`, `file`, `line`…

    `reason` is why it was not native, `scope` the request or activity it was sent for, `transaction` the number of
    its transaction, `database` the name of its database; what is not known is None.
    """
    return {
        "sql": describe(happened.sql).text,
        "seconds": happened.seconds,
        "rows": happened.rows,
        "native": happened.native,
        "reason": happened.reason,
        "error": happened.error,
        "file": happened.file,
        "line": happened.line,
        "scope": happened.scope and happened.scope.name,
        "transaction": happened.transaction and happened.transaction.number,
        "database": happened.database and happened.database.name,
    }


def summary_of(happened: QueryEvent) -> str:
    """A statement in one line, without its SQL."""
    said = describe(happened.sql)
    rows = "" if happened.rows is None else f", {happened.rows} rows"
    failed = "" if happened.error is None else f", failed with {happened.error}"
    return f"{said.summary or said.operation}: {happened.seconds * 1000:.1f} ms{rows}{failed}"


class _Logged(Observer):
    def __init__(self, logger: logging.Logger, level: int) -> None:
        self._logger, self._level = logger, level

    def on_statement(self, happened: QueryEvent, parameters: Any) -> None:
        """See `Observer`."""
        level = self._level if happened.error is None else max(self._level, logging.WARNING)
        if self._logger.isEnabledFor(level):
            try:
                self._logger.log(level, "%s", summary_of(happened), extra=fields_of(happened))
            except Exception as failure:  # a handler's or a filter's: the statement has nothing to do with it
                logger.debug("A statement could not be logged: %s", type(failure).__name__)


_OF_EVERY_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time in UTC, level, logger, message, the fields of `extra`, and the traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON; what JSON does not know is written as text."""
        said: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        said |= {name: value for name, value in vars(record).items() if name not in _OF_EVERY_RECORD}
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return json.dumps(said, default=str, ensure_ascii=False)
