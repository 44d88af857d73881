"""What is to be made faster: the distinct statements that an application sent, how often and how long.

A workload is gathered from events, from PostgreSQL's `pg_stat_statements`, or read from a file.  It is bounded: of
too many statements the least expensive are forgotten.  No parameter's value is kept unless asked for, and none is
ever written to a file.
"""

import json
import re
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from catalysis.database import Database
from catalysis.errors import AdviceError, CannotConnect
from catalysis.events import DatabaseAddress, Observer, QueryEvent, observe

LIMIT = 1_000
"""Distinct statements that a workload keeps, unless told otherwise."""

_ANALYSED = re.compile(r"[\s(]*(SELECT|WITH|INSERT|UPDATE|DELETE|MERGE)\b", re.IGNORECASE)
_LIST = re.compile(r"\bIN \((?:\?|\$\d+(?:::[\w\[\]\" ]+?)?)(?:, ?(?:\?|\$\d+(?:::[\w\[\]\" ]+?)?))*\)")
_NUMBER = re.compile(r"\$\d+")


@dataclass(frozen=True, slots=True)
class Statement:
    """One distinct statement and what all its executions took together."""

    sql: str
    calls: int = 1
    seconds: float = 0.0
    rows: int = 0
    """Returned or changed, by all calls, as far as known."""
    parameters: Sequence[Any] | None = None
    """Of one execution, as the driver got them; None unless the workload was told to keep an example."""
    derived_from: str | None = None
    """For a statement that the server sends itself: the one that makes it do so."""

    def __repr__(self) -> str:
        return f"Statement({self.sql!r}, calls={self.calls}, seconds={self.seconds:.6f}, rows={self.rows})"


class Workload:
    """Distinct statements, at most `limit` of them.

    Statements that differ in the length of an IN list alone count as one.
    """

    def __init__(self, statements: Iterable[Statement] = (), *, limit: int = LIMIT) -> None:
        self.limit = limit
        self.dropped = 0
        """Distinct statements that were forgotten, being less expensive than those kept; an upper bound."""
        self._statements: dict[str, Statement] = {}
        for each in statements:
            self.add(each)

    @property
    def statements(self) -> tuple[Statement, ...]:
        """The most expensive first."""
        self._forget(self.limit)
        return tuple(sorted(self._statements.values(), key=lambda each: -each.seconds))

    def __len__(self) -> int:
        return min(len(self._statements), self.limit)

    def add(self, statement: Statement) -> None:
        """Count a statement's calls, seconds and rows to those already known of it."""
        if not _ANALYSED.match(statement.sql):
            return
        key = shape_of(statement.sql)
        known = self._statements.get(key)
        if known is not None:
            statement = Statement(
                known.sql,
                known.calls + statement.calls,
                known.seconds + statement.seconds,
                known.rows + statement.rows,
                known.parameters,
            )
        self._statements[key] = statement
        if len(self._statements) > 2 * self.limit:  # at once for many: forgetting sorts them all
            self._forget(self.limit)

    def hear(self, happened: QueryEvent, parameters: Any = None) -> None:
        """Count one statement that was sent; those that failed are left out."""
        if happened.error is None:
            self.add(
                Statement(happened.sql, 1, happened.seconds, happened.rows or 0, _one_execution(parameters))
            )

    def _forget(self, limit: int) -> None:
        if len(self._statements) <= limit:
            return
        ranked = sorted(self._statements.items(), key=lambda item: -item[1].seconds)
        self._statements = dict(ranked[:limit])
        self.dropped += len(ranked) - limit

    @classmethod
    def read(cls, path: Path, *, limit: int = LIMIT) -> "Workload":
        """The workload in a file of JSON lines, each `{"sql": …, "calls": 1, "seconds": 0.1, "rows": 3}`.

        Only `sql` must be there; the same statement may stand in many lines.

        Raises:
            AdviceError: the file cannot be read, or a line is not such an object.
        """
        workload = cls(limit=limit)
        read = 0
        try:
            with path.open(encoding="utf-8") as lines:
                for line in lines:
                    read += 1
                    if line.strip():
                        workload.add(_from_json(json.loads(line)))
        except OSError as failure:
            raise AdviceError(f"{path} cannot be read: {failure.strerror}.") from None
        except (ValueError, TypeError, KeyError):
            raise AdviceError(
                f"Line {read} of {path} is no JSON object with a statement: write "
                '{"sql": "SELECT …", "calls": 1, "seconds": 0.1}, one a line.'
            ) from None
        return workload

    def write(self, path: Path) -> None:
        """Write the statements to a file that `read` takes, without any parameters.

        Raises:
            AdviceError: the file cannot be written.
        """
        try:
            with path.open("w", encoding="utf-8") as file:
                for each in self.statements:
                    said = {"sql": each.sql, "calls": each.calls, "seconds": each.seconds, "rows": each.rows}
                    file.write(json.dumps(said) + "\n")
        except OSError as failure:
            raise AdviceError(f"{path} cannot be written: {failure.strerror}.") from None


