"""Tokens and password hashes: the only module that imports jose and passlib.

Both libraries fail in more ways than they document (docs/adr/0002-passwords.md,
docs/adr/0003-tokens.md); nothing but `InvalidToken`, or a plain False, leaves this module.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from jose import jwk, jws
from jose.backends.base import Key
from passlib.context import CryptContext

from app.core.context import request_context
from app.core.exceptions import InvalidToken
from app.core.groups import network_of
from app.core.hashing import HashingQueue
from app.core.key_pairs import KeyPair
from app.core.keyring import SecretKeys
from app.core.passwords import MAX_PASSWORD, normal_form
from app.core.threads import background_threads

R = TypeVar("R")

ISSUER = "cimiento"
AUDIENCE = "cimiento-api"
ACCESS = "access"
MAX_TOKEN = 4096
# No token is valid for longer, whatever it says: the most that ACCESS_TOKEN_MINUTES may be.
MAX_LIFETIME_SECONDS = 86_400
_CLOCK_SKEW_SECONDS = 60
_COMPACT_JWS = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_CLAIMS = {"iss", "aud", "sub", "sid", "typ", "jti", "iat", "exp"}
# Tokens of versions before keys had ids: their users stay logged in through the upgrade.
_HEADER_WITHOUT_ID = {"alg": "HS256", "typ": "JWT"}
_ID = re.compile(r"[1-9][0-9]{0,18}")
# A stored hash that would take over a second is damaged, or planted to keep the threads busy.
_ARGON2 = re.compile(r"\$argon2id?\$v=[0-9]+\$m=([0-9]{1,9}),t=([0-9]{1,9}),p=[0-9]{1,3}\$")
_BCRYPT = re.compile(r"\$2[aby]\$(0[4-9]|1[0-4])\$")
_MAX_KIB_PASSES = 2**20


@dataclass(frozen=True, slots=True)
class AccessClaims:
    """What a verified access token says: whose it is and which session it belongs to."""

    user_id: int
    session_id: int
    expires_at: int


class _TokenKey:
    """A key with its id, and the one algorithm it is for."""

    def __init__(self, id_: str, algorithm: str, material: str) -> None:
        self.algorithm = algorithm
        self.headers = {"kid": id_}
        self.header = {"alg": algorithm, "typ": "JWT", "kid": id_}
        self.signs: Key = jwk.construct(material, algorithm)
        self.verifies = self.signs.public_key() if algorithm == "ES256" else self.signs


class AccessTokens:
    """Issues and verifies short-lived access tokens (JWT).

    Signs with the newest key pair (ES256), or with the newest secret (HS256) when there are no
    pairs; recognises all of them. Source of the rules: RFC 7519, RFC 8725 (the algorithm is the
    key's and never the token's to say, exact header, all claims).
    """

    def __init__(self, keys: SecretKeys, pairs: Sequence[KeyPair] = (), *, minutes: int) -> None:
        """Take the pairs newest first, as the secrets."""
        self.lifetime_seconds = minutes * 60
        self.public_keys = [pair.public for pair in pairs]
        hmac = {id_: _TokenKey(id_, "HS256", secret) for id_, secret in keys.items()}
        ec = {pair.id: _TokenKey(pair.id, "ES256", pair.pem) for pair in pairs}
        self._without_id = [key.verifies for key in hmac.values()]
        self._by_id = ec | hmac
        self._newest = next(iter(self._by_id.values()))

    def issue(self, *, user_id: int, session_id: int) -> str:
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(user_id),
            "sid": str(session_id),
            "typ": ACCESS,
            "jti": secrets.token_hex(16),
            "iat": now,
            "exp": now + self.lifetime_seconds,
        }
        key = self._newest
        return jws.sign(claims, key.signs, headers=key.headers, algorithm=key.algorithm)

    def verify(self, token: str) -> AccessClaims:
        """Return the claims of a token; raise the same `InvalidToken` for any defect."""
        if len(token) > MAX_TOKEN or not _COMPACT_JWS.fullmatch(token):
            raise InvalidToken
        try:
            header, payload, signature = map(_decoded, token.split("."))
            signed = token[: token.rindex(".")].encode()
            keys = self._keys_for(_members(header))
            if not any(key.verify(signed, signature) for key in keys):
                raise InvalidToken
            return _typed(_members(payload))
        # Hostile JSON raises RecursionError, TypeError, UnicodeDecodeError and others; so do keys.
        except Exception:  # noqa: BLE001 see above
            raise InvalidToken from None

    def _keys_for(self, header: dict[str, Any]) -> list[Key]:
        if header == _HEADER_WITHOUT_ID:
            return self._without_id
        key = self._by_id[header["kid"]]
        if header != key.header:
            raise InvalidToken
        return [key.verifies]


def _decoded(part: str) -> bytes:
    """Decode unpadded base64url; accept only the one way to write it."""
    raw = urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if urlsafe_b64encode(raw).rstrip(b"=") != part.encode():
        raise InvalidToken
    return raw


def _members(raw: bytes) -> dict[str, Any]:
    """Return the members of a JSON object in UTF-8, none of them twice."""
    found = json.loads(raw.decode(), object_pairs_hook=_each_once)
    if not isinstance(found, dict):
        raise InvalidToken
    return found


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise InvalidToken
    return members


def _typed(claims: dict[str, Any]) -> AccessClaims:
    now = time.time()
    if claims.keys() != _CLAIMS:
        raise InvalidToken
    if (claims["typ"], claims["aud"], claims["iss"]) != (ACCESS, AUDIENCE, ISSUER):
        raise InvalidToken
    if not isinstance(claims["jti"], str) or not claims["jti"]:
        raise InvalidToken
    issued, expires = claims["iat"], claims["exp"]
    if type(issued) is not int or type(expires) is not int:
        raise InvalidToken
    if issued > now + _CLOCK_SKEW_SECONDS or expires <= now:
        raise InvalidToken
    if expires > issued + MAX_LIFETIME_SECONDS:
        raise InvalidToken
    return AccessClaims(
        user_id=_row_id(claims["sub"]),
        session_id=_row_id(claims["sid"]),
        expires_at=expires,
    )


def _row_id(claim: object) -> int:
    if not isinstance(claim, str) or not _ID.fullmatch(claim) or int(claim) >= 2**63:
        raise InvalidToken
    return int(claim)


@dataclass(frozen=True, slots=True)
class HashCost:
    """Cost of one argon2id hash: memory in KiB, passes, lanes (OWASP's second profile)."""

    memory_kib: int = 19_456
    passes: int = 2
    lanes: int = 1


class Passwords:
    """Hashes and verifies passwords off the event loop: argon2id, and bcrypt for old hashes.

    Threads of its own keep a storm of logins from taking the threads, and the memory
    (cores x 19 MiB), of everything else. A queue before them (`hashing.py`) is bounded, and fair
    between networks: everything here raises Overloaded instead of waiting for long.
    """

    def __init__(self, cost: HashCost | None = None) -> None:
        cost = cost or HashCost()
        self._context = CryptContext(
            schemes=["argon2", "bcrypt"],
            deprecated=["bcrypt"],
            argon2__type="ID",
            argon2__memory_cost=cost.memory_kib,
            argon2__time_cost=cost.passes,
            argon2__parallelism=cost.lanes,
        )
        cores = os.cpu_count() or 1
        threads = background_threads(cores, "passwords")
        # Verified against when there is no such account: the same work, never a match.
        started = time.perf_counter()
        self._decoy = self._context.hash(secrets.token_urlsafe(32))
        seconds = time.perf_counter() - started
        self._queue = HashingQueue(threads, count=cores, seconds=seconds)

    def turn(self, account: str | None = None) -> AbstractAsyncContextManager[None]:
        """Wait for a turn and hold it for all that is hashed within; raise Overloaded when too
        many of the network of this request wait, or of the account (any name of it, existing or
        not).

        Enter it before any work is done for nothing, and hold no transaction.
        """
        return self._queue.turn(network_of(request_context().ip), account)

    async def hash(self, password: str) -> str:
        """Hash what is kept of a password: its normal form (`passwords.normal_form`)."""
        return await self._in_turn(partial(self._context.hash, normal_form(password)))

    async def verify(self, password: str, stored: str | None) -> tuple[bool, str | None]:
        """Return whether the password matches, and a better hash to store instead, if any.

        Takes as long for no account (`stored` None), an empty or an oversized password.
        A malformed stored hash matches nothing. A password that is not in its normal form is
        verified in both: earlier versions hashed what was sent.
        """
        return await self._in_turn(partial(self._verify, password, stored))

    def _verify(self, password: str, stored: str | None) -> tuple[bool, str | None]:
        form = normal_form(password)
        is_possible = 0 < min(len(password), len(form)) <= MAX_PASSWORD
        usable = stored if is_possible and _affordable(stored) else None
        matches, better = self._compare(form, usable)
        # Whatever became of the first: how long it takes depends on what was sent alone.
        if form != password and self._compare(password, usable)[0] and not matches:
            return True, self._context.hash(form)
        return matches, better

    def _compare(self, password: str, usable: str | None) -> tuple[bool, str | None]:
        try:
            matches, better = self._context.verify_and_update(
                password if usable else password[:MAX_PASSWORD], usable or self._decoy
            )
        # passlib raises on unknown and malformed hashes, on NUL and on surrogates.
        except Exception:  # noqa: BLE001 see above
            return False, None
        return (bool(matches), better) if usable else (False, None)

    async def _in_turn(self, work: Callable[[], R]) -> R:
        async with self.turn():
            return await self._queue.run(work)


def _affordable(stored: str | None) -> bool:
    """Return whether this is a hash of a known kind, at a cost that a login may have."""
    argon2 = _ARGON2.match(stored or "")
    if argon2:
        return int(argon2[1]) * int(argon2[2]) <= _MAX_KIB_PASSES
    return _BCRYPT.match(stored or "") is not None
