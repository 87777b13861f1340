"""Idempotency keys: who sends the same once more is answered what they were answered first.

An answer is written in the transaction of what it tells of, so there is one exactly when that
has happened. Refusals are not kept: whoever tries again then is judged anew.
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
from app.db.queries import PreparedQuery, QueryRunner, Values
from app.db.transactions import Transaction
from app.models.base import UtcDateTime, utc_now
from app.models.idempotency_keys import IdempotencyKey

LIFETIME = timedelta(hours=24)
REPLAYED = "Idempotency-Replayed"  # the header of an answer that was given before
_PURPOSE = "idempotency"


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it came with a request; `fingerprints` tell the request, by each secret key."""

    hash: str
    user_id: int | None
    fingerprints: Sequence[str]

    def answer(self, kept: StoredResponse) -> Answer:
        """What it was answered. Raises IdempotencyKeyReused if that was another request."""
        if kept.fingerprint not in self.fingerprints:
            raise IdempotencyKeyReused
        return kept.answer


@dataclass(frozen=True, slots=True)
class Answer:
    """A response as it was sent."""

    status: int
    headers: dict[str, str]
    body: str


class ReplayedResponse(Exception):
    """There is an answer to this request already."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """An answer as it is remembered, with whose it is and what it was an answer to."""

    fingerprint: str
    user_id: int | None
    answer: Answer


def key_of(keys: SecretKeys, *, owner: int | str, value: str, request: str) -> Key:
    """A key of a user, by their id, or of somebody who has an address only; nobody else's is the
    same. `request` is all that makes two of them one."""
    user_id = owner if isinstance(owner, int) else None
    whose = f"address\0{owner}" if user_id is None else user_id
    found = hashlib.sha256(f"{whose}\0{value}".encode("utf-8", "backslashreplace")).hexdigest()
    # With a secret: the request may hold a password, which a plain hash would give away.
    return Key(found, user_id, [*keys.macs(_PURPOSE, request)])


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


async def find(reader: QueryRunner, key: Key) -> StoredResponse | None:
    """What is remembered of a key."""
    return _live(await reader.rows(_STORED, _given(key)))


async def find_or_delete_expired(
    reader: QueryRunner, database: Database, key: Key
) -> StoredResponse | None:
    """The same, and an answer that has expired makes room for the next."""
    rows = await reader.rows(_STORED, _given(key))
    if rows and not rows[0][2]:
        async with database.begin() as session:
            expired = IdempotencyKey.expires_at <= utc_now()
            which = (IdempotencyKey.key_hash == key.hash) & expired
            await session.execute(delete(IdempotencyKey).where(which))
    return _live(rows)


def find_within(transaction: Transaction, key: Key) -> StoredResponse | None:
    """The same, in the transaction of whoever is about to keep one."""
    return _live(transaction.rows(_STORED, **_given(key)))


def keep(transaction: Transaction, key: Key, answer: Answer) -> None:
    """Write an answer down. IntegrityError when the key has got one by now."""
    transaction.insert(
        IdempotencyKey,
        key_hash=key.hash,
        user_id=key.user_id,
        fingerprint=key.fingerprints[0],
        status=answer.status,
        headers=answer.headers,
        body=answer.body,
        expires_at=utc_now() + LIFETIME,
    )


async def delete_of_user(session: AsyncSession, *, user_id: int) -> None:
    """Delete the answers that a user was given, and the one they were created by."""
    await session.execute(delete(IdempotencyKey).where(IdempotencyKey.user_id == user_id))


def _given(key: Key) -> dict[str, Any]:
    return {"key_hash": key.hash, "now": utc_now()}


def _live(rows: Values) -> StoredResponse | None:
    for fingerprint, user_id, is_live, status, headers, body in rows:
        return (
            StoredResponse(fingerprint, user_id, Answer(status, headers, body)) if is_live else None
        )
    return None
