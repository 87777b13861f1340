"""The purge, called as the command does, and people with something for it to delete."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from app.db import references, retention
from app.db.engine import Database
from app.models import Base
from app.models.base import INCLUDE_DELETED, utc_now
from app.models.idempotency_keys import IdempotencyKey
from app.models.one_time_tokens import OneTimeToken
from app.models.outbox import Mail
from app.models.posts import Post
from app.models.refresh_tokens import RefreshToken
from app.models.sessions import LoginSession
from app.models.tags import PostTag
from app.models.users import User, UserRole
from app.tasks import retention as purging
from tests.support.client import Client, Person
from tests.support.create_requests import send

EVERYTHING: dict[str, Any] = {INCLUDE_DELETED: True, "synchronize_session": False}
LONG_AGO = utc_now() - timedelta(days=400)
LIMIT = utc_now() - timedelta(days=30)
OWNED = (Mail, LoginSession, OneTimeToken, IdempotencyKey, UserRole)


def other_trash() -> list[str]:
    """Return the tables with a trash besides those that the tests fill."""
    tables = [model.__tablename__ for model in references.models_with_trash()]
    assert {"posts", "roles", "users"} <= {*tables}
    return [name for name in tables if name not in {"posts", "roles", "users"}]


def without_other_trash(output: str) -> str:
    """Return what the command prints, without the zeros of those tables."""
    counts, rest = output.split(" purged.\n", 1)
    zeros = {f"0 {name}" for name in other_trash()}
    kept = [each for each in counts.split(", ") if each not in zeros]
    return f"{', '.join(kept)} purged.\n{rest}"


async def empty(database: Database, *, before: datetime) -> dict[str, int]:
    """Delete what went into the trash, or expired, before a date and time; how many, by name."""
    done = await purging.delete_expired(database, retention.trash_rules(), retention.Limits(before))
    assert not done.failures, done.failures
    return dict(done.counts)


async def bury(database: Database, *, users: bool = True, posts: bool = True) -> None:
    """Let all that is in the trash have lain there for long."""
    async with database.begin() as session:
        for model in [User] * users + [Post] * posts:
            old = update(model).where(model.deleted_at.is_not(None)).values(deleted_at=LONG_AGO)
            await session.execute(old, execution_options=EVERYTHING)


async def count(database: Database, model: type[Base], *conditions: Any) -> int:
    async with database.begin(readonly=True) as session:
        counted = select(func.count()).select_from(model).where(*conditions)
        return int(await session.scalar(counted, execution_options=EVERYTHING) or 0)


async def belongings(database: Database, person: Person) -> dict[str, int]:
    """Return how many rows of each table belong to the person, live or in the trash."""
    own: list[tuple[Any, Any]] = [(Post, Post.author_id)] + [(each, each.user_id) for each in OWNED]
    found = {
        model.__tablename__: await count(database, model, column == person.id)
        for model, column in own
    }
    tagged = PostTag.post_id.in_(select(Post.id).where(Post.author_id == person.id))
    sessions = select(LoginSession.id).where(LoginSession.user_id == person.id)
    return found | {
        "post_tags": await count(database, PostTag, tagged),
        "refresh_tokens": await count(
            database, RefreshToken, RefreshToken.session_id.in_(sessions)
        ),
    }


async def busy(client: Client, name: str) -> Person:
    """Create a user with a row in every table, and a post that is in the trash."""
    person = await client.user(name)
    for number in range(3):
        await person.write(tags=[f"{name}-{number}".lower(), "shared"])
    body = {"title": "Shared", "content": "", "tags": ["shared"]}
    kept = await send(person, "/posts", body, f"key-{name}")
    await person.delete(f"/posts/{(await person.write(tags=['shared']))['id']}")
    assert kept.status_code == 201
    return person


def in_small_batches(patch: pytest.MonkeyPatch) -> None:
    """Everything takes several looks and several batches."""
    patch.setattr(purging, "MAX_BATCH", 2)
    patch.setattr(references, "FEW", 1)
    patch.setattr(retention, "LOOK", 3)
    patch.setattr(retention, "TAGS_LOOK", 3)
