"""Settings come from the environment, name their faults, and quote no secret."""

import pytest

from catalysis import Database, DatabaseService, DatabaseSettings, SettingsError


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATABASE_URL", raising=False)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("postgresql://u:p@h:5/d", "postgresql+asyncpg://u:p@h:5/d"),
        ("postgres://h/d", "postgresql+asyncpg://h/d"),
        ("postgresql+psycopg2://h/d", "postgresql+asyncpg://h/d"),
        ("postgresql://h/d?sslmode=require", "postgresql+asyncpg://h/d?ssl=require"),
        ("sqlite://", "sqlite+aiosqlite://"),
        ("sqlite:///a.db", "sqlite+aiosqlite:///a.db"),
        ("sqlite+aiosqlite:///a.db", "sqlite+aiosqlite:///a.db"),
        (
            "postgresql+psycopg://h/d",
            "postgresql+psycopg://h/d",
        ),  # one name for the sync and the async driver
        ("oracle+oracledb://h", "oracle+oracledb://h"),
    ],
)
def test_urls_are_mapped_to_their_async_drivers(given, used):
    assert DatabaseSettings(url=given).url == used


def test_unset_means_an_embedded_file(monkeypatch):
    assert DatabaseSettings().url == "sqlite+aiosqlite:///catalysis.db"
    monkeypatch.setenv("DATABASE_URL", "")
    assert DatabaseSettings().url == "sqlite+aiosqlite:///catalysis.db"


def test_everything_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://h/d")
    monkeypatch.setenv("DATABASE_POOL_SIZE", "3")
    monkeypatch.setenv("DATABASE_POOL_TIMEOUT", "1.5")
    monkeypatch.setenv("DATABASE_REPLICAS", "postgresql://r1/d, postgresql://r2/d")
    settings = DatabaseSettings.load()
    assert (settings.url, settings.pool_size, settings.pool_timeout) == ("postgresql+asyncpg://h/d", 3, 1.5)
    assert settings.replicas == ("postgresql+asyncpg://r1/d", "postgresql+asyncpg://r2/d")
    assert DatabaseService.configure().settings == settings


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "cannot be parsed"),
        ("postgresql://u:hunter2@h:notaport/d", "cannot be parsed"),
        ("oracle+nothing://u:hunter2@h/d", "no database driver 'oracle\\+nothing'"),
        ("mysql+mysqldb://u:hunter2@h/d", "MySQLdb|synchronous|not installed"),
        ("postgresql://u:hunter2@h/d?channel_binding=require", "channel_binding"),
    ],
)
def test_a_bad_url_is_one_clear_error_without_its_password(monkeypatch, url, said):
    monkeypatch.setenv("DATABASE_URL", url)
    for make in (DatabaseSettings.load, Database):
        with pytest.raises(SettingsError, match=said) as caught:
            make()
        shown = str(caught.value) + repr(caught.value.__cause__)
        assert "hunter2" not in shown
        assert "DATABASE_URL" in shown


def test_a_bad_number_names_its_variable(monkeypatch):
    monkeypatch.setenv("DATABASE_POOL_SIZE", "many")
    monkeypatch.setenv("DATABASE_POOL_TIMEOUT", "0")
    with pytest.raises(SettingsError, match=r"(?s)DATABASE_POOL_SIZE: .*DATABASE_POOL_TIMEOUT: "):
        DatabaseSettings.load()


def test_no_secret_in_a_representation():
    settings = DatabaseSettings(url="postgresql://u:hunter2@h/d", replicas=("postgresql://u:hunter2@r/d",))
    assert "hunter2" not in repr(settings) + str(settings) + repr(Database(settings))
    assert "hunter2" not in repr(Database("postgresql://h/d?password=hunter2"))


@pytest.mark.parametrize(
    ("given", "longest"),
    [
        ({}, 3600),
        ({"statement_timeout": 30}, 35),
        ({"answer_timeout": 7}, 7),
        ({"statement_timeout": 30, "answer_timeout": 7}, 7),
        ({"answer_timeout": "inf"}, None),
    ],
)
def test_an_answer_is_waited_for_as_long_as_the_server_may_take(given, longest):
    assert DatabaseSettings(**given).longest_answer == longest


def test_everything_that_waits_has_a_bound_by_default():
    settings = DatabaseSettings()
    for name in (
        "connect_timeout",
        "pool_timeout",
        "longest_answer",
        "idle_transaction_timeout",
        "keepalive",
    ):
        assert 0 < getattr(settings, name) <= 3600
