"""Who may look: browsers on this machine, by a name of this machine, past no proxy."""

import httpx
import pytest
from fastapi import FastAPI

from catalysis import Database
from catalysis.inspector import PATH, Inspector, add_inspector
from catalysis.inspector.access import refusal

LOCAL = "http://localhost"


def request(
    client: object = ("127.0.0.1", 5000),
    host: str | None = "localhost:8000",
    method: str = "GET",
    **headers: str,
) -> dict[str, object]:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if host is not None:
        given["host"] = host
    raw = [(name.encode(), value.encode()) for name, value in given.items()]
    return {"type": "http", "method": method, "scheme": "http", "client": client, "headers": raw}


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
def test_loopback_clients_may_look(address: str):
    assert refusal(request(client=(address, 1))) is None


@pytest.mark.parametrize(
    "client",
    [
        ("192.168.1.7", 1),
        ("10.0.0.1", 1),
        ("::ffff:10.0.0.1", 1),
        ("fe80::1%eth0", 1),
        ("2001:db8::1", 1),
        ("0.0.0.0", 1),
        ("testclient", 1),
        ("127.0.0.1.example.org", 1),
        ("", 0),
        None,  # a Unix socket
    ],
)
def test_others_may_not(client: object):
    assert "machine" in str(refusal(request(client=client)))


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8000", "app.localhost", "LOCALHOST", "127.0.0.1:80", "127.1.2.3", "[::1]:8000"],
)
def test_names_of_this_machine(host: str):
    assert refusal(request(host=host)) is None


@pytest.mark.parametrize(
    "host",
    [
        "example.org",
        "localhost.example.org",
        "127.0.0.1.nip.io",
        "notlocalhost",
        "192.168.1.7:8000",
        "[2001:db8::1]",
        "localhost:8000@example.org",
        "localhost, example.org",
        "",
        None,
    ],
)
def test_other_names_are_refused_since_dns_may_lie(host: str | None):
    assert "localhost" in str(refusal(request(host=host)))


def test_two_hosts_are_refused():
    scope = request()
    scope["headers"] += [(b"Host", b"example.org")]
    assert refusal(scope) is not None


@pytest.mark.parametrize(
    "name",
    [
        *("x_forwarded_for", "X_Forwarded_For", "x_forwarded_host", "x_forwarded_proto", "forwarded", "via"),
        *("x_real_ip", "x_client_ip", "true_client_ip", "cf_connecting_ip"),
    ],
)
def test_a_proxy_is_refused_whatever_it_says(name: str):
    assert "proxy" in str(refusal(request(**{name: "127.0.0.1"})))


def test_a_proxy_that_says_nothing_speaks_an_old_http():
    assert "proxy" in str(refusal(request() | {"http_version": "1.0"}))
    assert refusal(request() | {"http_version": "1.1"}) is None


OWN = {"origin": "http://localhost:8000"}


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"sec_fetch_site": "same-origin"} | OWN, True),
        ({"sec_fetch_site": "same-origin", "origin": "null"}, True),
        (OWN, True),
        ({}, False),
        ({"origin": "null"}, False),
        ({"origin": "http://example.org"}, False),
        ({"origin": "http://localhost:9000"}, False),
        ({"origin": "https://localhost:8000"}, False),
        ({"sec_fetch_site": "cross-site"} | OWN, False),
        ({"sec_fetch_site": "same-site"} | OWN, False),
        ({"sec_fetch_site": "none"}, False),
        ({"sec_fetch_site": "same-origin", "origin": "http://example.org"}, False),
    ],
)
def test_only_its_own_pages_may_change_something(headers: dict[str, str], allowed: bool):
    assert (refusal(request(method="POST", **headers)) is None) == allowed


@pytest.mark.parametrize(
    ("site", "mode", "allowed"),
    [
        ("cross-site", "navigate", True),  # a link
        ("none", "navigate", True),
        ("same-origin", "cors", True),
        ("cross-site", "no-cors", False),
        ("same-site", "cors", False),
    ],
)
def test_another_site_may_link_and_no_more(site: str, mode: str, allowed: bool):
    assert (refusal(request(sec_fetch_site=site, sec_fetch_mode=mode)) is None) == allowed


# --- The whole app --------------------------------------------------------------------------------


@pytest.fixture
def database(tmp_path) -> Database:
    return Database(f"sqlite:///{tmp_path / 'test.db'}")


def client_of(app: object, address: str = "127.0.0.1", base: str = LOCAL) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, client=(address, 1)), base_url=base)


PAGES = (
    "/",
    "/statements",
    "/transactions",
    "/scopes/1",
    "/statements/1",
    "/static/inspector.js",
    "/nowhere",
)


@pytest.mark.parametrize("page", PAGES)
async def test_no_page_is_for_others(database: Database, page: str):
    app = FastAPI()
    add_inspector(app, database, enabled=True)
    for client in (client_of(app, "192.168.1.7"), client_of(app, base="http://evil.example")):
        answer = await client.get(PATH + page)
        assert answer.status_code == 403
        assert answer.headers["x-frame-options"] == "DENY"
        assert len(answer.content) < 100


@pytest.mark.parametrize("page", PAGES)
async def test_every_answer_is_guarded(database: Database, page: str):
    answer = await client_of(Inspector(database)).get(page)
    assert answer.status_code in (200, 404)
    assert answer.headers.get_list("content-security-policy") == [
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ]
    assert answer.headers.get_list("cache-control") == ["no-store"]
    assert (answer.headers["x-content-type-options"], answer.headers["referrer-policy"]) == (
        "nosniff",
        "no-referrer",
    )
    assert "<style" not in answer.text
    assert " style=" not in answer.text
    assert "<script>" not in answer.text
    assert "http://" not in answer.text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in answer.text


async def test_clearing_is_asked_for_by_its_own_pages_alone(database: Database):
    inspector = Inspector(database)
    client = client_of(inspector)
    assert (await client.post("/clear")).status_code == 403
    assert (await client.get("/clear")).status_code == 405
    done = await client.post("/clear", headers={"origin": LOCAL, "sec-fetch-site": "same-origin"})
    assert (done.status_code, done.headers["location"]) == (303, "/")


# --- Off ------------------------------------------------------------------------------------------


async def test_off_there_is_nothing(database: Database):
    app = FastAPI()
    before = list(app.router.routes)
    assert add_inspector(app, database) is None
    assert add_inspector(app, database, enabled=False) is None
    assert app.router.routes == before
    for page in ("", *PAGES):
        assert (await client_of(app).get(PATH + page)).status_code == 404


async def test_the_settings_of_the_database_may_ask_for_it(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATABASE_INSPECTOR", "1")
    app = FastAPI()
    database = Database(f"sqlite:///{tmp_path / 'test.db'}")
    assert add_inspector(app, database, enabled=False) is None
    assert add_inspector(app, database, path="/look/") is not None
    assert (await client_of(app).get("/look/")).status_code == 200


@pytest.mark.parametrize("path", ["", "/", "inspect"])
def test_a_path_that_would_be_the_application(database: Database, path: str):
    with pytest.raises(ValueError, match="path such as"):
        add_inspector(FastAPI(), database, path=path, enabled=True)


async def test_an_application_that_answers_every_path_hides_nothing(database: Database):
    app = FastAPI()

    @app.get("/{path:path}")
    async def anything(path: str) -> str:
        return path

    add_inspector(app, database, enabled=True)
    assert "Catalysis inspector" in (await client_of(app).get(PATH + "/")).text
    assert (await client_of(app).get("/other")).json() == "other"
