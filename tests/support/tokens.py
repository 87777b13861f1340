"""Access tokens by hand, right and wrong: nothing here knows how the app makes its own."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from typing import Any

from tests.conftest import SECRET

HEADER = {"alg": "HS256", "typ": "JWT"}


def encoded(value: object) -> str:
    """JSON (or bytes as they are) as unpadded base64url."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def claims(user_id: int, session_id: int, **changes: Any) -> dict[str, Any]:
    """The claims of a valid token; a change to None leaves the claim out."""
    now = int(time.time())
    found: dict[str, Any] = {
        "iss": "cimiento",
        "aud": "cimiento-api",
        "sub": str(user_id),
        "sid": str(session_id),
        "typ": "access",
        "jti": secrets.token_hex(16),
        "iat": now,
        "exp": now + 600,
    }
    return {name: value for name, value in (found | changes).items() if value is not None}


def signed(payload: object, *, header: object = HEADER, key: str = SECRET, hash_: str = "") -> str:
    """A token over any payload and header, with an HMAC (SHA-256 unless said)."""
    head = f"{encoded(header)}.{encoded(payload)}"
    digest = hmac.new(key.encode(), head.encode(), hash_ or hashlib.sha256).digest()
    return f"{head}.{encoded(digest)}"


def decoded(token: str) -> dict[str, Any]:
    """The claims of a token, unverified."""
    part = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def forgeries(
    user_id: int, session_id: int, *, other_id: int, other_session: int
) -> dict[str, Any]:
    """Tokens none of which may open anything, by what is wrong with them."""
    now = int(time.time())

    def with_claims(**changes: Any) -> str:
        return signed(claims(user_id, session_id, **changes))

    def with_header(**changes: Any) -> str:
        return signed(claims(user_id, session_id), header=HEADER | changes)

    good = with_claims()
    head, body, signature = good.split(".")
    unsigned = {
        f"alg {name}": f"{encoded(HEADER | {'alg': name})}.{body}." for name in ("none", "None", "")
    }
    hashes = {
        f"alg HS{bits}": signed(
            claims(user_id, session_id), header=HEADER | {"alg": f"HS{bits}"}, hash_=f"sha{bits}"
        )
        for bits in (384, 512)
    }
    missing = {f"without {name}": with_claims(**{name: None}) for name in claims(1, 1)}
    nested: Any = {}
    for _ in range(400):
        nested = {"x": nested}
    return (
        unsigned
        | hashes
        | missing
        | {
            "alg none with a signature": f"{encoded(HEADER | {'alg': 'none'})}.{body}.{signature}",
            "alg RS256": with_header(alg="RS256"),
            "another key": signed(claims(user_id, session_id), key="x" * 40),
            "an empty key": signed(claims(user_id, session_id), key=""),
            "header typ": with_header(typ="at+jwt"),
            "header kid": with_header(kid="../../dev/null"),
            "header crit": with_header(crit=["exp"]),
            "header jwk": with_header(jwk={"kty": "oct", "k": encoded(b"k" * 32)}),
            "nested header": with_header(x=nested),
            "header is a list": signed(claims(user_id, session_id), header=["HS256"]),
            "payload is a list": signed([1]),
            "payload is not JSON": signed(b"\xff\xfe"),
            "typ refresh": with_claims(typ="refresh"),
            "another aud": with_claims(aud="someone-else"),
            "a list of aud": with_claims(aud=["cimiento-api"]),
            "another iss": with_claims(iss="someone-else"),
            "exp as text": with_claims(exp=str(now + 600)),
            "exp as float": with_claims(exp=now + 600.5),
            "exp huge": with_claims(exp=1e308),
            "exp true": with_claims(exp=True),
            "exp now": with_claims(exp=now),
            "iat in the future": with_claims(iat=now + 3600, exp=now + 7200),
            "sub as number": with_claims(sub=user_id),
            "sub with a space": with_claims(sub=f" {user_id}"),
            "sub beyond 64 bits": with_claims(sub=str(2**63)),
            "sub of another user": with_claims(sub=str(other_id)),
            "sid of another user": with_claims(sid=str(other_session)),
            "sid unknown": with_claims(sid=str(2**62)),
            "sid zero": with_claims(sid="0"),
            "jti as number": with_claims(jti=7),
            "jti empty": with_claims(jti=""),
            "signature cut": good[:-4],
            "signature empty": f"{head}.{body}.",
            "padding": good + "=",
            "five parts, as a JWE": f"{head}.{body}.{signature}.{body}.{signature}",
            "two parts": f"{head}.{body}",
            "two tokens": f"{good} {good}",
            "NUL": f"{good}\0",
            "latin-1": b"Bearer \xe9" + good.encode(),
            "empty": "",
            "a megabyte": f"{head}.{'A' * 1_000_000}.{signature}",
        }
    )
