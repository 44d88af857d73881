"""`advise`: workload and catalog in, proved advice out.  The trip on one screen; the thinking is in other modules.

Nothing is ever applied: what is tried is undone, and what is proposed is only said.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from catalysis.advice.candidates import Candidates, count_keys, may_serve
from catalysis.advice.catalog import SMALL_TABLE, Catalog, read_catalog
from catalysis.advice.choosing import AT_LEAST, Choice, Problem, choose
from catalysis.advice.definitions import IndexDefinition, TableName, is_served_by
from catalysis.advice.figures import outline_of
from catalysis.advice.predicates import Asked, Unread, read_statement
from catalysis.advice.proving import LOCK_SECONDS, Answers, Trial, limit_waiting, trial_on
from catalysis.advice.redundancy import UNUSED_DAYS, IndexToDrop, find_redundant
from catalysis.advice.referring import derived_statements
from catalysis.advice.workload import Statement, Workload
from catalysis.database import Database
from catalysis.errors import AdviceError

MAX_CANDIDATES = 300
"""Indexes that are tried in one run; those of the least expensive statements are left out."""
_CHEAPER = 2.0
"""From so many times less on a statement is said to become cheaper, unless less is asked of an index."""


@dataclass(frozen=True, slots=True)
class Gain:
    """What an index does for one statement; costs in the planner's units, None on SQLite, which tells none."""

    statement: Statement
    before: float | None
    """Without any of the proposed indexes."""
    after: float | None
    """With all of them."""
    without: float | None
    """With all of them but this one."""
    plan_before: str
    """The steps without any of them, a line each; conditions are left out, since they show values."""
    plan_after: str


@dataclass(frozen=True, slots=True)
class ProposedIndex:
    """An index that was proved to lower the cost of at least one statement as far as was asked."""

    name: str
    definition: IndexDefinition
    ddl: str
    gains: tuple[Gain, ...]
    """For the statements that need it, most expensive first."""
    size: int | None
    """Bytes; None where the database does not tell."""
    writes: int
    """Calls in the workload that write to its table, and would write to it too."""
    proved_by: str
    """`hypopg` or `transaction`."""
    concurrently: bool = True
    """Whether PostgreSQL makes it while others write; not on a partitioned table."""


@dataclass(frozen=True, slots=True)
class UnprovedIndex:
    """An index that might help and could not be tried."""

    definition: IndexDefinition
    ddl: str
    reason: str
    statements: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class StatementCost:
    """One statement that was analysed, and the proposed indexes it becomes cheaper by, by name; none for most.

    Cheaper is less than half.  Of several indexes that would do the same for it, those are named that its plan has.
    """

    statement: Statement
    before: float | None
    after: float | None
    indexes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Skipped:
    """A statement that was not analysed."""

    statement: Statement
    reason: str


