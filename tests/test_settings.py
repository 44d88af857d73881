"""Settings come from the environment, name their faults, and quote no secret."""

import pytest
from sqlalchemy.engine import make_url

from catalysis import Database, DatabaseService, DatabaseSettings, SettingsError
from catalysis.settings import each_host, hosts_of


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
        ("postgresql://u:pass@hunter2@h/d", "percent-encoded"),
        ("postgresql://u:pass@hunter2@h1,h2:5433/d", "percent-encoded"),
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
    ("given", "hosts"),
    [
        ("h1:5432,h2:6432", (("h1", 5432), ("h2", 6432))),
        ("u:p,w@h1,h2", (("h1", 5432), ("h2", 5432))),
        ("u:p%2Fw@h1:1,h2:2,h3:3", (("h1", 1), ("h2", 2), ("h3", 3))),
        ("u:a,b@h", (("h", None),)),
    ],
)
def test_several_hosts_as_libpq_has_them(given: str, hosts):
    """Source: PostgreSQL documentation, "Connection URIs"."""
    url = make_url(DatabaseSettings(url=f"postgresql://{given}/d?ssl=require").url)
    assert hosts_of(url) == hosts
    assert (url.database, url.query["ssl"]) == ("d", "require")
    assert [(each.host, each.port) for each in each_host(url)] == list(hosts)
    alone = {each.render_as_string(hide_password=False) for each in each_host(url)}
    assert all(
        each.query.get("ssl") == "require" and not each.query.get("host") for each in map(make_url, alone)
    )
    assert url.password == make_url(next(iter(alone))).password


def test_several_hosts_as_sqlalchemy_has_them():
    for query in ("host=h1:1&host=h2:2", "host=h1,h2&port=1,2"):
        url = make_url(DatabaseSettings(url=f"postgresql://u@/d?{query}").url)
        assert hosts_of(url) == (("h1", 1), ("h2", 2))
    with pytest.raises(SettingsError):
        DatabaseSettings.load(url="postgresql://h1:1,h2:x/d")


def test_replicas_from_a_variable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://p/d")
    monkeypatch.setenv("DATABASE_REPLICAS", "postgresql://r1:1,r2:2/d, postgresql://r3/d")
    replicas = [make_url(each) for each in DatabaseSettings.load().replicas]
    assert [hosts_of(each) for each in replicas] == [(("r1", 1), ("r2", 2)), (("r3", None),)]


@pytest.mark.parametrize(
    ("url", "replica"), [("sqlite:///x.db", "postgresql://r/d"), ("postgresql://h/d", "sqlite:///x.db")]
)
def test_replicas_are_of_postgresql(url: str, replica: str):
    with pytest.raises(SettingsError, match="DATABASE_REPLICAS: Replicas are of PostgreSQL"):
        DatabaseSettings.load(url=url, replicas=[replica])


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
