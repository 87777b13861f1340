"""The published JWKS, and verification of tokens by third-party libraries with it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest

from app.core.key_files import pairs_in, rotate_pair
from app.core.keyring import key_id
from tests.conftest import SECRET
from tests.support.apps import client_of
from tests.support.client import API, PASSWORD, Client
from tests.support.forger import Forger
from tests.support.javascript import JS, installed
from tests.support.process import environment, serving
from tests.support.tokens import decoded

pytestmark = pytest.mark.long

JWKS = "/.well-known/jwks.json"


# --- What they show --------------------------------------------------------------------------


async def test_with_hs256_there_are_no_public_keys(client: Client) -> None:
    response = await client.get(JWKS)
    assert response.status_code == 200
    assert response.json() == {"keys": []}
    assert response.headers["cache-control"] == "public, max-age=300"
    assert response.headers["content-type"] == "application/json"


async def test_with_es256_the_public_half_of_each_pair_is_shown(
    client: Client, tmp_path: Path
) -> None:
    """Newest first, named by its thumbprint, and nothing private of it."""
    for _ in range(2):
        rotate_pair(tmp_path, keep=timedelta(days=1))
    async with client_of(client, tmp_path, token_algorithm="ES256") as es256:
        response = await es256.get(JWKS)
        assert response.headers["cache-control"] == "public, max-age=300"
        keys = response.json()["keys"]
        pairs = es256.app.state.settings.key_pairs
        assert [key["kid"] for key in keys] == [pair.id for pair in pairs]
        ana = await es256.user()
    header = jwt.get_unverified_header(ana.token)
    assert header == {"alg": "ES256", "typ": "JWT", "kid": keys[0]["kid"]}
    assert len(base64.urlsafe_b64decode(ana.token.split(".")[2] + "==")) == 64
    for key in keys:
        named = {name: key[name] for name in ("crv", "kty", "x", "y")}
        assert key == named | {"alg": "ES256", "use": "sig", "kid": _thumbprint(named)}


def _thumbprint(named: dict[str, str]) -> str:
    text = ",".join(f'"{name}":"{named[name]}"' for name in sorted(named))
    digest = hashlib.sha256(f"{{{text}}}".encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


# --- Who verifies by them --------------------------------------------------------------------


# One database will do from here on: it is the tokens' form that counts.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True, scope="session")


@dataclass
class Issued:
    """Where the keys are, tokens of each of them, and tokens that none of them has signed."""

    url: str
    good: list[str]
    forged: list[str]


@pytest.fixture
async def issued(client: Client, tmp_path: Path) -> AsyncIterator[Issued]:
    """By a server that is restarted with another key pair."""
    env = environment(
        database_url=client.app.state.settings.database_url,
        data_dir=tmp_path,
        secret_key=SECRET,
        token_algorithm="ES256",
        port=0,
    )
    ana, good = await client.register(), list[str]()
    form = {"username": ana["email"], "password": PASSWORD}
    for _ in range(2):
        rotate_pair(tmp_path, keep=timedelta(days=1))
        async with serving(tmp_path, env) as server, httpx2.AsyncClient() as http:
            answer = await http.post(f"{server.url}{API}/auth/login", data=form)
            good.append(answer.json()["access_token"])
            if len(good) == 2:
                pair = pairs_in(tmp_path, make=False)[0]
                forger = Forger(ana["id"], 1, key_id(SECRET), pair)
                stranger = forger.by_pair(pair=forger.stranger)
                yield Issued(f"{server.url}{JWKS}", good, [forger.by_secret(), stranger])


@on_sqlite
async def test_pyjwt_verifies_our_tokens(issued: Issued) -> None:
    keys = jwt.PyJWKClient(issued.url)

    def verified(token: str) -> dict[str, Any]:
        found: dict[str, Any] = jwt.decode(
            token,
            keys.get_signing_key_from_jwt(token),
            algorithms=["ES256"],
            audience="cimiento-api",
            issuer="cimiento",
            options={"require": ["exp", "iat", "sub", "jti", "sid"]},
        )
        return found

    for token in issued.good:
        assert await asyncio.to_thread(verified, token) == decoded(token)
    for token in issued.forged:
        with pytest.raises(jwt.PyJWTError):
            await asyncio.to_thread(verified, token)


@on_sqlite
async def test_jose_for_node_verifies_our_tokens(
    issued: Issued, pytestconfig: pytest.Config
) -> None:
    script = await asyncio.to_thread(installed, "verify.mjs", pytestconfig)
    command = ["node", str(script), issued.url, *issued.good, *issued.forged]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    *claims, by_secret, by_stranger = json.loads(done.stdout)
    assert claims == [decoded(token) for token in issued.good]
    assert by_secret == "ERR_JOSE_ALG_NOT_ALLOWED"
    assert by_stranger == "ERR_JWS_SIGNATURE_VERIFICATION_FAILED"


def test_the_lock_file_names_no_host() -> None:
    """Packages are pinned by digest; the registry comes from the npm settings of the machine."""
    packages = json.loads((JS / "package-lock.json").read_text())["packages"]
    for name, package in packages.items():
        assert not name or package["integrity"].startswith("sha512-")
        assert "resolved" not in package