@dataclass(frozen=True, slots=True)
class Advice:
    """What is proposed, on what evidence, and what was left out."""

    indexes: tuple[ProposedIndex, ...] = ()
    to_drop: tuple[IndexToDrop, ...] = ()
    unproved: tuple[UnprovedIndex, ...] = ()
    statements: tuple[StatementCost, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    remarks: tuple[str, ...] = ()
    dialect: str = ""


async def advise(
    database: Database,
    workload: Workload,
    *,
    in_transaction: bool = False,
    at_least: float = AT_LEAST,
    unused_days: float = UNUSED_DAYS,
) -> Advice:
    """Indexes that lower the planner's cost of a statement `at_least` so many times, and indexes that could go.

    They are tried by hypopg where the server has it.  With `in_transaction` they are really made, in a transaction
    that is rolled back; meanwhile their tables are locked, so this is for development databases.  On SQLite, which
    tells no costs, it is the only way, and the proof is that a plan no longer scans or sorts.  Without either,
    candidates are `unproved`.

    Raises:
        AdviceError: the database is neither PostgreSQL nor SQLite; or its tables are locked.
    """
    engine = database.engine
    catalog = await _catalog(engine)
    work = _read(catalog, workload, engine.dialect)
    work.cheaper = min(_CHEAPER, at_least)
    async with trial_on(engine, catalog.extensions, in_transaction=in_transaction) as trial:
        answers = Answers(trial, work.statements)
        figures = await answers.to([(n, frozenset()) for n in range(len(work.statements))])
        _make_candidates(
            work, {n for (n, _), cost in figures.items() if cost >= at_least * catalog.page_cost}, at_least
        )
        await trial.make(work.candidates)
        tried = frozenset(range(len(work.candidates))) - trial.refused.keys()
        choice = await _chosen(
            Problem(
                work.candidates,
                [each & tried for each in work.own],
                [each & tried for each in work.near],
                [each.calls for each in work.statements],
                at_least,
            ),
            answers,
        )
        return await _reported(work, choice, answers, unused_days)


async def _catalog(engine: AsyncEngine) -> Catalog:
    async with engine.connect() as connection:
        await limit_waiting(connection)
        try:
            return await read_catalog(connection)
        except DBAPIError as failure:
            if getattr(failure.orig, "sqlstate", None) != _NO_LOCK:
                raise
            raise AdviceError(
                f"A table of this database was locked for longer than {LOCK_SECONDS} seconds, by a migration or a "
                "VACUUM FULL perhaps.  Try again when that is through."
            ) from failure


_NO_LOCK = "55P03"
"""SQLSTATE of a lock that was not had in time.  Source: PostgreSQL documentation, "PostgreSQL Error Codes"."""


@dataclass(slots=True)
class _Work:
    """What is known of a workload before anything is tried."""

    catalog: Catalog
    dialect: Dialect
    statements: list[Statement] = field(default_factory=list[Statement])
    asked: list[Asked] = field(default_factory=list[Asked])
    skipped: list[Skipped] = field(default_factory=list[Skipped])
    remarks: list[str] = field(default_factory=list[str])
    candidates: list[IndexDefinition] = field(default_factory=list[IndexDefinition])
    own: list[frozenset[int]] = field(default_factory=list[frozenset[int]])
    near: list[frozenset[int]] = field(default_factory=list[frozenset[int]])
    writes: dict[TableName, int] = field(default_factory=dict[TableName, int])
    cheaper: float = _CHEAPER


def _read(catalog: Catalog, workload: Workload, dialect: Dialect) -> _Work:
    """The statements that ask something of tables, and what they ask."""
    work = _Work(catalog, dialect)
    pending = list(workload.statements)
    while pending:
        statement = pending.pop(0)
        asked = read_statement(statement.sql, dialect.name, catalog.columns)
        if isinstance(asked, Unread):
            work.skipped.append(Skipped(statement, asked.reason))
            continue
        if asked.writes is not None and statement.derived_from is None:
            work.writes[asked.writes] = work.writes.get(asked.writes, 0) + statement.calls
        if asked.kind == "DELETE" and statement.derived_from is None:
            pending += derived_statements(statement, asked, catalog, dialect)
        if asked.uses:
            work.statements.append(statement)
            work.asked.append(asked)
        elif asked.kind != "INSERT":
            work.skipped.append(Skipped(statement, "it asks for no table of this database"))
    if workload.dropped:
        work.remarks.append(
            f"{workload.dropped} statements are not in the workload, being less expensive than those that are."
        )
    return work


def _make_candidates(work: _Work, expensive: set[int], at_least: float) -> None:
    """For the statements that are expensive enough to become so much cheaper."""
    catalog = work.catalog
    existing = [each.definition for each in catalog.indexes if each.valid]
    maker = Candidates(catalog.abilities, catalog.facts, count_keys(work.asked), existing)
    numbers: dict[IndexDefinition, int] = {}
    left_out = 0
    for n in sorted(expensive):
        wanted = [each for use in work.asked[n].uses for each in maker.of(use)]
        for each in wanted:
            if each in numbers or not _is_worth_trying(each, work, at_least):
                continue
            if len(numbers) < MAX_CANDIDATES:
                numbers[each] = len(numbers)
            else:
                left_out += 1
    work.candidates = list(numbers)
    for n, asked in enumerate(work.asked):
        tables = {use.table for use in asked.uses}
        work.near.append(frozenset(i for each, i in numbers.items() if each.table in tables))
        work.own.append(
            frozenset(
                i
                for each, i in numbers.items()
                if n in expensive and any(may_serve(each, use) for use in asked.uses)
            )
        )
    if left_out:
        work.remarks.append(f"{left_out} more candidates were not tried: {MAX_CANDIDATES} are, at most.")
    searched = sum(any(use.matches for use in asked.uses) for asked in work.asked)
    if searched and catalog.abilities.gin and not catalog.abilities.trigrams:
        work.remarks.append(
            f"{searched} statements search text by a pattern, which only a trigram index makes fast: the extension "
            "pg_trgm is not there."
        )


def _is_worth_trying(index: IndexDefinition, work: _Work, at_least: float) -> bool:
    """Where the database has no costs: whether the table is large, and the columns tell its rows apart."""
    if work.dialect.name == "postgresql":
        return True
    if work.catalog.rows.get(index.table, 0) < SMALL_TABLE:
        return False
    distinct = work.catalog.facts[index.table].distinct
    apart = 1.0
    for key in index.keys:
        apart *= distinct.get(key.sql, at_least)  # an expression is given the benefit of the doubt
    return apart >= at_least


async def _chosen(problem: Problem, answers: Answers) -> Choice:
    """Let the choice ask its questions, and the database answer them."""
    asking = choose(problem)
    try:
        questions = next(asking)
        while True:
            questions = asking.send(await answers.to(questions))
    except StopIteration as done:
        return done.value


# --- The report -----------------------------------------------------------------------------------


async def _reported(work: _Work, choice: Choice, answers: Answers, unused_days: float) -> Advice:
    trial = answers.trial
    names = _names(work, choice.chosen)
    helped = {i: _helped(choice, i, work.cheaper) for i in choice.chosen}
    cheaper = {n for n in choice.after if choice.before[n] >= work.cheaper * choice.after[n]}
    plans = await _plans(answers, names, cheaper)
    indexes: list[ProposedIndex] = []
    for i in choice.chosen:
        definition = work.candidates[i]
        concurrently = definition.table not in work.catalog.partitioned
        indexes.append(
            ProposedIndex(
                names[i],
                definition,
                definition.ddl(work.dialect, name=names[i], concurrently=concurrently),
                tuple(_gain(work, choice, (n, i), plans[n]) for n in helped[i] if n in plans),
                await trial.size(i),
                work.writes.get(definition.table, 0),
                trial.proved_by,
                concurrently,
            )
        )
    statements = tuple(
        StatementCost(
            each,
            _cost(work, choice.before[n]),
            _cost(work, choice.after[n]),
            plans[n].indexes if n in plans else (),
        )
        for n, each in enumerate(work.statements)
        if n not in answers.unexplained
    )
    skipped = [Skipped(work.statements[n], reason) for n, reason in answers.unexplained.items()]
    return Advice(
        tuple(sorted(indexes, key=lambda each: -sum(g.statement.seconds for g in each.gains))),
        find_redundant(work.catalog, [each.definition for each in indexes], unused_days=unused_days),
        _unproved(work, trial, frozenset(answers.unexplained)),
        statements,
        (*work.skipped, *skipped),
        tuple(work.remarks),
        work.dialect.name,
    )


def _helped(choice: Choice, index: int, times: float) -> list[int]:
    """The statements that would cost so many times as much without it, in the order of the workload."""
    return [
        n
        for (n, i), without in sorted(choice.without.items())
        if i == index and without >= times * choice.after[n]
    ]


@dataclass(frozen=True, slots=True)
class _Plans:
    before: str
    after: str
    indexes: tuple[str, ...]


async def _plans(answers: Answers, names: Mapping[int, str], wanted: set[int]) -> Mapping[int, _Plans]:
    """What the database does for each statement, without and with the chosen, these under the names they will have."""
    final = {answers.trial.names[i]: name for i, name in names.items()}
    before: dict[int, str] = {}
    async with answers.trial.only(frozenset()):
        for n in wanted:
            before[n] = outline_of(await answers.plan(n))
    plans: dict[int, _Plans] = {}
    async with answers.trial.only(frozenset(names)):
        for n in sorted(wanted):
            plan = await answers.plan(n)
            used = {final[node.index] for node in plan.nodes() if node.index in final}
            plans[n] = _Plans(before[n], outline_of(plan, final), tuple(sorted(used)))
    return plans


def _gain(work: _Work, choice: Choice, at: tuple[int, int], plans: _Plans) -> Gain:
    n = at[0]
    before, after, without = (
        _cost(work, each) for each in (choice.before[n], choice.after[n], choice.without[at])
    )
    return Gain(work.statements[n], before, after, without, plans.before, plans.after)


def _cost(work: _Work, figure: float) -> float | None:
    return figure if work.dialect.name == "postgresql" else None


def _names(work: _Work, chosen: Sequence[int]) -> dict[int, str]:
    """By the naming convention; a name that is taken gets a number."""
    taken = {each.name for each in work.catalog.indexes}
    names: dict[int, str] = {}
    for i in chosen:
        name, number = work.candidates[i].name, 2
        while name in taken:
            name, number = f"{work.candidates[i].name[:60]}_{number}", number + 1
        taken.add(name)
        names[i] = name
    return names


def _unproved(work: _Work, trial: Trial, unexplained: frozenset[int]) -> tuple[UnprovedIndex, ...]:
    """Of the candidates that could not be tried the full ones: what is part of another is not said twice."""
    found: list[UnprovedIndex] = []
    refused = {i: work.candidates[i] for i in sorted(trial.refused)}
    for i, definition in refused.items():
        if definition.include or any(
            is_served_by(definition, other) for j, other in refused.items() if j != i and not other.include
        ):
            continue
        statements = [
            each for n, each in enumerate(work.statements) if i in work.own[n] and n not in unexplained
        ]
        ddl = definition.ddl(work.dialect, concurrently=definition.table not in work.catalog.partitioned)
        found.append(UnprovedIndex(definition, ddl, trial.refused[i], tuple(statements)))
    return tuple(found)
