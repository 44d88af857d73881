"""22. Eight workers append to lists: the history has no lost update, no dirty read and no cycle its level forbids.

Each append is unique, so that the lists say which transaction wrote after which, and a read says what it saw: from that
the graph of dependencies is built, as Elle does it (Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from
Experimental Observations", 2020).  G1: read what was rolled back, or half written, or a cycle of reads and writes.

Mutation seen to fail: `begin_at` does nothing (lost updates).
"""

import asyncio
import random
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import text

from catalysis import Database, DatabaseSettings, Session
from catalysis import transactions as transactions_module
from tests.models import made

KEYS = 4


@dataclass
class Done:
    """A transaction that was committed, or given up."""

    number: int
    committed: bool = True
    reads: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    appends: list[tuple[int, int]] = field(default_factory=list)


class GivenUp(Exception):
    pass


async def _worker(
    database: Database, lane: int, rounds: int, isolation: Any, history: list[Done], chance: random.Random
) -> None:
    for round_ in range(rounds):
        number = lane * 10_000 + round_ + 1
        steps = [(chance.random() < 0.5, chance.randrange(KEYS)) for _ in range(chance.randrange(2, 5))]
        gives_up = chance.random() < 0.15
        done = Done(number, not gives_up)

        async def work(
            session: Session, done: Done = done, steps: Any = steps, gives_up: bool = gives_up
        ) -> None:
            done.reads, done.appends = [], []  # an attempt that is replayed never was
            for place, (appends, key) in enumerate(steps):
                rows = await session.execute(text("SELECT items FROM list WHERE id = :k"), {"k": key})
                seen = tuple(int(item) for item in rows.scalar_one().split())
                done.reads.append((key, seen))
                await asyncio.sleep(0)
                if appends:
                    item = done.number * 10 + place
                    await session.execute(
                        text("UPDATE list SET items = :items WHERE id = :k"),
                        {"k": key, "items": " ".join(map(str, (*seen, item)))},
                    )
                    done.appends.append((key, item))
            if gives_up:
                raise GivenUp

        with suppress(GivenUp):
            await database.transaction(work, isolation=isolation, retries=200)
        history.append(done)


async def _run(database: Database, rounds: int, isolation: Any) -> tuple[list[Done], dict[int, list[int]]]:
    async with database.engine.begin() as connection:
        await connection.execute(text("CREATE TABLE list (id int PRIMARY KEY, items text NOT NULL)"))
        for key in range(KEYS):
            await connection.execute(text(f"INSERT INTO list VALUES ({key}, '')"))
    history: list[Done] = []
    await asyncio.gather(
        *[_worker(database, lane, rounds, isolation, history, random.Random(lane)) for lane in range(8)]
    )
    async with database.engine.connect() as connection:
        rows = await connection.execute(text("SELECT id, items FROM list"))
        return history, {key: [int(item) for item in items.split()] for key, items in rows}


# --- What the history says ------------------------------------------------------------------------


def _faults(history: list[Done], lists: dict[int, list[int]]) -> list[str]:
    committed = {item: done for done in history if done.committed for _, item in done.appends}
    found = [f"{item} is there twice" for items in lists.values() for item in items if items.count(item) > 1]
    found += [f"{item} is lost" for item in committed if not any(item in items for items in lists.values())]
    for done in history:
        own: defaultdict[int, set[int]] = defaultdict(set)
        for key, item in done.appends:
            own[key].add(item)
        for key, seen in done.reads:
            for item in seen:
                if item not in committed and item not in own[key]:
                    found.append(f"{done.number} read {item}, which was rolled back (G1a)")
            theirs = [item for item in seen if item not in own[key]]
            if theirs != lists[key][: len(theirs)]:
                found.append(f"{done.number} read what is no beginning of list {key}")
    return found


def _edges(history: list[Done], lists: dict[int, list[int]]) -> dict[int, set[tuple[int, str]]]:
    """Who must come before whom: by writes (ww), by what was read (wr), and by what was not yet there (rw)."""
    writer = {item: done.number for done in history if done.committed for _, item in done.appends}
    edges: defaultdict[int, set[tuple[int, str]]] = defaultdict(set)

    def add(one: int, other: int, kind: str) -> None:
        if one != other:
            edges[one].add((other, kind))

    for items in lists.values():
        for before, after in pairwise(items):
            add(writer[before], writer[after], "ww")
    for done in history:
        if not done.committed:
            continue
        for key, seen in done.reads:
            theirs = [item for item in seen if writer[item] != done.number]
            if theirs:
                add(writer[theirs[-1]], done.number, "wr")
            later = lists[key][len(seen) :]
            if later:
                add(done.number, writer[later[0]], "rw")
    return edges


def _cycle(edges: dict[int, set[tuple[int, str]]], kinds: frozenset[str]) -> list[int]:
    """A cycle over edges of these kinds; empty if there is none."""
    state: dict[int, int] = {}
    for start in list(edges):
        path, stack = [], [(start, False)]
        while stack:
            node, leaves = stack.pop()
            if leaves:
                state[node] = 2
                path.pop()
            elif state.get(node) == 1:
                return [*path[path.index(node) :], node]
            elif node not in state:
                state[node] = 1
                path.append(node)
                stack.append((node, True))
                stack += [
                    (to, False) for to, kind in edges.get(node, ()) if kind in kinds and state.get(to) != 2
                ]
    return []


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions_module, "FIRST_PAUSE", 0.002)
    monkeypatch.setattr(transactions_module, "LONGEST_PAUSE", 0.1)


ALL, WRITTEN = frozenset({"ww", "wr", "rw"}), frozenset({"ww", "wr"})


@pytest.mark.parametrize("rounds", [6, pytest.param(300, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    ("isolation", "forbidden"),
    [("repeatable read", WRITTEN), ("serializable", ALL)],
    ids=["snapshot", "serial"],
)
async def test_the_history_is_what_the_level_allows(
    backend_url: str, isolation: Any, forbidden: frozenset[str], rounds: int
):
    settings = DatabaseSettings(url=backend_url, pool_size=8, busy_timeout=30)
    async with made(settings) as database:
        history, lists = await _run(database, rounds, isolation)
    assert len(history) == 8 * rounds
    assert any(done.appends for done in history if not done.committed), "some were rolled back"
    assert _faults(history, lists) == []
    assert _cycle(_edges(history, lists), forbidden) == []


def test_the_checker_finds_what_it_looks_for():
    one, two = (
        Done(1, reads=[(0, ()), (1, ())], appends=[(0, 10)]),
        Done(2, reads=[(0, ()), (1, ())], appends=[(1, 20)]),
    )
    skew = {0: [10], 1: [20]}
    assert _faults([one, two], skew) == []
    assert _cycle(_edges([one, two], skew), ALL), "write skew"
    assert not _cycle(_edges([one, two], skew), WRITTEN), "which a snapshot allows"
    assert _faults([one, two], {0: [], 1: [20]}) == ["10 is lost"]
    given_up = Done(3, committed=False, appends=[(0, 30)])
    dirty = Done(4, reads=[(0, (30,))])
    assert any("G1a" in fault for fault in _faults([given_up, dirty], {0: []}))
    read_each_other = [
        Done(5, reads=[(1, (60,))], appends=[(0, 50)]),
        Done(6, reads=[(0, (50,))], appends=[(1, 60)]),
    ]
    assert _cycle(_edges(read_each_other, {0: [50], 1: [60]}), WRITTEN), "G1c"
