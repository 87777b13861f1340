"""Tokens that open nothing, by the hundred; `tokens.py` has the plainest ones by name.

Each begins as a token that would open, signed with the right key unless its name says otherwise,
and has one thing wrong with it.
"""

from __future__ import annotations

import base64
import json
import random
import time
from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from tests.conftest import SECRET
from tests.support.forger import Forger
from tests.support.tokens import encoded

Forgery = tuple[str, str | bytes]
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
# The order of the group of P-256 (FIPS 186-4, D.1.2.3).
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_HASHES = {"HS384": "sha384", "HS512": "sha512"}
_ALGORITHMS: list[Any] = [
    *("none", "None", "NONE", "nOnE", "", "HS256", "HS384", "HS512", "hs256", "HS256 ", "HS1"),
    *("RS256", "RS512", "PS256", "ES256", "ES384", "ES512", "ES256K", "EdDSA", "es256"),
    *("dir", "A128KW", "RSA-OAEP", "PBES2-HS256+A128KW", None, 256, True, ["HS256"], {"HS256": 1}),
]
_KIDS: list[Any] = [
    *("", " ", "0", "null", "default", ".", "..", "/", "../../../../dev/null", "/dev/null"),
    *("/proc/self/environ", "file:///dev/null", "http://127.0.0.1/key", "C:\\nul", "keys/1.pem"),
    *(
        "' OR '1'='1",
        "x' UNION SELECT 'k",
        "1; DROP TABLE users",
        "%00",
        "\0",
        "\n",
        "$(id)",
        "`id`",
    ),
    *("{{7*7}}", "${jndi:ldap://x}", "*", "%", "\ud800", "é", "\U0001f511", "k" * 1_000),
    *(None, 0, 1, -1, 1.5, True, False, [], {}, [""], {"$ne": None}),
]
_EXTRAS: dict[str, list[Any]] = {
    "jku": ["http://127.0.0.1/jwks.json", "", None],
    "x5u": ["http://127.0.0.1/cert.pem", None],
    "x5c": [["MIIB"], []],
    "x5t": ["x"],
    "crit": [["exp"], ["b64"], [], "exp", None],
    "b64": [False, True, "false"],
    "zip": ["DEF"],
    "cty": ["JWT"],
    "enc": ["A256GCM"],
    "apu": ["x"],
    "p2c": [2**31],
    "iv": ["x"],
    "nonce": ["x"],
    "Alg": ["none"],
    "KID": ["x"],
}
_TYPES: list[Any] = [
    "",
    "jwt",
    "JWT ",
    "at+jwt",
    "JOSE",
    "JWE",
    "application/jwt",
    None,
    1,
    ["JWT"],
]
_VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1.5, 1e308, float("nan"), float("inf"), -float("inf"), 10**400),
    *("", " ", "x", "0", "-1", "01", "1.0", "1e3", "\u0661", "\0", "\ud800", "9" * 400),
    *([], {}, ["x"], [1], {"x": 1}),
]
_DEPTHS = (10, 100, 400, 1_000, 1_300, 1_900, 5_000, 50_000)


def flood(forger: Forger) -> dict[str, str | bytes]:
    """Every forgery by its name."""
    kinds = (
        *(_algorithms, _kids, _extras, _types, _claims, _times),
        *(_twice, _nested, _parts, _letters, _bytes, _sizes),
        *(_signatures, _confused),
    )
    found: dict[str, str | bytes] = {}
    for kind in kinds:
        for number, (name, token) in enumerate(kind(forger)):
            found[f"{kind.__name__} {number}: {name}"] = token
    for token in forger.good().values():
        assert token not in found.values(), "the forger slipped"
    return found


# --- Headers ------------------------------------------------------------------------------


def _algorithms(forger: Forger) -> Iterator[Forgery]:
    right = [forger.hs, forger.es, forger.without_id]
    for algorithm in _ALGORITHMS:
        for base in right:
            header = base | {"alg": algorithm}
            name = f"{algorithm!r} with {base.get('kid', 'no id')}"
            hash_ = _HASHES.get(algorithm, "") if isinstance(algorithm, str) else ""
            head = f"{encoded(header)}.{encoded(forger.claims())}"
            yield f"{name}, unsigned", f"{head}."
            yield f"{name}, a letter for a signature", f"{head}.A"
            if header not in right or header == forger.es:
                yield f"{name}, by the secret", forger.by_secret(header=header, hash_=hash_)
            if header != forger.es:
                yield f"{name}, by the pair", forger.by_pair(header=header)


