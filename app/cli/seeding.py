"""Demo data: users and posts that look like people's, in both languages."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.permissions import USER_ROLE
from app.crud import tags
from app.db import search_index
from app.db.engine import Database
from app.db.transactions import session_transaction
from app.models.base import utc_now
from app.models.posts import Post, PostStatus
from app.models.roles import Role
from app.models.tags import PostTag
from app.models.users import User, UserRole, email_key

BATCH = 500
DRAFTS = 0.1
SAMPLE = 5_000
_FIRST = ("Ana", "Luis", "María", "José", "Lucía", "Pablo", "Sofía", "Emma", "Noah", "Olivia")
_LAST = ("García", "López", "Pérez", "Sánchez", "Romero", "Smith", "Brown", "Taylor", "Wilson")
_SUBJECTS = (
    "A morning at the market",
    "Cómo hacer buen pan en casa",
    "Five books for the summer",
    "La ruta del acantilado",
    "Learning the guitar at forty",
    "Un huerto en el balcón",
    "What the tide leaves behind",
    "Recetas de mi abuela",
    "Notes on a long train ride",
    "Fotografiar la niebla",
)
_SENTENCES = (
    "It began with a small idea and a free afternoon.",
    "Todo empezó con una idea pequeña y una tarde libre.",
    "The first attempt failed, as first attempts do.",
    "El primer intento salió mal, como suele pasar.",
    "A neighbour lent me the right tool, and that changed everything.",
    "Una vecina me prestó la herramienta buena y eso lo cambió todo.",
    "I took notes, mostly of what not to do again.",
    "Apunté sobre todo lo que no hay que repetir.",
    "If you try it, start smaller than you think you should.",
    "Si lo pruebas, empieza por algo más pequeño de lo que crees.",
)
_TAGS = ("cocina", "travel", "books", "música", "garden", "photo", "family", "playa")


async def seed(
    database: Database, *, users: int, posts: int, progress: Callable[[int], None]
) -> None:
    """Add users and posts, some batches at a time; `progress` hears how many were added."""
    chance = random.Random(7)  # noqa: S311  the same demo everywhere, no secret
    for size in _batches(users):
        await database.run(partial(_add_users, size=size, chance=chance))
        progress(size)
    for size in _batches(posts):
        await database.run(partial(_add_posts, size=size, chance=chance))
        progress(size)
    await search_index.fill(database)


def _batches(total: int) -> list[int]:
    return [min(BATCH, total - done) for done in range(0, total, BATCH)]


async def _add_users(session: AsyncSession, size: int, chance: random.Random) -> None:
    first = (await session.scalar(select(func.max(User.id))) or 0) + 1
    rows = [_user(number, chance) for number in range(first, first + size)]
    user_ids = await session.scalars(insert(User).returning(User.id), rows)
    role_id = await session.scalar(select(Role.id).where(Role.name == USER_ROLE))
    links = [{"user_id": user_id, "role_id": role_id} for user_id in user_ids]
    await session.execute(insert(UserRole), links)


def _user(number: int, chance: random.Random) -> dict[str, Any]:
    email = f"demo{number}@example.com"
    return {
        "email": email,
        "email_key": email_key(email),
        "name": f"{chance.choice(_FIRST)} {chance.choice(_LAST)}",
        "locale": chance.choice(("en", "es")),
        "created_at": _some_time_ago(chance),
    }


async def _add_posts(session: AsyncSession, size: int, chance: random.Random) -> None:
    # Any demo user may have written any post; a sample keeps large seeds in memory's bounds.
    demo = select(User.id).where(User.live_email.like("demo%@example.com"))
    authors = list(await session.scalars(demo.order_by(User.id.desc()).limit(SAMPLE)))
    get = partial(tags.get_or_create, names=list(_TAGS), will_change_counts=True)
    tag_ids = await session_transaction(session, get)
    rows = [_post(chance.choice(authors), chance) for _ in range(size)]
    inserted = await session.execute(insert(Post).returning(Post.id, Post.status), rows)
    published: Counter[int] = Counter()
    links = []
    for post_id, status in inserted:
        links_of_post = _links_to_tags(post_id, tag_ids, chance)
        links += links_of_post
        if status == PostStatus.published:
            published.update(link["tag_id"] for link in links_of_post)
    await session.execute(insert(PostTag), links)
    await session_transaction(session, partial(tags.adjust_locked_counts, changes=published))


def _post(author_id: int, chance: random.Random) -> dict[str, Any]:
    written_at = _some_time_ago(chance)
    is_draft = chance.random() < DRAFTS
    return {
        "author_id": author_id,
        "title": chance.choice(_SUBJECTS),
        "content": " ".join(chance.choices(_SENTENCES, k=chance.randint(3, 12))),
        "status": PostStatus.draft if is_draft else PostStatus.published,
        "published_at": None if is_draft else written_at,
        "created_at": written_at,
        "updated_at": written_at,
    }


def _links_to_tags(post_id: int, tag_ids: list[int], chance: random.Random) -> list[dict[str, int]]:
    chosen = chance.sample(tag_ids, k=chance.randint(1, 3))
    return [{"post_id": post_id, "tag_id": tag_id} for tag_id in chosen]


def _some_time_ago(chance: random.Random) -> datetime:
    return utc_now() - timedelta(seconds=chance.uniform(0, 365 * 86_400))
