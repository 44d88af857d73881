"""The recorder keeps the latest of everything, in bounded memory, and no value of a parameter."""

import threading
import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalysis.events import (
    CallSite,
    DatabaseAddress,
    QueryEvent,
    Scope,
    ScopeEvent,
    Transaction,
    TransactionEvent,
)
from catalysis.inspector.recorder import Recorder, unobserved
from catalysis.inspector.records import MOST_BYTES, Limits

HERE = DatabaseAddress("sqlite", "test.db")


def event(
    sql: str, scope: Scope | None = None, *, line: int = 1, native: bool = True, **more: object
) -> QueryEvent:
    site = CallSite("/app/main.py", line, "read") if line else None
    reason = None if native else "not a SELECT"
    return QueryEvent(sql, 0.001, 2, native, reason, None, site, "Task", 1.0, HERE, scope, **more)


def record(recorder: Recorder, name: str, *statements: QueryEvent, outcome: str = "200") -> Scope:
    scope = Scope("request", name, 1.0)
    recorder.on_scope_started(scope)
    for each in statements:
        recorder.on_statement(event(each) if isinstance(each, str) else each, None)
    recorder.on_scope_ended(ScopeEvent(scope, 0.01, outcome))
    return scope


def test_a_scope_with_its_statements():
    recorder = Recorder()
    scope = Scope("request", "GET /…", 1.0)
    recorder.on_scope_started(scope)
    for line in (1, 2, 2, 2):
        recorder.on_statement(event("SELECT 1", scope, line=line), ("secret",))
    recorder.on_statement(event("DELETE FROM t", scope, native=False), ("secret",))
    with recorder.reading():
        (running,) = recorder.scopes()
        assert (running.outcome, running.statements) == (None, 5)
    scope.name = "GET /tasks"
    recorder.on_scope_ended(ScopeEvent(scope, 0.5, "200"))
    with recorder.reading():
        (kept,) = recorder.scopes()
        assert (kept.name, kept.outcome, kept.seconds) == ("GET /tasks", "200", 0.5)
        assert (kept.statements, kept.rows, kept.native, kept.most_repeated) == (5, 10, 4, 3)
        assert kept.database_seconds == pytest.approx(0.005)
        select, delete = recorder.statements()
        assert (select.calls, sorted(select.sites.values())) == (4, [1, 3])
        assert (delete.reason, delete.native) == ("not a SELECT", 0)
        assert [each.parameters for each in kept.executions] == [None] * 5
        assert select.parameters is None


def test_statements_that_differ_in_literals_are_one_and_masked():
    recorder = Recorder()
    for secret in ("canary", "other 'quoted' canary"):
        recorder.on_statement(event("SELECT 1 FROM t WHERE x = '" + secret.replace("'", "''") + "'"), None)
    with recorder.reading():
        (statement,) = recorder.statements()
        assert (statement.sql, statement.calls) == ("SELECT 1 FROM t WHERE x = '…'", 2)
        assert "other" in statement.sent


def test_the_same_text_at_another_database_is_another_statement():
    recorder = Recorder()
    recorder.on_statement(event("SELECT 1"), None)
    recorder.on_statement(replace(event("SELECT 1"), database=DatabaseAddress("sqlite", "other.db")), None)
    with recorder.reading():
        assert [each.calls for each in recorder.statements()] == [1, 1]


def test_values_are_kept_when_they_may_be_shown():
    recorder = Recorder(keeps_parameters=True)
    scope = Scope("request", "GET /", 1.0)
    recorder.on_scope_started(scope)
    recorder.on_statement(event("SELECT 1 WHERE 'a' = ?", scope), ["value"])
    recorder.on_statement(event("SELECT 2 WHERE ?", scope), ["x" * 100_000])
    recorder.on_statement(event("SELECT 3 WHERE ?", scope), [("many",), ("rows",)])
    with recorder.reading():
        first, second, third = recorder.statements()
        assert (first.sql, first.parameters) == ("SELECT 1 WHERE 'a' = ?", ("value",))
        assert (second.parameters, third.parameters) == (None, None)
        (kept,) = recorder.scopes()
        assert [len(each.parameters or "") < 600 for each in kept.executions] == [True] * 3


def test_a_value_whose_repr_fails_fails_nothing():
    class Broken:
        def __repr__(self) -> str:
            raise ZeroDivisionError

    recorder = Recorder(keeps_parameters=True)
    recorder.on_statement(event("SELECT ?"), [Broken()])
    recorder.on_statement(event("SELECT ?"), None)