def _kids(forger: Forger) -> Iterator[Forgery]:
    for kid in [*_KIDS, forger.secret_id.upper(), forger.secret_id[:-1], forger.pair.id + "="]:
        for base, sign in ((forger.hs, forger.by_secret), (forger.es, forger.by_pair)):
            yield repr(kid)[:40], sign(header=base | {"kid": kid})
        key = kid if isinstance(kid, str) else ""
        if "\ud800" not in key:
            yield f"{kid!r} as key"[:40], forger.by_secret(header=forger.hs | {"kid": kid}, key=key)
            yield f"no id, {kid!r} as key"[:40], forger.by_secret(header=forger.without_id, key=key)


def _extras(forger: Forger) -> Iterator[Forgery]:
    jwks = [forger.stranger.public, forger.pair.public, {"kty": "oct", "k": encoded(b"k" * 32)}]
    for name, values in (_EXTRAS | {"jwk": [*jwks, None, {}]}).items():
        for value in values:
            for base in (forger.hs, forger.without_id):
                yield name, forger.by_secret(header=base | {name: value})
            yield name, forger.by_pair(header=forger.es | {name: value})


def _types(forger: Forger) -> Iterator[Forgery]:
    for base, sign in ((forger.hs, forger.by_secret), (forger.es, forger.by_pair)):
        for value in _TYPES:
            yield repr(value), sign(header=base | {"typ": value})
        yield "no typ", sign(header={name: base[name] for name in ("alg", "kid")})
        yield "no alg", sign(header={name: base[name] for name in ("typ", "kid")})
        others: list[Any] = [[base], b"[]", b"{}", 1, "x", json.dumps(base), b"\xff", b"{"]
        for other in others:
            yield f"a header {other!r}"[:40], sign(header=other)
        for codec in ("utf-16", "utf-32", "utf-8-sig"):
            yield codec, sign(header=json.dumps(base).encode(codec))


# --- Claims -------------------------------------------------------------------------------


def _claims(forger: Forger) -> Iterator[Forgery]:
    for sign in (forger.by_secret, forger.by_pair):
        for name in forger.claims():
            yield f"no {name}", sign(forger.claims(**{name: None}))
            for value in _VALUES:
                if name != "jti" or not isinstance(value, str) or not value:
                    yield f"{name} {value!r}"[:40], sign(forger.claims() | {name: value})
        for name, value in (("nbf", int(time.time()) + 60), ("scope", "admin"), ("kid", "x")):
            yield f"an unknown claim {name}", sign(forger.claims(**{name: value}))
        for changes in (
            *(
                {"typ": "refresh"},
                {"typ": "Access"},
                {"iss": "Cimiento"},
                {"iss": ["cimiento"]},
            ),
            *({"iss": "cimiento "}, {"aud": "cimiento"}, {"aud": ["cimiento-api"]}),
            *({"aud": ["cimiento-api", "x"]}, {"aud": "cimiento-api,x"}, {"sub": forger.user_id}),
            *({"sub": f"{forger.user_id} "}, {"sub": f"+{forger.user_id}"}, {"sub": str(2**63)}),
            *({"sid": forger.session_id}, {"sid": f"0{forger.session_id}"}, {"sid": str(2**62)}),
        ):
            yield repr(changes), sign(forger.claims(**changes))
        for other in (b"{}", b"{", b"\xff\xfe", b"null", [1], "x", json.dumps(forger.claims())):
            yield f"a payload {other!r}"[:40], sign(other)
        yield "utf-16", sign(json.dumps(forger.claims()).encode("utf-16"))


def _times(forger: Forger) -> Iterator[Forgery]:
    now = int(time.time())
    for sign in (forger.by_secret, forger.by_pair):
        for issued, expires in (
            *((now, now), (now, now - 1), (now, 0), (now, -1), (now, str(now + 600))),
            *(
                (now, now + 600.0),
                (now, now + 600.5),
                (now, 10**12),
                (now, 2**63),
                (now, 2**64),
            ),
            *((now, now + 90_000), (0, now + 600), (-(2**63), now + 600), (now, -1e308)),
            *((now + 3_600, now + 7_200), (str(now), now + 600), (float(now), now + 600)),
            *((2**63, 2**63 + 1), (now * 1_000, now * 1_000 + 600), (True, now + 600)),
        ):
            yield f"{issued!r} to {expires!r}", sign(forger.claims(iat=issued, exp=expires))


