"""Rows behind the API, in the smallest table there is."""

from __future__ import annotations

from sqlalchemy import func, select

from app.db.engine import Database
from app.models.tags import Tag
from tests.support.concurrency import count


async def add_tag(database: Database, name: str) -> None:
    async with database.begin() as session:
        session.add(Tag(name=name))


async def number_of_tags(database: Database) -> int:
    return await count(database, select(func.count()).select_from(Tag))