def test_transactions():
    recorder = Recorder()
    scope = Scope("activity", "Clean up", 1.0)
    recorder.on_scope_started(scope)
    transaction = Transaction(HERE, 1.0, None, scope)
    recorder.on_transaction_begun(transaction)
    recorder.on_statement(event("UPDATE t SET x = ?", scope, transaction=transaction), None)
    recorder.on_transaction_ended(TransactionEvent(transaction, 0.25, "commit"))
    with recorder.reading():
        (ended,) = recorder.ended_transactions()
        assert (ended.seconds, ended.outcome, ended.statements, ended.scope_name) == (
            0.25,
            "commit",
            1,
            "Clean up",
        )
        assert recorder.scopes()[0].transactions == [ended]


def test_one_whose_connection_was_lost_is_not_open_for_ever():
    recorder = Recorder()
    recorder.on_transaction_begun(Transaction(HERE, 1.0, None, None))  # no connection has it
    with recorder.reading():
        assert recorder.open_transactions() == []


def test_what_is_the_panels_own_is_not_recorded():
    recorder = Recorder()
    version = recorder.version
    own = Scope("request", "GET /_catalysis", 1.0)
    recorder.on_scope_started(own)
    recorder.ignore(own)
    token = unobserved.set(True)
    recorder.on_statement(event("EXPLAIN SELECT 1"), None)
    recorder.on_transaction_begun(Transaction(HERE, 1.0, None, None))
    unobserved.reset(token)
    recorder.on_statement(event("SELECT 1", own), None)
    recorder.on_scope_ended(ScopeEvent(own, 0.1, "200"))
    with recorder.reading():
        assert (recorder.scopes(), recorder.statements(), recorder.version) == ([], [], version)
    assert recorder._ignored == set()


def test_clearing_leaves_what_runs():
    recorder = Recorder()
    record(recorder, "GET /done", "SELECT 1")
    running = Scope("request", "GET /slow", 1.0)
    recorder.on_scope_started(running)
    recorder.on_statement(event("SELECT 2", running), None)
    recorder.clear()
    recorder.on_statement(event("SELECT 3", running), None)
    with recorder.reading():
        assert [each.name for each in recorder.scopes()] == ["GET /slow"]
        assert [each.sql for each in recorder.statements()] == ["SELECT 3"]
        assert recorder._executions == 0


def test_the_oldest_make_room():
    recorder = Recorder(Limits(scopes=3, executions_in_scope=2, executions=4, statements=5, transactions=2))
    for n in range(10):
        scope = Scope("request", f"GET /{n}", float(n))
        recorder.on_scope_started(scope)
        for m in range(3):
            recorder.on_statement(event(f"SELECT {n}{m} FROM t{n}", scope), None)
        recorder.on_scope_ended(ScopeEvent(scope, 0.1, "200"))
    with recorder.reading():
        assert [each.name for each in recorder.scopes()] == ["GET /9", "GET /8", "GET /7"]
        assert [(len(each.executions), each.statements, each.forgotten) for each in recorder.scopes()] == [
            (2, 3, False),
            (2, 3, False),
            (0, 3, True),
        ]
        assert len(recorder.statements()) == 5
        assert recorder.statement(1) is None


# --- Bounds ---------------------------------------------------------------------------------------

_names = st.sampled_from(["GET /a", "GET /" + "b" * 500])
_sql = st.one_of(
    st.sampled_from(["SELECT 1", "SELECT 2", "x" * 200]),
    st.integers(0, 30).map(lambda n: f"SELECT * FROM t{n} WHERE a = '{n * 'x'}'"),
    st.integers(1, 9).map(lambda n: f"SELECT * FROM t WHERE a = '{n * 'x'}'"),
)
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), _names),
        st.tuples(st.just("end"), st.integers(0, 5)),
        st.tuples(st.just("send"), st.integers(-1, 5), _sql, st.integers(0, 9)),
        st.tuples(st.just("ignore"), st.integers(0, 5)),
        st.tuples(st.just("clear")),
        st.tuples(st.just("read")),
    ),
    max_size=120,
)


@given(_steps)
def test_whatever_comes_in_whatever_order_the_limits_hold(steps):
    limits = Limits(
        scopes=4, executions_in_scope=3, executions=6, statements=5, durations=3, sites=2, sql=60, text=3_000
    )
    recorder = Recorder(limits)
    scopes: list[Scope] = []
    for what, *values in steps:
        if what == "begin":
            scopes.append(Scope("request", values[0], 1.0))
            recorder.on_scope_started(scopes[-1])
        elif what == "clear":
            recorder.clear()
        elif what == "send":
            scope = scopes[values[0]] if 0 <= values[0] < len(scopes) else None
            recorder.on_statement(event(values[1], scope, line=values[2]), ("secret",))
        elif what in ("end", "ignore") and values[0] < len(scopes):
            scope = scopes[values[0]]
            recorder.ignore(scope) if what == "ignore" else recorder.on_scope_ended(
                ScopeEvent(scope, 0.1, "200")
            )
        if what == "read":
            _check(recorder, limits)
    _check(recorder, limits)