# --- JSON ---------------------------------------------------------------------------------


def _twice(forger: Forger) -> Iterator[Forgery]:
    """A member that is there twice, whichever of them counts."""
    for base, sign in ((forger.hs, forger.by_secret), (forger.es, forger.by_pair)):
        for name, value in base.items():
            for pair in ((value, value), ("none", value), (value, "none")):
                header = _with_both(base, name, *pair)
                yield f"header {name} {pair}", sign(header=header)
        good = forger.claims()
        for name, value in good.items():
            for pair in ((value, value), ("x", value), (value, "x")):
                yield f"{name} {pair}", sign(_with_both(good, name, *pair))


def _nested(forger: Forger) -> Iterator[Forgery]:
    for depth in _DEPTHS:
        for opening, closing in (("[", "]"), ('{"x":', "}")):
            deep = (opening * depth + "1" + closing * depth).encode()
            open_ended = (opening * depth).encode()
            for nested in (deep, open_ended):
                yield f"header {depth}", forger.by_secret(header=nested)
                yield f"payload {depth}", forger.by_secret(nested)
                yield f"payload {depth}, by the pair", forger.by_pair(nested)
            head = json.dumps(forger.hs)[:-1].encode()
            yield f"in a header {depth}", forger.by_secret(header=head + b',"x":' + deep + b"}")


# --- Text ---------------------------------------------------------------------------------


def _parts(forger: Forger) -> Iterator[Forgery]:
    for good in forger.good().values():
        header, payload, signature = good.split(".")
        for parts in (
            *([], [header], [header, payload], [header, payload, ""], ["", payload, signature]),
            *([header, "", signature], ["", "", ""], ["", "", signature], [header, "", ""]),
            *([header, payload, signature, ""], ["", header, payload, signature]),
            *([header, payload, signature, signature], [header, payload, "", signature]),
            *([header, payload, payload, payload, signature], [header, "", "", "", signature]),
            *([payload, header, signature], [signature, payload, header], [header] * 3),
        ):
            yield f"{len(parts)} parts", ".".join(parts)
        for between in ("", "..", "/", ":", " ", "\t", "%2E"):
            yield f"{between!r} between", between.join((header, payload, signature))
        for text in (
            *(f"{good} {good}", f"{good},{good}", f"Bearer {good}", f'"{good}"', f"{good}\t"),
            *(f"{good}x", f"x{good}", f"{good};x", f"{good}#", f"{good}%00", f"{good}."),
        ):
            yield text[-20:], text


def _letters(forger: Forger) -> Iterator[Forgery]:
    """Another letter in each place; in the last ones of a part, each other letter."""
    chance = random.Random(7)
    for good in forger.good().values():
        for place, letter in enumerate(good):
            if letter != ".":
                other = chance.choice([each for each in _ALPHABET if each != letter])
                yield f"at {place}", f"{good[:place]}{other}{good[place + 1 :]}"
        for end in (good.index(".") - 1, good.rindex(".") - 1, len(good) - 1):
            for other in _ALPHABET:
                if other != good[end]:
                    yield f"{other} at {end}", f"{good[:end]}{other}{good[end + 1 :]}"
            for padding in ("=", "==", "A", "+", "/", "%3D", " ", "~"):
                yield f"{padding!r} at {end}", f"{good[: end + 1]}{padding}{good[end + 1 :]}"
        for ours, other in (("-", "+"), ("_", "/"), ("A", "+"), ("I", "/")):
            yield f"{ours} as {other}", good.replace(ours, other) + "+"


def _bytes(forger: Forger) -> Iterator[Forgery]:
    good = forger.by_secret().encode()
    middle = len(good) // 2
    for bad in (
        *(b"\0", b"\xe9", b"\xff", b"\xed\xa0\x80", b"\xc0\xae", b"\xf0\x9f\x94\x91"),
        *(b"\xe2\x80\xae", b"\x7f", b"\x1b[0m", b"\xa0", b"\xb2", b"\xef\xbb\xbf"),
    ):
        for place in (0, middle, len(good)):
            yield f"{bad!r} at {place}", good[:place] + bad + good[place:]


