"""Cursors: encrypted positions in listings."""

from __future__ import annotations

import hmac
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Container
from contextlib import suppress
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from pydantic_core import from_json, to_json

from app.core.exceptions import InvalidCursor
from app.core.keyring import SecretKeys
from app.schemas.pages import PageQuery

_PADDED_TO = 64


class CursorSigner:
    """Encrypts positions in listings: AES-SIV (RFC 5297) with keys of their own.

    Equal positions make equal cursors, so that a page that is read again is the same to the byte.
    Lengths are rounded up: they tell next to nothing of a title or an address.
    """

    def __init__(self, keys: SecretKeys) -> None:
        self._newest, *self._older = [_cipher(secret) for _, secret in keys.items()]

    def dump(self, listing: str, sort: str, key: object, row_id: int) -> str:
        """Return the cursor of a position."""
        position = to_json([sort, key, row_id])
        padded = position.ljust(-(-len(position) // _PADDED_TO) * _PADDED_TO)
        return _as_text(self._newest.encrypt(padded, [listing.encode()]))

    def load(self, listing: str, sorts: Container[str], query: PageQuery) -> tuple[str, Any, int]:
        """Return the sort, the key and the id a query's cursor stands at.

        Raise InvalidCursor when it is not ours, or of another listing or another sort.
        """
        sort, key, row_id = from_json(self._decrypted(query.cursor or "", listing.encode()))
        if sort.removeprefix("-") not in sorts:
            raise InvalidCursor
        if "sort" in query.model_fields_set and query.sort != sort:
            raise InvalidCursor
        return sort, key, row_id

    def _decrypted(self, cursor: str, listing: bytes) -> bytes:
        try:
            raw = b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except ValueError:
            raise InvalidCursor from None
        # Several texts stand for the same bytes: one of them is ours.
        if _as_text(raw) == cursor:
            for cipher in (self._newest, *self._older):
                with suppress(InvalidTag):
                    return cipher.decrypt(raw, [listing])
        raise InvalidCursor


def _cipher(secret: str) -> AESSIV:
    return AESSIV(hmac.digest(secret.encode(), b"cursor encryption", "sha512"))


def _as_text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