def _check(recorder: Recorder, limits: Limits) -> None:
    with recorder.reading():
        scopes, statements = recorder.scopes(), recorder.statements()
        assert len(scopes) <= limits.scopes
        assert recorder._executions == sum(len(each.executions) for each in scopes) <= limits.executions
        for scope in scopes:
            assert len(scope.executions) <= limits.executions_in_scope
            assert len(scope.counts) <= limits.executions_in_scope
            assert sum(scope.counts.values()) <= scope.statements
            assert len(scope.name) <= 200
        assert len(statements) == len(recorder._by_number) == len(recorder._by_sent) <= limits.statements
        for statement in statements:
            assert recorder.statement(statement.number) is statement
            assert recorder._by_sent[statement.sent, HERE] is statement
            assert len(statement.sent) <= limits.sql
            assert len(statement.durations) <= limits.durations
            assert sum(statement.sites.values()) + statement.elsewhere == statement.calls
        assert recorder._text <= limits.text


def _flood(scopes: int, statements: int) -> int:
    """Bytes that a recorder holds after many scopes of statements that all differ, in text, line and name."""
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    recorder, most = Recorder(), 0
    for n in range(scopes):
        scope = Scope("request", f"GET /{n}/" + "x" * 300, float(n))
        recorder.on_scope_started(scope)
        transaction = Transaction(HERE, float(n), CallSite(f"/app/{n}.py", n, f"f{n}"), scope)
        recorder.on_transaction_begun(transaction)
        for m in range(statements):
            site = CallSite(f"/app/{n % 999}.py", m + n, f"function_{n}_{m}")
            # Names, since numbers and strings would be masked to the same; the sign makes each character four bytes.
            sql = f"SELECT t{n}_{m}.x FROM t{n}_{m} /* 🙂 */ WHERE " + f"c{n}_{m} " * (1 + n % 7)
            recorder.on_statement(
                QueryEvent(sql, n / 7, n, True, None, None, site, None, n / 3, HERE, scope, transaction), ()
            )
        if n % 3:
            recorder.on_transaction_ended(TransactionEvent(transaction, 0.1, "commit"))
        if n % 5:
            recorder.on_scope_ended(ScopeEvent(scope, 0.1, "200"))
        if n % 1_000 == 0:
            most = max(most, tracemalloc.get_traced_memory()[0] - before)
    most = max(most, tracemalloc.get_traced_memory()[0] - before)
    tracemalloc.stop()
    assert recorder.version > scopes
    return most


def test_memory_is_bounded():
    assert _flood(800, 6) < MOST_BYTES


def test_memory_is_bounded_where_values_are_shown():
    recorder, shown = Recorder(keeps_parameters=True), ["🙂" * 100] * 5
    tracemalloc.start()
    for n in range(500):
        recorder.on_statement(event(f"SELECT t{n} WHERE ?"), ["🙂" * 1_000 for _ in range(20)])
    for n in range(110):
        scope = Scope("request", f"GET /{n}", float(n))
        recorder.on_scope_started(scope)
        for _ in range(200):
            recorder.on_statement(event("SELECT t0 WHERE ?", scope), shown)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    with recorder.reading():
        assert [len(each.executions) for each in recorder.scopes()][:2] == [200, 200]
        assert recorder._executions == sum(each.weight for each in recorder.scopes()) <= 20_000
    assert held < MOST_BYTES / 2


@pytest.mark.long
def test_memory_is_bounded_after_100_000_scopes():
    assert _flood(100_000, 1) < MOST_BYTES


@pytest.mark.long
def test_memory_is_bounded_by_scopes_full_of_the_longest_statements():
    recorder = Recorder()
    tracemalloc.start()
    for n in range(600):
        scope = Scope("request", f"GET /{n}", float(n))
        recorder.on_scope_started(scope)
        for m in range(250):
            long = f"SELECT t{n}_{m} " + "🙂" * 9_000 if m % 50 == 0 else f"SELECT t{m}"
            site = CallSite("/app/x.py", m * n, f"f{m}")
            recorder.on_statement(
                QueryEvent(long, n / 7, n, True, None, None, site, None, n / 3, HERE, scope), ()
            )
        recorder.on_scope_ended(ScopeEvent(scope, 0.1, "200"))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < MOST_BYTES


def test_several_threads_lose_nothing_while_another_reads():
    recorder = Recorder(Limits(scopes=10_000))
    each = 2_000

    def work(name: str) -> None:
        for n in range(each):
            record(recorder, f"GET /{name}", f"SELECT {n % 9} FROM {name}")

    threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        with recorder.reading():
            assert all(statement.calls > 0 for statement in recorder.statements())
    with recorder.reading():
        assert sum(statement.calls for statement in recorder.statements()) == 4 * each
        assert len(recorder.scopes()) == 4 * each
