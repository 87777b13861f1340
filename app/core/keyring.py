"""The secret keys: the newest signs, all of them are recognised."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Sequence

_KEY_ID_LENGTH = 8


class SecretKeys:
    """The secrets of the settings, newest first; each has an id that gives nothing away."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._by_id = {key_id(secret): secret for secret in secrets}
        self.newest_id = next(iter(self._by_id))

    def items(self) -> Iterator[tuple[str, str]]:
        """Return every id with its secret, newest first."""
        return iter(self._by_id.items())

    def find(self, id_: str) -> str | None:
        """Return the secret with an id; None if it is not in use any more."""
        return self._by_id.get(id_)

    def mac(self, purpose: str, message: str, *, key: str | None = None) -> str:
        """Return 256 bits, in hexadecimal, that only holders of a key can derive from a message:
        by the newest key, or by the one with an id. Raise KeyError if that is not in use."""
        return _mac(self._by_id[key or self.newest_id], purpose, message)

    def macs(self, purpose: str, message: str) -> Iterator[str]:
        """Return the same by each key, newest first."""
        return (_mac(secret, purpose, message) for secret in self._by_id.values())


def key_id(secret: str) -> str:
    """Return the id of a secret, derived one way."""
    return _mac(secret, "key id", "")[:_KEY_ID_LENGTH]


def _mac(secret: str, purpose: str, message: str) -> str:
    text = f"cimiento {purpose}\0{message}".encode()
    return hmac.digest(secret.encode(), text, hashlib.sha256).hex()
