"""What must be in the database, by what was answered; and what is there."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ForeignKeyConstraint, Select, Table, exists, func, select, text

from app.db.engine import Database
from app.models import Base
from app.models.base import INCLUDE_DELETED
from app.models.one_time_tokens import OneTimeToken
from app.models.outbox import Mail
from app.models.posts import Post
from app.models.roles import Role
from app.models.tags import PostTag, Tag
from app.models.users import User, UserRole

Fact = tuple[str, str]
Facts = dict[Fact, Any]


@dataclass
class Ledger:
    """`facts` were acknowledged; what `doubts` holds was asked for, and may be true instead.

    A fact is a value under a key that nobody else writes, like the state of one post.
    """

    facts: Facts = field(default_factory=dict)
    doubts: Facts = field(default_factory=dict)
    sent: int = 0
    acknowledged: int = 0

    def ask(self, key: Fact, value: object) -> None:
        """Note what a request is about to ask for."""
        self.sent += 1
        self.doubts[key] = value

    def acknowledge(self, key: Fact) -> None:
        """Note that it was answered that this is done."""
        self.acknowledged += 1
        self.facts[key] = self.doubts.pop(key)

    def refuse(self, key: Fact) -> None:
        """Note that it was not done, because nobody was there to do it."""
        del self.doubts[key]

    async def settle(self, database: Database) -> tuple[list[str], list[str]]:
        """Hold everything against the database: what is lost or halved, what is there twice or
        unasked. What was in doubt is known afterwards."""
        found, doubled = await _found(database)
        wrong = [
            f"{key}: {found.get(key)!r}, acknowledged {self.facts.get(key)!r}"
            + (f", asked for {self.doubts[key]!r}" if key in self.doubts else "")
            for key in self.facts.keys() | self.doubts.keys()
            if found.get(key) != self.facts.get(key)
            and (key not in self.doubts or found.get(key) != self.doubts[key])
        ]
        unasked = [str(key) for key in found.keys() - self.facts.keys() - self.doubts.keys()]
        for key in self.doubts:
            self.facts[key] = found.get(key)
        self.doubts.clear()
        return wrong + await half_rows(database), doubled + unasked


def marked(content: str) -> Fact:
    """The key of a post, whose content begins with a line of its own."""
    return ("post", content.partition("\n")[0])


async def _found(database: Database) -> tuple[Facts, list[str]]:
    facts: Facts = {}
    keys: Counter[Fact] = Counter()
    async for key, value in _rows(database):
        keys[key] += 1
        facts[key] = value
    return facts, [str(key) for key, count in keys.items() if count > 1]


async def _rows(database: Database) -> AsyncIterator[tuple[Fact, Any]]:
    async with database.begin(readonly=True) as session:
        tag_names = select(PostTag.post_id, Tag.name).join(Tag, Tag.id == PostTag.tag_id)
        tags = _grouped(await session.execute(tag_names))
        for post in await session.scalars(select(Post), execution_options={INCLUDE_DELETED: True}):
            named, deleted = tuple(sorted(tags[post.id])), post.deleted_at is not None
            words = (post.title, post.content, str(post.status))
            yield marked(post.content), (*words, named, post.version, deleted)
        held = select(UserRole.user_id, Role.name).join(Role, Role.id == UserRole.role_id)
        roles = _grouped(await session.execute(held))
        mails = _grouped(await session.execute(select(Mail.user_id, Mail.kind)))
        tokens = _grouped(await session.execute(select(OneTimeToken.user_id, OneTimeToken.purpose)))
        for user in await session.execute(select(User.id, User.email, User.name)):
            held_by = tuple(sorted(roles[user.id]))
            yield (
                ("user", user.email),
                (user.name, held_by, len(mails[user.id]), len(tokens[user.id])),
            )


def _grouped(rows: Iterable[Any]) -> defaultdict[int, list[str]]:
    found: defaultdict[int, list[str]] = defaultdict(list)
    for owner, value in rows:
        found[owner].append(value)
    return found


async def half_rows(database: Database) -> list[str]:
    """Rows that point at nothing, and what the database itself finds broken."""
    async with database.begin(readonly=True) as session:
        wrong = [
            f"{count} rows of {table.name} without {key.referred_table.name}"
            for table in Base.metadata.sorted_tables
            for key in table.foreign_key_constraints
            if (count := (await session.execute(_without_target(table, key))).scalar_one())
        ]
        if database.dialect == "sqlite":
            said = (await session.execute(text("PRAGMA integrity_check"))).scalars()
            wrong += [line for line in said if line != "ok"]
    return wrong


def _without_target(table: Table, key: ForeignKeyConstraint) -> Select[int]:
    other = key.referred_table.alias()
    pairs = [(element.parent, other.c[element.column.name]) for element in key.elements]
    target = exists().where(*[mine == theirs for mine, theirs in pairs])
    pointing = [mine.is_not(None) for mine, _ in pairs]
    return select(func.count()).select_from(table).where(*pointing, ~target)
