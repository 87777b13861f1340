"""Forged tokens by an attacker who knows every key of a server: valid ones, and invalid ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from app.core.key_pairs import KeyPair, new_pem, pair_of
from tests.support.tokens import claims, encoded, signed


@dataclass
class Forger:
    """Knows whose token it is about, and the keys of the server; by which of them a token is
    signed is in the verbs, what it says in the arguments."""

    user_id: int
    session_id: int
    secret_id: str
    pair: KeyPair

    def __post_init__(self) -> None:
        self.hs = {"alg": "HS256", "typ": "JWT", "kid": self.secret_id}
        self.es = {"alg": "ES256", "typ": "JWT", "kid": self.pair.id}
        self.without_id = {"alg": "HS256", "typ": "JWT"}
        self.stranger = pair_of(new_pem())

    def claims(self, **changes: Any) -> dict[str, Any]:
        return claims(self.user_id, self.session_id, **changes)

    def by_secret(self, payload: object = None, header: object = None, **options: Any) -> str:
        given = self.claims() if payload is None else payload
        return signed(given, header=self.hs if header is None else header, **options)

    def by_pair(
        self, payload: object = None, header: object = None, pair: KeyPair | None = None
    ) -> str:
        given = self.claims() if payload is None else payload
        head = f"{encoded(self.es if header is None else header)}.{encoded(given)}"
        return f"{head}.{encoded(ecdsa(head, pair or self.pair))}"

    def good(self) -> dict[str, str]:
        """The valid tokens: the three kinds that the forgeries are derived from."""
        return {
            "HS256": self.by_secret(),
            "ES256": self.by_pair(),
            "without an id": self.by_secret(header=self.without_id),
        }


def ecdsa(head: str, pair: KeyPair) -> bytes:
    """A signature as JWS has it: r and s, 32 bytes each (RFC 7518 §3.4)."""
    key = load_pem_private_key(pair.pem.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    r, s = decode_dss_signature(key.sign(head.encode(), ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")
