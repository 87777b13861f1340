"""The data set: the same people and posts everywhere, computed from their numbers.

Nothing is drawn at random, so what an answer has to hold is known without looking it up.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, insert, select, text

from app.core.keyring import SecretKeys
from app.core.permissions import ADMIN_ROLE, USER_ROLE, Permission
from app.core.security import AccessTokens, Passwords
from app.core.words import index_words
from app.models.base import Base
from app.models.posts import Post, PostStatus
from app.models.roles import Role, RolePermission
from app.models.search import PostSearch, UserSearch
from app.models.sessions import LoginSession
from app.models.tags import PostTag, Tag
from app.models.users import User, UserRole, email_key

PASSWORD = "Correct-Horse-7"  # noqa: S105  of people who exist in a benchmark only
SECRET = "benchmarks-0123456789abcdefghijklmnopqrstuv"  # noqa: S105  likewise
EDITOR_ROLE = "editor"
ADMIN_ID = 1
CALLER_ID = 2
LOGINS = 1_000
CONTENT_LENGTH = 240
_TAGS = 30
_BATCH = 5_000
_BEGINNING = datetime(2024, 1, 1, tzinfo=UTC)
_STEP = timedelta(seconds=10)
# A prime: neighbouring posts have authors far apart.
_SCATTER = 7919
_FIRST = ("Ana", "Luis", "María", "José", "Lucía", "Pablo", "Sofía", "Emma", "Noah", "Olivia")
_LAST = ("García", "López", "Pérez", "Sánchez", "Romero", "Smith", "Brown", "Taylor", "Wilson")
_PROSE = (
    "It began with a small idea and a free afternoon. Todo empezó con una idea pequeña y una "
    "tarde libre. The first attempt failed, as first attempts do; I took notes, mostly of what "
    "not to do again. Si lo pruebas, empieza por algo más pequeño de lo que crees. "
)


@dataclass(frozen=True)
class DataSet:
    """So many users and published posts; ids count from 1, posts are a step of time apart."""

    users: int = 1_000
    posts: int = 10_000

    @property
    def logins(self) -> int:
        """How many of the users are logged in; the session's id is the user's."""
        return min(self.users, LOGINS)

    def email(self, user_id: int) -> str:
        return f"user{user_id}@example.com"

    def name(self, user_id: int) -> str:
        return f"{_FIRST[user_id % len(_FIRST)]} {_LAST[user_id % len(_LAST)]} {user_id}"

    def roles(self, user_id: int) -> list[str]:
        """The names of a user's roles, in order: everybody is a user, a tenth are editors."""
        is_editor = user_id % 10 == 0
        roles = {ADMIN_ROLE: user_id == ADMIN_ID, EDITOR_ROLE: is_editor, USER_ROLE: True}
        return [name for name, held in roles.items() if held]

    def author(self, post_id: int) -> int:
        return post_id * _SCATTER % self.users + 1

    def title(self, post_id: int) -> str:
        return f"Notes on the number {post_id}"

    def content(self, post_id: int) -> str:
        start = post_id % len(_PROSE)
        return f"{post_id}: {_PROSE[start:]}{_PROSE}"[:CONTENT_LENGTH]

    def tags(self, post_id: int) -> list[int]:
        """The ids of a post's tags: one to three on every third post."""
        if post_id % 3:
            return []
        return sorted({(post_id * step) % _TAGS + 1 for step in range(1, post_id // 3 % 3 + 2)})

    def created_at(self, number: int) -> datetime:
        return _BEGINNING + number * _STEP

    def shown(self, post_id: int) -> dict[str, Any]:
        """What the API has to show of a post."""
        moment = self.created_at(post_id).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        author_id = self.author(post_id)
        return {
            "id": post_id,
            "title": self.title(post_id),
            "content": self.content(post_id),
            "status": PostStatus.published.value,
            "tags": sorted(map(tag_name, self.tags(post_id))),
            "author": {"id": author_id, "name": self.name(author_id)},
            "created_at": moment,
            "published_at": moment,
        }

    def tokens(self) -> list[str]:
        """An access token for each login, of the user with the id 1, 2, …"""
        issuer = AccessTokens(SecretKeys([SECRET]), minutes=24 * 60)
        ids = range(1, self.logins + 1)
        return [issuer.issue(user_id=number, session_id=number) for number in ids]


def tag_name(tag_id: int) -> str:
    return f"tag-{tag_id:02}"


def fill(engine: Engine, data: DataSet) -> None:
    """Put the data set into a database that has nothing but its tables and its two roles."""
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA cache_size=-200000")
        roles = _add_roles(connection)
        password_hash = asyncio.run(Passwords().hash(PASSWORD))
        ids = range(1, data.users + 1)
        _add(connection, User, ids, lambda number: [_user(data, number, password_hash)])
        _add(connection, UserRole, ids, lambda number: _held(data, number, roles))
        _add(connection, LoginSession, range(1, data.logins + 1), lambda number: [_login(number)])
        posts = range(1, data.posts + 1)
        used = Counter(tag_id for number in posts for tag_id in data.tags(number))
        _add(connection, Tag, range(1, _TAGS + 1), lambda number: [_tag(number, used[number])])
        _add(connection, Post, posts, lambda number: [_post(data, number)])
        _add(connection, PostTag, posts, lambda number: _links_to_tags(data, number))
        _add(connection, UserSearch, ids, lambda number: [_words_of_user(data, number)])
        _add(connection, PostSearch, posts, lambda number: [_words_of_post(data, number)])
    _settle(engine)


def _add(
    connection: Connection,
    model: type[Base],
    numbers: range,
    rows: Callable[[int], list[dict[str, Any]]],
) -> None:
    for part in _parts(numbers):
        batch = [row for number in part for row in rows(number)]
        if batch:
            connection.execute(insert(model), batch)


def _parts(numbers: range) -> Iterator[range]:
    for start in range(0, len(numbers), _BATCH):
        yield numbers[start : start + _BATCH]


def _add_roles(connection: Connection) -> dict[str, int]:
    """The third role, and the ids of all by their names."""
    connection.execute(insert(Role), [{"name": EDITOR_ROLE, "description": "Keeps order."}])
    roles = {role.name: role.id for role in connection.execute(select(Role.id, Role.name))}
    granted = {"role_id": roles[EDITOR_ROLE], "permission": Permission.posts_moderate}
    connection.execute(insert(RolePermission), [granted])
    return roles


def _user(data: DataSet, number: int, password_hash: str) -> dict[str, Any]:
    moment = data.created_at(number)
    return {
        "id": number,
        "email": data.email(number),
        "email_key": email_key(data.email(number)),
        "name": data.name(number),
        "locale": "en",
        "password_hash": password_hash,
        "created_at": moment,
        "updated_at": moment,
    }


def _held(data: DataSet, number: int, roles: dict[str, int]) -> list[dict[str, Any]]:
    return [{"user_id": number, "role_id": roles[name]} for name in data.roles(number)]


def _login(number: int) -> dict[str, Any]:
    now = datetime.now(UTC)
    expires = now + timedelta(days=30)
    return {"id": number, "user_id": number, "last_used_at": now, "expires_at": expires}


def _post(data: DataSet, number: int) -> dict[str, Any]:
    moment = data.created_at(number)
    return {
        "id": number,
        "author_id": data.author(number),
        "title": data.title(number),
        "content": data.content(number),
        "status": PostStatus.published.value,
        "published_at": moment,
        "created_at": moment,
        "updated_at": moment,
    }


def _tag(number: int, post_count: int) -> dict[str, Any]:
    return {"id": number, "name": tag_name(number), "post_count": post_count}


def _words_of_user(data: DataSet, number: int) -> dict[str, Any]:
    return {"id": number, "words": index_words(data.name(number), data.email(number))}


def _words_of_post(data: DataSet, number: int) -> dict[str, Any]:
    return {"id": number, "words": index_words(data.title(number), data.content(number))}


def _links_to_tags(data: DataSet, number: int) -> list[dict[str, Any]]:
    return [{"post_id": number, "tag_id": tag_id} for tag_id in data.tags(number)]


def _settle(engine: Engine) -> None:
    """What the servers would do by themselves in a minute or two: statistics, and on PostgreSQL
    sequences that start behind the ids given here."""
    tables = [model.__tablename__ for model in (User, LoginSession, Tag, Post, PostTag, UserRole)]
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        if engine.dialect.name == "postgresql":
            for table in ("users", "sessions", "tags", "posts"):
                connection.execute(text(_NEXT_ID.format(table=table)))
            connection.execute(text("VACUUM ANALYZE"))
        elif engine.dialect.name == "mysql":
            connection.execute(text(f"ANALYZE TABLE {', '.join(tables)}")).all()


_NEXT_ID = "SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT max(id) FROM {table}))"
