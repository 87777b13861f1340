"""Tokens and password hashes: the only module that imports jose and passlib.

Both libraries fail in more ways than they document (docs/adr/0002-passwords.md,
docs/adr/0003-tokens.md); nothing but `InvalidToken`, or a plain False, leaves this module.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, TypeVarTuple

import anyio
import anyio.to_thread
from jose import jwt
from passlib.context import CryptContext

from app.core.exceptions import InvalidToken
from app.core.passwords import MAX_PASSWORD

R = TypeVar("R")
Args = TypeVarTuple("Args")

ALGORITHM = "HS256"
ISSUER = "cimiento"
AUDIENCE = "cimiento-api"
ACCESS = "access"
MAX_TOKEN = 4096
_CLOCK_SKEW_SECONDS = 60
_COMPACT_JWS = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_HEADER = {"alg": ALGORITHM, "typ": "JWT"}
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


class AccessTokens:
    """Issues and verifies short-lived access tokens (JWT, HS256).

    Source of the rules: RFC 7519, RFC 8725 (explicit algorithm, exact header, all claims).
    """

    def __init__(self, secret: str, *, minutes: int) -> None:
        self._secret = secret
        self.lifetime_seconds = minutes * 60

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
        return jwt.encode(claims, self._secret, algorithm=ALGORITHM)

    def verify(self, token: str) -> AccessClaims:
        """The claims of a token; any defect at all is the same `InvalidToken`."""
        if len(token) > MAX_TOKEN or not _COMPACT_JWS.fullmatch(token):
            raise InvalidToken
        try:
            if jwt.get_unverified_header(token) != _HEADER:
                raise InvalidToken
            claims = jwt.decode(
                token, self._secret, algorithms=[ALGORITHM], audience=AUDIENCE, issuer=ISSUER
            )
            return self._typed(claims)
        # jose lets RecursionError, TypeError, OverflowError and others of hostile tokens out.
        except Exception:  # noqa: BLE001 see above
            raise InvalidToken from None

    def _typed(self, claims: dict[str, Any]) -> AccessClaims:
        now = time.time()
        issued, expires = claims["iat"], claims["exp"]
        if type(issued) is not int or type(expires) is not int:
            raise InvalidToken
        if issued > now + _CLOCK_SKEW_SECONDS or expires <= now:
            raise InvalidToken
        if (claims["typ"], claims["aud"], claims["iss"]) != (ACCESS, AUDIENCE, ISSUER):
            raise InvalidToken
        if not claims["jti"]:
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

    A limiter of its own keeps a storm of logins from taking the threads, and the memory
    (cores x 19 MiB), of everything else.
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
        self._limiter = anyio.CapacityLimiter(os.cpu_count() or 1)
        # Verified against when there is no such account: the same work, never a match.
        self._decoy = self._context.hash(secrets.token_urlsafe(32))

    async def hash(self, password: str) -> str:
        return await self._in_thread(self._context.hash, password)

    async def verify(self, password: str, stored: str | None) -> tuple[bool, str | None]:
        """Whether the password matches, and a better hash to store instead when there is one.

        Takes as long for no account (`stored` None), an empty or an oversized password.
        A malformed stored hash matches nothing.
        """
        return await self._in_thread(self._verify, password, stored)

    def _verify(self, password: str, stored: str | None) -> tuple[bool, str | None]:
        usable = stored if 0 < len(password) <= MAX_PASSWORD and _affordable(stored) else None
        try:
            matches, better = self._context.verify_and_update(
                password[:MAX_PASSWORD], usable or self._decoy
            )
        # passlib raises on unknown and malformed hashes, on NUL and on surrogates.
        except Exception:  # noqa: BLE001 see above
            return False, None
        return (bool(matches), better) if usable else (False, None)

    async def _in_thread(self, work: Callable[[*Args], R], *args: *Args) -> R:
        return await anyio.to_thread.run_sync(work, *args, limiter=self._limiter)


def _affordable(stored: str | None) -> bool:
    """Whether this is a hash of a kind we know, at a cost that a login may have."""
    argon2 = _ARGON2.match(stored or "")
    if argon2:
        return int(argon2[1]) * int(argon2[2]) <= _MAX_KIB_PASSES
    return _BCRYPT.match(stored or "") is not None
