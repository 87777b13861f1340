"""Key pairs for ES256: the private half signs, the public half is everybody's to verify with."""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

_COORDINATE_BYTES = 32


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A pair on the curve P-256.

    `id` is the thumbprint of the public half (RFC 7638), `pem` the private half (PKCS #8),
    `public` the public one as a JSON Web Key (RFC 7517).
    """

    id: str
    pem: str = field(repr=False)
    public: dict[str, str]


def new_pem() -> str:
    """Return a new private key."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def pair_of(pem: str) -> KeyPair:
    """Return the pair of a private key; raise ValueError if the key is not for ES256."""
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    # The errors are of many types, and their texts may show a part of the key.
    except Exception:  # noqa: BLE001 see above
        raise ValueError("not a private key without a password, in PEM") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise ValueError("not a key on the curve P-256")
    point = key.public_key().public_numbers()
    named = {"crv": "P-256", "kty": "EC", "x": _coordinate(point.x), "y": _coordinate(point.y)}
    # RFC 7638 §3: the required members, in alphabetic order, without spaces.
    canonical = json.dumps(named, separators=(",", ":"), sort_keys=True).encode()
    id_ = _base64url(hashlib.sha256(canonical).digest())
    return KeyPair(id_, pem, named | {"alg": "ES256", "use": "sig", "kid": id_})


def _coordinate(number: int) -> str:
    return _base64url(number.to_bytes(_COORDINATE_BYTES, "big"))


def _base64url(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
