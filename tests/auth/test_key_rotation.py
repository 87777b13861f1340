"""Rotation of keys: what an old key signed is valid while that key is kept."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
from dotenv import dotenv_values

from app.config import load_settings
from app.core.key_files import secrets_in
from tests.conftest import SECRET
from tests.support.apps import client_of
from tests.support.client import Client, Person
from tests.support.commands import SetEnv, invoke
from tests.support.links import forgotten
from tests.support.settings import GOOD_SECRET
from tests.support.tokens import claims, decoded, signed

THIRD = "third-0123456789-abcdefghijklmnopqrstuv"


async def me(client: Client, token: str) -> httpx2.Response:
    return await client.get("/users/me", headers={"Authorization": f"Bearer {token}"})


async def test_tokens_of_every_key_in_use_open_and_no_others(
    client: Client, tmp_path: Path
) -> None:
    """A restart with a new key logs nobody out; without the old one it does."""
    ana = await client.user()
    for secret, fallbacks, status in (
        (GOOD_SECRET, [SECRET], 200),
        (GOOD_SECRET, [THIRD, SECRET], 200),
        (GOOD_SECRET, [THIRD], 401),
        (GOOD_SECRET, [], 401),
    ):
        settings: dict[str, Any] = {"secret_key": secret, "secret_key_fallbacks": fallbacks}
        async with client_of(client, tmp_path, **settings) as restarted:
            assert (await me(restarted, ana.token)).status_code == status
            anew = await restarted.login(ana.email)
            assert (await me(restarted, anew)).status_code == 200
            assert (await me(client, anew)).status_code == 401, "signed with the newest"


async def test_tokens_from_before_keys_had_ids_open(client: Client, tmp_path: Path) -> None:
    """Users stay logged in through that upgrade, even if the key is changed with it."""
    ana = await client.user()
    header = {"alg": "HS256", "typ": "JWT"}
    old = signed(claims(ana.id, int(decoded(ana.token)["sid"])), header=header)
    assert (await me(client, old)).status_code == 200
    for fallbacks, status in (([THIRD, SECRET], 200), ([THIRD], 401)):
        settings = {"secret_key": GOOD_SECRET, "secret_key_fallbacks": fallbacks}
        async with client_of(client, tmp_path, **settings) as restarted:
            assert (await me(restarted, old)).status_code == status


async def test_cursors_of_every_key_in_use_lead_on_and_no_others(
    client: Client, tmp_path: Path
) -> None:
    ana = await client.user()
    for number in range(3):
        await ana.write(f"Post {number}")
    first = (await client.get("/posts", params={"page_size": 1})).json()
    params = {"page_size": 1, "cursor": first["next_cursor"]}
    second = (await client.get("/posts", params=params)).json()["items"]
    for fallbacks, status in (([THIRD, SECRET], 200), ([SECRET], 200), ([THIRD], 400)):
        settings = {"secret_key": GOOD_SECRET, "secret_key_fallbacks": fallbacks}
        async with client_of(client, tmp_path, **settings) as restarted:
            found = await restarted.get("/posts", params=params)
            assert found.status_code == status
            if status == 200:
                assert found.json()["items"] == second
                onward = {"cursor": found.json()["next_cursor"]}
                assert (await restarted.get("/posts", params=onward)).status_code == 200
                assert (await client.get("/posts", params=onward)).status_code == 400


async def test_changing_the_algorithm_logs_nobody_out(client: Client, tmp_path: Path) -> None:
    """From HS256 to ES256 at once; back again, access tokens end and logins do not."""
    ana = await client.user()
    async with client_of(client, tmp_path, token_algorithm="ES256") as es256:
        assert (await me(es256, ana.token)).status_code == 200
        anew = await es256.login(ana.email)
    async with client_of(client, tmp_path, token_algorithm="ES256") as restarted:
        assert (await me(restarted, anew)).status_code == 200
    assert (await me(client, anew)).status_code == 401


# --- The command -----------------------------------------------------------------------------


@pytest.fixture
def kept(set_env: SetEnv, monkeypatch: pytest.MonkeyPatch, database_url: str) -> None:
    """A development server that keeps its secret by itself."""
    set_env(database_url=database_url)
    monkeypatch.delenv("SECRET_KEY")


async def ana_of(client: Client, tmp_path: Path) -> Person:
    """Return a user with a token of a server that has the current settings."""
    ana = await client.user()
    ana.token = await login(client, tmp_path, ana.email)
    return ana


def restarted(client: Client, tmp_path: Path) -> Any:
    """The server, with the settings and the keys that it would start with now."""
    names = ("secret_key", "secret_key_fallbacks", "token_algorithm")
    settings = load_settings()
    return client_of(client, tmp_path, **{name: getattr(settings, name) for name in names})


async def login(client: Client, tmp_path: Path, email: str) -> str:
    async with restarted(client, tmp_path) as server:
        token: str = await server.login(email)
        return token


async def opens(client: Client, tmp_path: Path, token: str) -> bool:
    async with restarted(client, tmp_path) as server:
        return (await me(server, token)).status_code == 200


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("algorithm", ["HS256", "ES256"])
async def test_rotating_kept_keys_logs_nobody_out(
    client: Client, tmp_path: Path, set_env: SetEnv, algorithm: str
) -> None:
    set_env(token_algorithm=algorithm)
    ana = await ana_of(client, tmp_path)
    header = ana.token.split(".")[0]
    done = await invoke("rotate-key")
    assert done.exit_code == 0, done.output
    assert done.stdout == f"New secret in {tmp_path}/secret.key, 1 before it kept.\n"
    assert ("New key pair" in done.stderr) == (algorithm == "ES256")
    assert done.stderr.endswith("Restart the servers.\n")
    assert not [secret for secret in secrets_in(tmp_path) if secret in done.output]
    assert await opens(client, tmp_path, ana.token)
    anew = await login(client, tmp_path, ana.email)
    assert anew.split(".")[0] != header, "the new key signs"
    gone = await invoke("rotate-key", "--keep-days", "0")
    assert gone.exit_code == 0
    assert "0 before it kept" in gone.stdout
    assert not await opens(client, tmp_path, ana.token)
    assert not await opens(client, tmp_path, anew)


@pytest.mark.usefixtures("same_database")
async def test_a_given_secret_is_rotated_by_the_two_lines_that_are_printed(
    client: Client, tmp_path: Path, set_env: SetEnv
) -> None:
    """The command cannot set them: it says what to set, on stdout and nothing else."""
    set_env(secret_key=GOOD_SECRET, secret_key_fallbacks=SECRET)
    done = await invoke("rotate-key")
    assert done.exit_code == 0
    assert not (tmp_path / "secret.key").exists()
    (tmp_path / ".env").write_text(done.stdout)
    lines = dotenv_values(tmp_path / ".env")
    assert list(lines) == ["SECRET_KEY", "SECRET_KEY_FALLBACKS"]
    assert lines["SECRET_KEY_FALLBACKS"] == f"{GOOD_SECRET},{SECRET}"
    assert len(lines["SECRET_KEY"] or "") >= 32
    assert "over 30 days ago" in done.stderr
    ana = await client.user()
    set_env(**{name.lower(): value for name, value in lines.items()})
    assert await opens(client, tmp_path, ana.token)
    leaked = await invoke("rotate-key", "--keep-days", "0")
    assert re.fullmatch(r"SECRET_KEY=[\w-]+\nSECRET_KEY_FALLBACKS=\n", leaked.stdout)
    assert "days ago" not in leaked.stderr
    assert leaked.stderr.endswith("Restart the servers.\n")


async def test_secrets_with_commas_and_quotes_are_printed_to_be_read_again(
    tmp_path: Path, set_env: SetEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = 'kJ8,vQz2 "mN5xR7tY4wB6c"; D9fG3#hL1pS'
    set_env(secret_key=odd)
    done = await invoke("rotate-key")
    (tmp_path / ".env").write_text(done.stdout)
    monkeypatch.delenv("SECRET_KEY")
    (fallback,) = load_settings().secret_key_fallbacks
    assert fallback.get_secret_value() == odd


async def test_in_production_the_first_key_pair_is_made_by_the_command(
    tmp_path: Path, set_env: SetEnv
) -> None:
    url = "postgresql://app:x@127.0.0.1/app"
    set_env(environment="production", token_algorithm="ES256", secret_key=GOOD_SECRET)
    set_env(database_url=url)
    with pytest.raises(SystemExit):
        load_settings()
    assert (await invoke("rotate-key")).exit_code == 0
    assert len(load_settings().key_pairs) == 1
    assert (tmp_path / "keys" / "1.pem").exists()


@pytest.fixture(params=["kept", "given"])
def secret_of(
    request: pytest.FixtureRequest,
    set_env: SetEnv,
    monkeypatch: pytest.MonkeyPatch,
    database_url: str,
) -> None:
    """A secret under DATA_DIR, and one in the environment, which the command cannot change."""
    set_env(database_url=database_url)
    if request.param == "kept":
        monkeypatch.delenv("SECRET_KEY")


@pytest.mark.usefixtures("secret_of", "hurried")
async def test_after_a_leak_old_refresh_tokens_and_links_end_too(
    client: Client, tmp_path: Path
) -> None:
    """A24: a leaked key is enough to derive both. When a key is only old, both still work."""
    ana, ben = await client.user(), await client.user()
    logins = [(await client.log_in(person.email))["refresh_token"] for person in (ana, ben)]
    links = [await forgotten(client, email=person.email) for person in (ana, ben)]

    async def work(server: Client, number: int) -> list[int]:
        refreshed = await server.post("/auth/refresh", {"refresh_token": logins[number]})
        new = {"token": links[number], "password": "Another-Horse-8"}
        return [refreshed.status_code, (await server.post("/auth/password/reset", new)).status_code]

    done = await invoke("rotate-key")
    assert "log in again" not in done.stderr
    async with restarted(client, tmp_path) as server:
        assert await work(server, 0) == [200, 204]
        await server.login(ben.email)
    done = await invoke("rotate-key", "--keep-days", "0")
    assert done.exit_code == 0, done.output
    # Three logins of Ben's; the reset has ended all of Ana's.
    assert re.match(r"3 sessions and [1-9]\d* mailed links ended", done.stderr)
    async with restarted(client, tmp_path) as server:
        assert await work(server, 1) == [401, 400]
        await server.login(ben.email)
    again = await invoke("rotate-key", "--keep-days", "0")
    assert again.stderr.startswith("1 sessions and 0 mailed links ended"), "over is over"


@pytest.mark.usefixtures("same_database")
async def test_after_a_leak_a_database_that_is_away_changes_no_key(
    tmp_path: Path, set_env: SetEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command fails, and is run again."""
    monkeypatch.delenv("SECRET_KEY")
    before = secrets_in(tmp_path)
    set_env(database_url="postgresql://app:x@127.0.0.1:1/app")
    failed = await invoke("rotate-key", "--keep-days", "0")
    assert failed.exit_code == 1
    (line,) = failed.stdout.splitlines()
    assert line.startswith("cimiento: the database refuses: ")
    assert secrets_in(tmp_path) == before


@pytest.mark.usefixtures("same_database")
async def test_after_a_leak_the_first_key_pair_need_not_be_there(
    client: Client, tmp_path: Path, set_env: SetEnv
) -> None:
    set_env(environment="production", token_algorithm="ES256", secret_key=GOOD_SECRET)
    ana = await client.user()
    done = await invoke("rotate-key", "--keep-days", "0")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "keys" / "1.pem").exists()
    assert (await me(client, ana.token)).status_code == 401


@pytest.mark.parametrize("days", ["-1", "many"])
async def test_a_wrong_number_of_days_changes_nothing(set_env: SetEnv, days: str) -> None:
    set_env()
    refused = await invoke("rotate-key", "--keep-days", days)
    assert (refused.exit_code, refused.stdout) == (2, "")
