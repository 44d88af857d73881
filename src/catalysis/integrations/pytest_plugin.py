"""pytest: `@pytest.mark.max_queries(n)` fails a test that sends more statements; `--queries` reports those of each.

Statements are counted while the test itself runs, in every task and thread of the process; its fixtures are not.
"""

from collections.abc import Generator
from typing import Any

import pytest

from catalysis.events import subscribe
from catalysis.tools.watch import LIMIT, QueryLog

_SENT = "catalysis_queries"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--queries`."""
    group = parser.getgroup("catalysis")
    group.addoption("--queries", action="store_true", help="report how many statements each test sent")


def pytest_configure(config: pytest.Config) -> None:
    """Describe the marker."""
    config.addinivalue_line("markers", "max_queries(n): the test sends at most n statements to the database")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Watch the test, and fail it where it sends too many."""
    marker = item.get_closest_marker("max_queries")
    if marker is None and not item.config.getoption("queries"):
        return (yield)
    most = _most(item, marker)
    log = QueryLog(LIMIT)
    unsubscribe = subscribe(log.hear)
    try:
        outcome = yield
    finally:
        unsubscribe()
        sent = len(log) + log.dropped
        item.user_properties.append((_SENT, [sent, sum(each.seconds for each in log), len(log.repeated())]))
    if most is not None and sent > most:
        said = "\n".join(str(each) for each in log.repeated())
        pytest.fail(
            f"{sent} statements were sent, and max_queries allows {most}:\n{log.report()}\n{said}",
            pytrace=False,
        )
    return outcome


def _most(item: pytest.Item, marker: pytest.Mark | None) -> int | None:
    if marker is None:
        return None
    given = [*marker.args, *marker.kwargs.values()]
    if len(given) != 1 or not isinstance(given[0], int):
        raise pytest.UsageError(f"{item.nodeid}: write @pytest.mark.max_queries(n), with a whole number n.")
    return given[0]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the report: statements, milliseconds and repeated statements of each test, most first."""
    if not config.getoption("queries"):
        return
    found: list[tuple[int, float, int, str]] = []
    for report in (each for reports in terminalreporter.stats.values() for each in reports):
        if getattr(report, "when", None) == "call":
            for name, value in report.user_properties:
                if name == _SENT:
                    found.append((*value, report.nodeid))
    terminalreporter.section("statements")
    for sent, seconds, repeated, test in sorted(found, reverse=True):
        note = f"  {repeated} repeated" if repeated else ""
        terminalreporter.write_line(f"{sent:6}  {seconds * 1000:9.2f} ms  {test}{note}")