def _sizes(forger: Forger) -> Iterator[Forgery]:
    header, _, signature = forger.by_secret().split(".")
    for size in (4_097, 10_000, 100_000, 1_000_000):
        yield f"{size} letters", "A" * size
        yield f"{size} dots", "." * size
        yield f"a payload of {size}", f"{header}.{'A' * size}.{signature}"
        yield f"a header of {size}", f"{'A' * size}.e30.{signature}"
    yield "well signed, but long", forger.by_secret(forger.claims(jti="x" * 4_000))


# --- Keys ---------------------------------------------------------------------------------


def _signatures(forger: Forger) -> Iterator[Forgery]:
    head, _, mark = forger.by_secret().rpartition(".")
    raw = base64.urlsafe_b64decode(mark + "=")
    for length in range(32):
        yield f"HMAC cut to {length}", f"{head}.{encoded(raw[:length])}"
    for tag in (raw + b"\0", b"\0" + raw, raw * 2, bytes(32), b"\xff" * 32, raw[::-1]):
        yield f"HMAC {len(tag)}", f"{head}.{encoded(tag)}"
    head, _, mark = forger.by_pair().rpartition(".")
    raw = base64.urlsafe_b64decode(mark + "==")
    r, s = raw[:32], raw[32:]
    zero, one, order = bytes(32), (1).to_bytes(32, "big"), _ORDER.to_bytes(32, "big")
    for tag in (
        *(zero + zero, zero + s, r + zero, one + one, zero + one, order + s, r + order),
        *(order + order, s + r, raw * 2, raw + zero, b"\0" + raw, raw[:-1], raw[:32], raw[32:]),
        *(b"\0" + r + b"\0" + s, r + r, s + s, b"\xff" * 64, b"", _der(r, s), bytes(96)),
    ):
        yield f"ECDSA {tag[:4].hex()} {len(tag)}", f"{head}.{encoded(tag)}"
    for length in range(0, 64, 3):
        yield f"ECDSA cut to {length}", f"{head}.{encoded(raw[:length])}"


def _confused(forger: Forger) -> Iterator[Forgery]:
    """Signed, but with what is public, or with another kind of key, or with a stranger's."""
    key = load_pem_private_key(forger.pair.pem.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    public = forger.pair.public
    for text in (
        *(pem.decode(), pem.decode().strip(), "".join(pem.decode().splitlines()[1:-1])),
        *(json.dumps(public), json.dumps(public, separators=(",", ":"), sort_keys=True)),
        *(json.dumps({"keys": [public]}), public["x"], public["y"], forger.pair.id),
        *("", "\0" * 32, "secret", "cimiento", forger.secret_id, SECRET + "\n", SECRET[:-1]),
        *(encoded(SECRET.encode()), SECRET.encode().hex(), SECRET * 2, SECRET.upper()),
    ):
        for header in (forger.hs, forger.without_id, forger.es, forger.es | {"alg": "HS256"}):
            yield f"HMAC with {text[:20]!r}", forger.by_secret(header=header, key=text)
    for header in (forger.hs, forger.without_id, forger.hs | {"alg": "ES256"}):
        yield "by the pair, as a secret's", forger.by_pair(header=header)
    for header in (forger.es, forger.es | {"alg": "HS256"}, forger.hs | {"kid": forger.pair.id}):
        yield "by the secret, as the pair's", forger.by_secret(header=header)
    theirs = {"kid": forger.stranger.id}
    embedded: dict[str, Any] = {"jwk": forger.stranger.public}
    for claimed in (
        forger.es,
        forger.hs,
        forger.without_id,
        forger.es | theirs,
        forger.es | embedded,
    ):
        yield "by a stranger's pair", forger.by_pair(header=claimed, pair=forger.stranger)


def _der(r: bytes, s: bytes) -> bytes:
    """The same as certificates have it."""
    parts = [b"\0" + part if part[0] & 0x80 else part.lstrip(b"\0") for part in (r, s)]
    inner = b"".join(bytes([2, len(part)]) + part for part in parts)
    return bytes([0x30, len(inner)]) + inner


def _with_both(members: dict[str, Any], name: str, first: object, second: object) -> bytes:
    """JSON in which a member stands twice, at the beginning and at the end."""
    others = [f"{json.dumps(k)}:{json.dumps(v)}" for k, v in members.items() if k != name]
    twice = [f"{json.dumps(name)}:{json.dumps(value)}" for value in (first, second)]
    return f"{{{','.join([twice[0], *others, twice[1]])}}}".encode()
