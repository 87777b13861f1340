"""Idempotency keys: a repeated request gets the response to the first one.

The response is stored in the transaction of the change that it reports, so it exists exactly when
the change was committed. Refusals are not stored: the client may send the request again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Boolean, bindparam, delete, select, type_coerce
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.exceptions import IdempotencyKeyReused
from app.core.keyring import SecretKeys
from app.db.engine import Database
from app.db.queries import PreparedQuery, QueryRunner, Rows
from app.db.transactions import Transaction
from app.models.base import UtcDateTime, utc_now
from app.models.idempotency_keys import IdempotencyKey

LIFETIME = timedelta(hours=24)
REPLAYED = "Idempotency-Replayed"  # the header of a stored response
_PURPOSE = "idempotency"


@dataclass(frozen=True, slots=True)
class Key:
    """The key of a request; `fingerprints` identify the request, one for each secret key."""

    hash: str
    user_id: int | None
    fingerprints: Sequence[str]

    def response_of(self, record: IdempotencyRecord) -> StoredResponse:
        """Return the stored response; raise IdempotencyKeyReused if it is of another request."""
        if record.fingerprint not in self.fingerprints:
            raise IdempotencyKeyReused
        return record.response


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response as it was sent."""

    status: int
    headers: dict[str, str]
    body: str


class ReplayResponse(Exception):
    """Send the stored response of an earlier request with the same key."""

    def __init__(self, response: StoredResponse) -> None:
        super().__init__()
        self.response = response


@dataclass(frozen=True, slots=True)
class IdempotencyRecord:
    """A stored response, with its user and the fingerprint of its request."""

    fingerprint: str
    user_id: int | None
    response: StoredResponse


def key_of(keys: SecretKeys, *, owner: int | str, value: str, request: str) -> Key:
    """Return the key of a user (by id) or of an anonymous client (by address), unique to them.

    `request` is all that two requests must share to count as the same.
    """
    user_id = owner if isinstance(owner, int) else None
    whose = f"address\0{owner}" if user_id is None else user_id
    key_hash = hashlib.sha256(f"{whose}\0{value}".encode("utf-8", "backslashreplace")).hexdigest()
    # With a secret: the request may hold a password, which a plain hash would give away.
    return Key(key_hash, user_id, [*keys.macs(_PURPOSE, request)])


_STORED = PreparedQuery(
    select(
        IdempotencyKey.fingerprint,
        IdempotencyKey.user_id,
        type_coerce(IdempotencyKey.expires_at > bindparam("now", type_=UtcDateTime()), Boolean),
        IdempotencyKey.status,
        IdempotencyKey.headers,
        IdempotencyKey.body,
    ).where(IdempotencyKey.key_hash == bindparam("key_hash"))
)


async def find(reader: QueryRunner, key: Key) -> IdempotencyRecord | None:
    """Return the record of a key, if there is one."""
    return _live(await reader.rows(_STORED, _parameters(key)))


async def find_or_delete_expired(
    reader: QueryRunner, database: Database, key: Key
) -> IdempotencyRecord | None:
    """Return the record of a key; delete one that has expired."""
    rows = await reader.rows(_STORED, _parameters(key))
    if rows and not rows[0][2]:
        async with database.begin() as session:
            expired = IdempotencyKey.expires_at <= utc_now()
            which = (IdempotencyKey.key_hash == key.hash) & expired
            await session.execute(delete(IdempotencyKey).where(which))
    return _live(rows)


def find_in_transaction(transaction: Transaction, key: Key) -> IdempotencyRecord | None:
    """Return the record of a key, read in the transaction that would store one."""
    return _live(transaction.rows(_STORED, **_parameters(key)))


def store(transaction: Transaction, key: Key, response: StoredResponse) -> None:
    """Store a response; raise IntegrityError when the key has one by now."""
    transaction.insert(
        IdempotencyKey,
        key_hash=key.hash,
        user_id=key.user_id,
        fingerprint=key.fingerprints[0],
        status=response.status,
        headers=response.headers,
        body=response.body,
        expires_at=utc_now() + LIFETIME,
    )


async def delete_of_user(session: AsyncSession, *, user_id: int) -> None:
    """Delete the stored responses to a user, and the one to the registration of the user."""
    await session.execute(delete(IdempotencyKey).where(IdempotencyKey.user_id == user_id))


def _parameters(key: Key) -> dict[str, Any]:
    return {"key_hash": key.hash, "now": utc_now()}


def _live(rows: Rows) -> IdempotencyRecord | None:
    for fingerprint, user_id, is_live, status, headers, body in rows:
        if is_live:
            response = StoredResponse(status, headers, body)
            return IdempotencyRecord(fingerprint, user_id, response)
    return None
