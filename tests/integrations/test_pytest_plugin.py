"""The pytest plugin, run by a pytest of its own."""

import pytest

pytest_plugins = ["pytester"]

TESTS = """
    import asyncio
    import pytest
    from sqlalchemy import select, text
    from catalysis import Database

    async def send(n):
        database = Database("sqlite+aiosqlite://")
        async with database.session() as session:
            for _ in range(n):
                await session.execute(text("SELECT 1"))
        await database.close()

    @pytest.mark.max_queries(2)
    def test_within():
        asyncio.run(send(2))

    @pytest.mark.max_queries(2)
    def test_over():
        asyncio.run(send(4))

    def test_unmarked():
        asyncio.run(send(7))

    @pytest.mark.max_queries
    def test_mistaken():
        pass

    @pytest.mark.max_queries(0)
    def test_its_own_failure():
        raise KeyError("its own")
"""


@pytest.fixture
def result(pytester: pytest.Pytester) -> pytest.RunResult:
    pytester.makepyfile(test_sends=TESTS)
    return pytester.runpytest_subprocess("--queries", "-p", "no:cacheprovider", "--strict-markers")


def test_the_plugin(result: pytest.RunResult) -> None:
    result.assert_outcomes(passed=2, failed=3)
    result.stdout.fnmatch_lines(
        [
            "4 statements were sent, and max_queries allows 2:",
            "*1 *SQLAlchemy: not a SELECT*test_sends.py:10*SELECT 1",
            "4 times from *test_sends.py:10 in send: SELECT 1",
        ]
    )
    result.stdout.fnmatch_lines(["*write @pytest.mark.max_queries(n), with a whole number n."])
    result.stdout.fnmatch_lines(["E *KeyError: 'its own'"])
    result.stdout.fnmatch_lines(
        [
            "*= statements =*",
            "*7 *ms  test_sends.py::test_unmarked  1 repeated",
            "*2 *ms  test_sends.py::test_within",
        ]
    )
