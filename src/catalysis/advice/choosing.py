"""Which of many candidates to propose.  The thinking only: it asks for costs by `yield`, and is sent the answers.

An index is chosen only if it lowers the cost of a statement as many times as is asked, and stays only if without it
some statement would cost as many times more: so none of the chosen is redundant.
"""

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from catalysis.advice.definitions import IndexDefinition, is_served_by

AT_LEAST = 10.0
"""How many times an index must lower the cost of a statement, unless told otherwise."""
_AS_GOOD = 2.0
"""A simpler index is taken for a better one as long as no statement costs more than so many times as much with it."""
_MOST_TOGETHER = 3
"""Indexes that help one statement only together; more than that are not looked for."""

Question = tuple[int, frozenset[int]]
"""What statement number … costs when just these candidates are there."""
Asking = Generator[Sequence[Question], Mapping[Question, float], "Choice"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Statements and candidates, by number."""

    candidates: Sequence[IndexDefinition]
    own: Sequence[frozenset[int]]
    """For each statement the candidates that were made for it."""
    near: Sequence[frozenset[int]]
    """For each statement all candidates on its tables."""
    calls: Sequence[int]
    at_least: float = AT_LEAST


@dataclass(frozen=True, slots=True)
class Choice:
    """The candidates to propose, and what is known of costs."""

    chosen: tuple[int, ...]
    before: Mapping[int, float]
    """What each statement costs without any of them."""
    after: Mapping[int, float]
    without: Mapping[tuple[int, int], float]
    """What a statement would cost if one of the chosen were missing."""


@dataclass(slots=True)
class _Costs:
    """Answers so far; no question is asked twice."""

    problem: Problem
    known: dict[Question, float] = field(default_factory=dict[Question, float])

    def question(self, statement: int, there: Iterable[int]) -> Question:
        return statement, frozenset(there) & self.problem.near[statement]

    def ask(
        self, questions: Iterable[Question]
    ) -> Generator[Sequence[Question], Mapping[Question, float], None]:
        unknown = [each for each in dict.fromkeys(questions) if each not in self.known]
        if unknown:
            self.known.update((yield unknown))

    def of(self, statement: int, there: Iterable[int]) -> float:
        return self.known[self.question(statement, there)]


def choose(problem: Problem) -> Asking:
    """The smallest set that serves the workload, as far as it is found by taking the best one after the other."""
    costs = _Costs(problem)
    everyone = range(len(problem.own))
    yield from costs.ask((n, frozenset()) for n in everyone)
    yield from costs.ask((n, problem.own[n]) for n in everyone)
    open_ = [n for n in everyone if _times(costs.of(n, ()), costs.of(n, problem.own[n])) >= problem.at_least]
    chosen: frozenset[int] = frozenset()
    while open_:
        added = yield from _best_addition(costs, open_, chosen)
        if not added:
            added = yield from _best_together(costs, open_, chosen)
        if not added:
            break
        chosen |= added
        yield from costs.ask(costs.question(n, chosen) for n in open_)
    chosen = yield from _without_redundant(costs, everyone, chosen)
    # Taken out one after the other, each little missed, they may be missed together: then others are put in again.
    while added := (yield from _best_addition(costs, open_, chosen)):
        better = yield from _without_redundant(costs, everyone, chosen | added)
        yield from costs.ask(costs.question(n, there) for n in everyone for there in (chosen, better))
        if _total(costs, better) >= _total(costs, chosen):
            break
        chosen = better
    return (yield from _reported(costs, everyone, chosen))


def _best_addition(
    costs: _Costs, open_: Sequence[int], chosen: frozenset[int]
) -> Generator[Sequence[Question], Mapping[Question, float], frozenset[int]]:
    """The one that saves most, over all calls, of those that lower a cost far enough; or a simpler one as good."""
    problem = costs.problem
    options = sorted({i for n in open_ for i in problem.own[n]} - chosen)
    served = {i: [n for n in open_ if i in problem.own[n]] for i in options}
    yield from costs.ask(costs.question(n, chosen | {i}) for i in options for n in served[i])
    saved: dict[int, float] = {}
    for i in options:
        pairs = [(n, costs.of(n, chosen), costs.of(n, chosen | {i})) for n in served[i]]
        if any(_times(now, then) >= problem.at_least for _, now, then in pairs):
            saved[i] = sum(problem.calls[n] * max(0.0, now - then) for n, now, then in pairs)
    if not saved:
        return frozenset()
    best = max(saved, key=lambda i: (saved[i], -problem.candidates[i].complexity))
    helped = [n for n in served[best] if costs.of(n, chosen | {best}) < costs.of(n, chosen)]
    as_good = [
        i
        for i in saved
        if all(
            i in problem.own[n] and costs.of(n, chosen | {i}) <= _AS_GOOD * costs.of(n, chosen | {best})
            for n in helped
        )
    ]
    return frozenset({min([*as_good, best], key=lambda i: (problem.candidates[i].complexity, -saved[i], i))})


def _best_together(
    costs: _Costs, open_: Sequence[int], chosen: frozenset[int]
) -> Generator[Sequence[Question], Mapping[Question, float], frozenset[int]]:
    """Two or three that lower a statement's cost far enough together, where none does alone."""
    problem = costs.problem
    for n in open_:
        group = problem.own[n] - chosen
        yield from costs.ask([costs.question(n, chosen | group), costs.question(n, chosen)])
        best = costs.of(n, chosen | group)
        if _times(costs.of(n, chosen), best) < problem.at_least:
            continue
        for i in sorted(group, key=lambda i: -problem.candidates[i].complexity):
            rest = group - {i}
            yield from costs.ask([costs.question(n, chosen | rest)])
            if costs.of(n, chosen | rest) <= _AS_GOOD * best:
                group = rest
        if group and len(group) <= _MOST_TOGETHER:
            return group
    return frozenset()


def _without_redundant(
    costs: _Costs, everyone: Iterable[int], chosen: frozenset[int]
) -> Generator[Sequence[Question], Mapping[Question, float], frozenset[int]]:
    """The set with the least needed taken out, one after the other, until each of the rest is needed."""
    problem = costs.problem
    while chosen:
        needed: dict[int, float] = {}
        for i in chosen:
            near = [n for n in everyone if i in problem.near[n]]
            yield from costs.ask(
                each for n in near for each in (costs.question(n, chosen), costs.question(n, chosen - {i}))
            )
            ratios = [_times(costs.of(n, chosen - {i}), costs.of(n, chosen)) for n in near]
            needed[i] = max(ratios, default=0.0)
        least = min(needed, key=lambda i: (needed[i], -problem.candidates[i].complexity, i))
        if needed[least] < problem.at_least:
            chosen -= {least}
        elif contained := _contained(problem, chosen):
            chosen -= {contained[0]}
        else:
            break
    return chosen


def _contained(problem: Problem, chosen: frozenset[int]) -> list[int]:
    """Those that are the beginning of another: whatever the costs say, two are not proposed."""
    candidates = problem.candidates
    return [
        i for i in sorted(chosen) if any(is_served_by(candidates[i], candidates[j]) for j in chosen - {i})
    ]


def _reported(costs: _Costs, everyone: Iterable[int], chosen: frozenset[int]) -> Asking:
    yield from costs.ask(costs.question(n, chosen) for n in everyone)
    without = {
        (n, i): costs.of(n, chosen - {i}) for i in chosen for n in everyone if i in costs.problem.near[n]
    }
    return Choice(
        tuple(sorted(chosen)),
        {n: costs.of(n, ()) for n in everyone},
        {n: costs.of(n, chosen) for n in everyone},
        without,
    )


def _total(costs: _Costs, there: frozenset[int]) -> float:
    """What all calls cost."""
    return sum(calls * costs.of(n, there) for n, calls in enumerate(costs.problem.calls))


def _times(before: float, after: float) -> float:
    return before / after if after else (float("inf") if before else 1.0)
