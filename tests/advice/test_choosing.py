"""Which candidates are chosen, against made-up costs."""

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from catalysis.advice.choosing import Choice, Problem, choose
from catalysis.advice.definitions import IndexDefinition, Key, TableName, is_served_by

Cost = Callable[[int, frozenset[int]], float]
TASK = TableName("task")


def index(*names: str, include: tuple[str, ...] = ()) -> IndexDefinition:
    return IndexDefinition(TASK, tuple(map(Key, names)), include)


def chosen_of(problem: Problem, cost: Cost) -> Choice:
    asking = choose(problem)
    asked: set[tuple[int, frozenset[int]]] = set()
    try:
        questions = next(asking)
        while True:
            assert not asked & set(questions), "a question was asked twice"
            asked |= set(questions)
            questions = asking.send({(n, there): cost(n, there) for n, there in questions})
    except StopIteration as done:
        return done.value


def problem(candidates: list[IndexDefinition], statements: int, at_least: float = 10) -> Problem:
    everything = frozenset(range(len(candidates)))
    return Problem(
        candidates, [everything] * statements, [everything] * statements, [1] * statements, at_least
    )


def least(base: list[float], with_index: dict[tuple[int, int], float]) -> Cost:
    return lambda n, there: min([base[n], *(with_index.get((n, i), base[n]) for i in there)])


def test_an_index_that_helps_too_little_is_not_chosen():
    assert chosen_of(problem([index("a")], 1), least([100], {(0, 0): 10.1})).chosen == ()
    assert chosen_of(problem([index("a")], 1), least([100], {(0, 0): 10.0})).chosen == (0,)
    assert chosen_of(problem([index("a")], 1, at_least=5), least([100], {(0, 0): 10.1})).chosen == (0,)


def test_of_two_as_good_the_simpler_one_is_chosen():
    costs = {(0, 0): 5.0, (0, 1): 9.0}
    assert chosen_of(problem([index("a", include=("b",)), index("a")], 1), least([1000], costs)).chosen == (
        1,
    )
    costs[0, 1] = 11.0  # more than twice as much
    assert chosen_of(problem([index("a", include=("b",)), index("a")], 1), least([1000], costs)).chosen == (
        0,
    )


def test_one_that_serves_two_is_better_than_two():
    candidates = [index("a"), index("a", "b")]
    costs = {(0, 0): 5.0, (0, 1): 6.0, (1, 1): 5.0, (1, 0): 400.0}
    assert chosen_of(problem(candidates, 2), least([1000, 1000], costs)).chosen == (1,)


def test_one_made_needless_by_a_later_one_goes():
    """The first saves most and is taken first; the other two, for other statements, do its work as well."""
    candidates = [index("a"), index("b"), index("c")]
    costs = {(0, 0): 10.0, (1, 0): 500.0, (1, 1): 10.0, (2, 2): 10.0, (0, 1): 50.0}
    assert chosen_of(problem(candidates, 3), least([9000, 1000, 1000], costs)).chosen == (1, 2)


def test_two_that_help_only_together():
    def cost(n: int, there: frozenset[int]) -> float:
        return 10.0 if there >= {0, 2} else 1000.0

    found = chosen_of(problem([index("a"), index("b"), index("c")], 1), cost)
    assert found.chosen == (0, 2)
    assert found.without == {(0, 0): 1000.0, (0, 2): 1000.0}


def test_calls_count():
    """Either would do for both statements; the one is taken that does best what is called most."""
    candidates, both = [index("a"), index("b")], frozenset({0, 1})
    costs = least([1000, 1000], {(0, 0): 10.0, (1, 0): 95.0, (0, 1): 95.0, (1, 1): 10.0})
    for calls, best in (([1_000, 1], 0), ([1, 1_000], 1)):
        assert chosen_of(Problem(candidates, [both] * 2, [both] * 2, calls), costs).chosen == (best,)


@dataclass(frozen=True)
class World:
    problem: Problem
    cost: Cost
    likely: bool
    """An index does whatever one does that is its beginning, as in every real database."""


@st.composite
def worlds(draw: st.DrawFn) -> World:
    keys = st.lists(st.sampled_from("abcd"), min_size=1, max_size=3, unique=True).map(
        lambda names: index(*names)
    )
    candidates = draw(st.lists(keys, min_size=1, max_size=7, unique=True))
    statements = draw(st.integers(1, 5))
    everything = frozenset(range(len(candidates)))
    own = [draw(st.frozensets(st.sampled_from(sorted(everything)))) for _ in range(statements)]
    base = draw(st.lists(st.integers(1, 10_000).map(float), min_size=statements, max_size=statements))
    single = {
        (n, i): base[n] / draw(st.sampled_from([1, 1, 2, 9, 10, 15, 100]))
        for n in range(statements)
        for i in own[n]
    }
    pairs = {
        (n, frozenset(draw(st.lists(st.sampled_from(sorted(own[n])), min_size=2, max_size=2)))): base[n]
        / draw(st.sampled_from([1, 20, 200]))
        for n in range(statements)
        if len(own[n]) > 1
    }

    likely = draw(st.booleans())

    def cost(n: int, there: frozenset[int]) -> float:
        if likely:
            there = frozenset(
                i for i in everything for j in there if is_served_by(candidates[i], candidates[j])
            )
        alone = [single[n, i] for i in there if (n, i) in single]
        together = [value for (m, pair), value in pairs.items() if m == n and pair <= there]
        return min([base[n], *alone, *together])

    calls = draw(st.lists(st.integers(1, 1000), min_size=statements, max_size=statements))
    return World(Problem(candidates, own, [everything] * statements, calls), cost, likely)


@settings(deadline=None, max_examples=300)
@given(worlds())
def test_what_is_chosen_is_needed_and_enough(world: World):
    problem, cost = world.problem, world.cost
    found = chosen_of(problem, cost)
    chosen = frozenset(found.chosen)
    for i in chosen:
        for j in chosen - {i}:
            assert not is_served_by(problem.candidates[i], problem.candidates[j])
        without = [cost(n, chosen - {i}) / cost(n, chosen) for n in range(len(problem.own))]
        assert max(without) >= problem.at_least
        before = [cost(n, frozenset()) / cost(n, chosen) for n in range(len(problem.own))]
        assert max(before) >= problem.at_least
    if not chosen and world.likely:
        for n, own in enumerate(problem.own):
            for i in own:
                assert cost(n, frozenset()) / cost(n, frozenset({i})) < problem.at_least
    assert found.after == {n: cost(n, chosen) for n in range(len(problem.own))}
