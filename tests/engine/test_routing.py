"""Where reads go: whatever the servers say, and in whichever order, nobody reads less than has been seen or written.

Mutations that the model below has found: `met_primary` notes nothing; `choose` does not compare times, keeps no
position, or takes another replica each time; `serves` ignores the position, or what troubles the replica.
"""

import re
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from catalysis import InvalidToken
from catalysis.engine import routing
from catalysis.engine.routing import HISTORY, Replica, Rotation, Route, Sample, position_of, token_of

ENGINE = cast("Any", None)
MAX_LAG = 10.0


class Cluster(RuleBasedStateMachine):
    """A primary whose log grows, replicas that replay it, answers that arrive late, and sessions."""

    @initialize(count=st.integers(1, 3))
    def begin(self, count: int) -> None:
        self.now, self.log = 0.0, 0
        self.replayed = [0] * count
        self.replicas = [Replica(ENGINE) for _ in range(count)]
        self.rotation = Rotation(ENGINE, self.replicas, MAX_LAG)
        self.sessions = [Route(self.rotation) for _ in range(3)]
        self.seen = [0, 0, 0]
        """The least position that each session must see, as it is in truth."""
        self.answers: list[Sample] = []
        self._real, routing.monotonic = routing.monotonic, lambda: self.now

    def teardown(self) -> None:
        routing.monotonic = self._real

    @rule(seconds=st.floats(0.001, 5))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(size=st.integers(1, 100))
    def somebody_writes(self, size: int) -> None:
        self.log += size

    @rule(data=st.data())
    def a_replica_replays(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.replicas) - 1))
        self.replayed[number] = data.draw(st.integers(self.replayed[number], self.log))

    @rule()
    def the_primary_is_asked(self) -> None:
        self.answers.append(Sample(self.now, self.log, self.log))
        self.now += 0.001

    @rule()
    def its_answer_arrives(self) -> None:
        if self.answers:
            self.rotation.primary_is_at(self.answers.pop(0))

    @rule(data=st.data())
    def a_replica_answers(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.replicas) - 1))
        self.rotation.replica_is_at(self.replicas[number], self.replayed[number], self.now)

    @rule()
    def all_are_looked_at(self) -> None:
        self.answers.clear()
        self.the_primary_is_asked()
        self.its_answer_arrives()
        for replica, position in zip(self.replicas, self.replayed, strict=True):
            self.rotation.replica_is_at(replica, position, self.now)

    @rule(data=st.data())
    def a_replica_goes_away(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.replicas)).lost(ConnectionError())

    @rule(which=st.integers(0, 2), size=st.integers(1, 100))
    def a_session_writes(self, which: int, size: int) -> None:
        self.log += size
        self.seen[which] = self.log
        self.now += 0.001
        self.sessions[which].met_primary()

    @rule(which=st.integers(0, 2))
    def a_session_reads(self, which: int) -> None:
        route = self.sessions[which]
        replica = route.choose()
        if replica is None:
            has = self.log
            self.now += 0.001
            route.met_primary()
        else:
            assert replica.trouble is None
            has = self.replayed[self.replicas.index(replica)]
        assert has >= self.seen[which], "it went back"
        self.seen[which] = has

    @rule(giver=st.integers(0, 2), taker=st.integers(0, 2))
    def a_token_is_passed_on(self, giver: int, taker: int) -> None:
        token = token_of(self.log)
        self.sessions[taker] = Route(self.rotation, position_of(token))
        self.seen[taker] = self.seen[giver]

    @invariant()
    def memory_is_bounded(self) -> None:
        assert len(self.rotation._earlier) <= HISTORY + 2


Cluster.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestCluster = Cluster.TestCase


@given(
    st.lists(st.tuples(st.floats(0.01, 3), st.integers(0, 50)), min_size=1, max_size=200),
    st.integers(0, 10_000),
)
def test_lag_is_never_less_than_it_is(steps: list[tuple[float, int]], replayed: int):
    """What a replica has not got was written after the position it has: it is as old as that was left, at most."""
    rotation, now, log = Rotation(ENGINE, [Replica(ENGINE)], MAX_LAG), 0.0, 0
    written = [(0.0, 0)]
    for seconds, size in steps:
        now, log = now + seconds, log + size
        written.append((now, log))
        rotation.primary_is_at(Sample(now, log, log))
    (replica,) = rotation.replicas
    rotation.replica_is_at(replica, replayed, now)
    assert replica.lag is not None
    assert replica.lag.size == max(log - replayed, 0)
    missing = [at for (_, before), (at, after) in pairwise(written) if before <= replayed < after]
    if not missing:
        assert replica.lag.seconds == 0
    elif replica.lag.seconds is not None:
        assert replica.lag.seconds >= now - missing[0]
    assert (replica.trouble is None) == (replica.lag.seconds is not None and replica.lag.seconds <= MAX_LAG)


