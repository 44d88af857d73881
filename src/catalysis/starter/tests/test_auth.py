"""Logging in and staying logged in."""

from datetime import UTC, datetime, timedelta

import httpx
import jwt
import pytest

from catalysis import Database, SettingsError
from catalysis.starter.app.settings import AppSettings
from catalysis.starter.tests.conftest import SETTINGS
from catalysis.starter.tests.world import PASSWORD, World


async def log_in(client: httpx.AsyncClient, username: str, password: str) -> httpx.Response:
    return await client.post("/auth/token", data={"username": username, "password": password})


def bearing(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_a_token_is_what_a_password_gets(login, world: World):
    client = login("")
    answer = await log_in(client, "Ann", PASSWORD)
    assert answer.json()["expires_in"] == SETTINGS.token_minutes * 60
    me = await client.get("/auth/me", headers=bearing(answer.json()["access_token"]))
    assert me.json()["username"] == "ann"
    assert {each["name"] for each in me.json()["role"]["permissions"]} == {"tasks:read", "tasks:write"}


@pytest.mark.parametrize(
    ("username", "password"), [("ann", "wrong"), ("nobody", PASSWORD), ("deleted", PASSWORD)]
)
async def test_why_it_failed_is_not_told(login, world: World, username: str, password: str):
    answer = await log_in(login(""), username, password)
    assert (answer.status_code, answer.json()) == (401, {"detail": "Wrong username or password."})


async def test_whoever_is_switched_off_is_out_at_once(login, admin: httpx.AsyncClient, world: World):
    ann = login("ann")
    await admin.patch(f"/users/{world.ids['ann']}", json={"is_active": False})
    assert (await ann.get("/auth/me")).status_code == 401
    assert (await log_in(ann, "ann", PASSWORD)).status_code == 401


async def test_whoever_is_deleted_is_out_at_once(
    ann: httpx.AsyncClient, admin: httpx.AsyncClient, world: World
):
    await admin.delete(f"/users/{world.ids['ann']}")
    assert (await ann.get("/auth/me")).status_code == 401


async def test_a_role_counts_from_the_next_request_on(
    ann: httpx.AsyncClient, admin: httpx.AsyncClient, world: World
):
    assert (await ann.get("/users")).status_code == 403
    role = {"role_id": str(world.roles["manager"].id)}
    assert (await admin.put(f"/users/{world.ids['ann']}/role", json=role)).status_code == 200
    assert (await ann.get("/users")).status_code == 200


async def test_a_new_password_ends_all_other_logins(ann: httpx.AsyncClient):
    change = {"current_password": PASSWORD, "new_password": "a new one, long enough"}
    answer = await ann.put("/auth/me/password", json=change)
    assert (await ann.get("/auth/me")).status_code == 401
    assert (await ann.get("/auth/me", headers=bearing(answer.json()["access_token"]))).status_code == 200
    assert (await log_in(ann, "ann", PASSWORD)).status_code == 401
    assert (await log_in(ann, "ann", change["new_password"])).status_code == 200


async def test_the_old_password_is_needed_for_a_new_one(ann: httpx.AsyncClient):
    change = {"current_password": "wrong", "new_password": "a new one, long enough"}
    assert (await ann.put("/auth/me/password", json=change)).status_code == 409


async def test_tokens_that_are_no_good(login, world: World):
    good = {
        "sub": str(world.ids["ann"]),
        "gen": 0,
        "exp": datetime.now(UTC) + timedelta(minutes=1),
    }
    key = SETTINGS.signing_key
    assert (await login("").get("/auth/me", headers=bearing(jwt.encode(good, key)))).status_code == 200
    bad = {
        "expired": jwt.encode(good | {"exp": datetime.now(UTC) - timedelta(seconds=1)}, key),
        "endless": jwt.encode({name: good[name] for name in ("sub", "gen")}, key),
        "forged": jwt.encode(good, "another secret of the same length"),
        "unsigned": jwt.encode(good, None, algorithm="none"),
        "of an earlier generation": jwt.encode(good | {"gen": -1}, key),
        "of nobody": jwt.encode(good | {"sub": str(world.ids["category"])}, key),
        "of no id": jwt.encode(good | {"sub": "ann"}, key),
        "of no generation": jwt.encode(good | {"gen": "x"}, key),
        "nonsense": "nonsense",
    }
    for why, token in bad.items():
        assert (await login("").get("/auth/me", headers=bearing(token))).status_code == 401, why


async def test_passwords_stay_out_of_answers_and_logs(admin: httpx.AsyncClient, caplog, capfd):
    secret = "canary-in-a-coal-mine"
    bodies = [
        {"username": "x y", "email": "x@example.org", "password": secret},
        {"username": "new", "password": secret},
        {"username": "ann", "email": "new@example.org", "password": secret},
    ]
    answers = [await admin.post("/users", json=body) for body in bodies]
    answers.append(await admin.put("/auth/me/password", json={"current_password": secret}))
    answers.append(await log_in(admin, "ann", secret))
    assert [each.status_code for each in answers] == [422, 422, 409, 422, 401]
    assert all(secret not in each.text for each in answers)
    assert secret not in caplog.text + "".join(capfd.readouterr())


async def test_a_hash_is_not_shown_with_its_user(world: World, database: Database):
    assert world.users["ann"].password_hash.startswith("$argon2id$")
    assert "argon2" not in repr(world.users["ann"])


def test_production_has_a_secret_of_its_own(monkeypatch):
    monkeypatch.delenv("APP_SECRET_KEY", raising=False)
    with pytest.raises(SettingsError, match="APP_SECRET_KEY is not set"):
        AppSettings.load(environment="production", _env_file=None)
    with pytest.raises(SettingsError, match="APP_SECRET_KEY") as short:
        AppSettings.load(secret_key="hunter2", _env_file=None)
    assert "hunter2" not in str(short.value)


def test_development_makes_a_secret_up_and_says_so(monkeypatch, caplog):
    monkeypatch.delenv("APP_SECRET_KEY", raising=False)
    first, second = (AppSettings.load(environment="development", _env_file=None) for _ in range(2))
    assert first.signing_key != second.signing_key
    assert "APP_SECRET_KEY is not set" in caplog.text
    assert first.signing_key not in caplog.text + repr(first)