def shape_of(sql: str) -> str:
    """The statement without what does not make it another: blanks, numbers of parameters, lengths of IN lists."""
    return _NUMBER.sub("$", _LIST.sub("IN (…)", " ".join(sql.split())))


def _one_execution(parameters: Any) -> Sequence[Any] | None:
    """The values of one execution of those that an observer is given: a list stands for many executions."""
    given = cast("Sequence[Any]", parameters) if isinstance(parameters, tuple | list) else None
    if given and isinstance(parameters, list) and isinstance(given[0], tuple | list | dict):
        return _one_execution(given[0])
    return None if given is None else tuple(given)


def _from_json(said: dict[str, Any]) -> Statement:
    sql = said["sql"]
    if not isinstance(sql, str):
        raise TypeError("sql")
    return Statement(
        sql, int(said.get("calls") or 1), float(said.get("seconds") or 0.0), int(said.get("rows") or 0)
    )


class _Gathering(Observer):
    def __init__(self, workload: Workload, addresses: frozenset[DatabaseAddress] | None, keep: bool) -> None:
        self._workload, self._addresses, self._keep = workload, addresses, keep

    def on_statement(self, happened: QueryEvent, parameters: Any) -> None:
        if self._addresses is None or happened.database in (None, *self._addresses):
            self._workload.hear(happened, parameters if self._keep else None)


@contextmanager
def gather_workload(
    database: Database | None = None, *, limit: int = LIMIT, keep_parameters: bool = False
) -> Generator[Workload]:
    """Gather what the process sends (to `database` only, if one is given) for the length of the block.

    With `keep_parameters` the values of one execution of each statement are kept in memory: plans are then made for
    them instead of for any values.

    Yields:
        A `Workload`, which fills while the block runs and keeps its statements after it.
    """
    workload = Workload(limit=limit)
    addresses = None if database is None else database.addresses
    end = observe(_Gathering(workload, addresses, keep_parameters))
    try:
        yield workload
    finally:
        end()


_STATISTICS = """
SELECT s.query, s.calls, s.total_exec_time / 1000.0, s.rows
FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
WHERE d.datname = current_database() AND s.toplevel
  AND s.query ~* '^[[:space:](]*(select|with|insert|update|delete|merge)'
  AND s.query !~* 'pg_catalog|pg_stat|information_schema'
ORDER BY s.total_exec_time DESC LIMIT :limit
"""


async def workload_from_statistics(database: Database, *, limit: int = LIMIT) -> Workload:
    """The most expensive statements that `pg_stat_statements` has counted for this database since its last reset.

    It keeps no values: literals of a statement are placeholders in it.

    Raises:
        AdviceError: the database is not PostgreSQL, or has not loaded the extension (PostgreSQL 14 or newer).
    """
    try:
        async with database.engine.connect() as connection:
            if connection.dialect.name != "postgresql":
                raise AdviceError(
                    f"{connection.dialect.name} counts no statements.  Gather them with gather_workload(), write "
                    "them with Workload.write(), and give the file to `catalysis advise --from`."
                )
            rows = (await connection.execute(text(_STATISTICS), {"limit": limit})).all()
    except CannotConnect:
        raise
    except DBAPIError as failure:
        raise AdviceError(
            f"pg_stat_statements cannot be read ({type(failure.orig).__name__}).  Put it into "
            "shared_preload_libraries, restart the server, and run CREATE EXTENSION pg_stat_statements; or give a "
            "file of statements."
        ) from failure
    return Workload((Statement(row[0], row[1], row[2], row[3]) for row in rows), limit=limit)