def test_lag_is_known_as_far_back_as_it_matters():
    rotation = Rotation(ENGINE, [Replica(ENGINE)], MAX_LAG)
    (replica,) = rotation.replicas
    for tick in range(1_000):
        rotation.primary_is_at(Sample(tick / 10, tick, tick))
    rotation.replica_is_at(replica, 950, 99.9)
    assert replica.lag is not None
    assert replica.lag.seconds == pytest.approx(4.9, abs=MAX_LAG / HISTORY + 0.1)
    rotation.replica_is_at(replica, 100, 99.9)
    assert replica.lag == (None, 899)
    assert replica.trouble == "behind the primary"


@pytest.mark.parametrize(("after", "least"), [(0, 500), (700, 700)])
def test_a_replica_must_have_what_was_written(after: int, least: int):
    """At the position of a later sample, and a token's."""
    rotation = Rotation(ENGINE, [Replica(ENGINE, trouble=None)], MAX_LAG)
    (replica,) = rotation.replicas
    route = Route(rotation, after)
    route.met_primary()
    rotation.primary_is_at(Sample((route.met_primary_at or 0) + 1, 500, 500))
    for replica.position in (least - 1, least):
        assert (route.choose() is replica) == (replica.position == least)


def test_what_was_written_long_ago_is_bounded_by_what_was_asked_then():
    """Else a task that has written once would find no replica that has what others write all the time."""
    rotation = Rotation(ENGINE, [Replica(ENGINE, 150, trouble=None)], MAX_LAG)
    for second in range(1, 100):
        rotation.primary_is_at(Sample(float(second), second * 100, second * 100))
    route = Route(rotation, met_primary_at=98.5)
    assert (route.choose(), route.after) == (None, 9900)
    for time, position in ((96.5, 9700), (1.5, min(each.position for each in rotation._earlier))):
        rotation.replicas[0].position = position
        route = Route(rotation, met_primary_at=time)
        assert (route.choose(), route.after) == (rotation.replicas[0], position)


def test_sessions_take_turns():
    rotation = Rotation(ENGINE, [Replica(ENGINE, 1, trouble=None) for _ in range(3)], MAX_LAG)
    chosen = [Route(rotation).choose() for _ in range(9)]
    assert [chosen.count(each) for each in rotation.replicas] == [3, 3, 3]


def test_a_session_may_go_to_another_replica_after_the_primary():
    """Which has shown no less than the one that has left."""
    rotation = Rotation(ENGINE, [Replica(ENGINE, 1, trouble=None) for _ in range(2)], MAX_LAG)
    route = Route(rotation)
    first = route.choose()
    assert first is not None
    first.lost(ConnectionError())
    assert route.choose() is None
    route.met_primary()
    rotation.primary_is_at(Sample(route.met_primary_at or 0, 1, 1))
    assert route.choose() is None, "it was asked no later"
    rotation.primary_is_at(Sample((route.met_primary_at or 0) + 1, 1, 1))
    assert route.choose() not in (None, first)


def test_another_primary_may_be_further_back():
    """What was not replicated is lost: the positions begin anew where the new one was promoted."""
    rotation = Rotation(ENGINE, [Replica(ENGINE)], MAX_LAG)
    (replica,) = rotation.replicas
    rotation.primary_is_at(Sample(1.0, 500, 500))
    rotation.primary_is_at(Sample(2.0, 400, 400))
    rotation.replica_is_at(replica, 400, 2.1)
    assert replica.lag == (0.0, 0)
    assert Route(rotation, after=450).choose() is None


@given(st.integers(0, (1 << 64) - 1))
def test_tokens_come_back_as_they_went(position: int):
    assert position_of(token_of(position)) == position


@given(st.text())
def test_anything_else_is_refused(text: str):
    try:
        position_of(text)
    except InvalidToken:
        return
    assert re.fullmatch("([0-9A-F]{1,8}/[0-9A-F]{1,8})?", text, re.ASCII)
