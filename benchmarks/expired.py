"""Rows that the purge has to delete, inserted by a few statements: millions of them in a minute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Integer,
    String,
    cast,
    column,
    func,
    insert,
    literal,
    select,
    table,
    text,
)

from app.models.audit_events import AuditAct, AuditEvent
from app.models.base import Base
from app.models.idempotency_keys import IdempotencyKey
from app.models.one_time_tokens import OneTimeToken, Purpose
from app.models.outbox import Mail, MailKind, MailState
from app.models.posts import Post, PostStatus
from app.models.refresh_tokens import RefreshToken
from app.models.roles import Role, RolePermission
from app.models.sessions import LoginSession
from app.models.tags import PostTag, Tag
from app.models.users import User, UserRole
from benchmarks.dataset import CONTENT_LENGTH

# Their ids begin behind everything that is alive.
FIRST = 100_000_000
LONG_AGO = datetime.now(UTC) - timedelta(days=400)
MODELS: tuple[type[Base], ...] = (
    *(User, Post, PostTag, Role, RolePermission, UserRole, LoginSession, RefreshToken),
    *(OneTimeToken, IdempotencyKey, Tag, Mail, AuditEvent),
)


def expire(engine: Engine, count: int) -> int:
    """Add so many rows of each kind that are due, and to each user some that go with them; return
    how many that are."""
    total = 0
    with _in_a_hurry(engine) as connection:
        for model, values in _kinds(count):
            total += _insert(connection, model, count, values)
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        names = ", ".join(model.__tablename__ for model in MODELS)
        by_dialect = {"mysql": f"ANALYZE TABLE {names}", "postgresql": f"VACUUM ANALYZE {names}"}
        statement = by_dialect.get(engine.dialect.name, "PRAGMA wal_checkpoint(TRUNCATE)")
        result = connection.execute(text(statement))
        if result.returns_rows:
            result.all()
    return total


@contextmanager
def _in_a_hurry(engine: Engine) -> Iterator[Connection]:
    """Open a connection that checks no keys, and does not wait for the disk."""
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        for statement in {
            "mysql": ("SET unique_checks=0", "SET foreign_key_checks=0", "SET sql_log_bin=0"),
            "sqlite": ("PRAGMA cache_size=-400000", "PRAGMA synchronous=OFF"),
        }.get(engine.dialect.name, ()):
            connection.execute(text(statement))
        yield connection


def _insert(connection: Connection, model: type[Base], count: int, values: dict[str, Any]) -> int:
    """Insert rows computed from the numbers 0 to `count` - 1, some ten thousands at once."""
    target: Any = model.__table__
    for start in range(0, count, 50_000):
        size = min(50_000, count - start)
        seq = _numbers(connection.dialect.name, size)
        number = seq.c.seq + literal(start - 1, Integer, literal_execute=True)
        parts = [part(number) if callable(part) else part for part in values.values()]
        rows = select(
            *(_plain(part, target.c[name]) for name, part in zip(values, parts, strict=True))
        )
        connection.execute(insert(target).from_select([*values], rows, include_defaults=False))
    return count


def _plain(part: Any, like: Any) -> ColumnElement[Any]:
    return part if isinstance(part, ColumnElement) else literal(part, like.type)


def _numbers(dialect: str, size: int) -> Any:
    """Something with a column `seq`: 1 to `size`."""
    if dialect == "mysql":
        return table(f"seq_1_to_{size}", column("seq", Integer))
    if dialect == "postgresql":
        series = func.generate_series(1, size).table_valued(column("seq", Integer))
        return series.render_derived()
    counted = select(literal(1, Integer).label("seq")).cte("counted", recursive=True)
    return counted.union_all(select(counted.c.seq + 1).where(counted.c.seq < size))


def _kinds(count: int) -> Iterator[tuple[type[Base], dict[str, Any]]]:
    """The rows of each table. Every user who goes has a post, a mail, a session, a refresh token,
    a link and a role; a hundredth of the posts and sessions are those of one user."""
    stamps = {"created_at": LONG_AGO, "updated_at": LONG_AGO}
    yield from _people(stamps)
    yield from _posts(stamps, count)
    yield from _logins(stamps, count)
    yield from _others(stamps, count)


def _people(stamps: dict[str, Any]) -> Iterator[tuple[type[Base], dict[str, Any]]]:
    address = _text("gone", "@example.com")
    dead = stamps | {"id": _id(0), "deleted_at": LONG_AGO, "guard": 0}
    who = {"email": address, "email_key": address, "name": "Gone", "locale": "en"}
    yield User, dead | who | {"is_active": True}
    yield Role, dead | {"name": _text("gone"), "description": ""}
    yield RolePermission, {"role_id": _id(0), "permission": "posts:write"}
    yield UserRole, {"user_id": _id(0), "role_id": 2}


def _posts(stamps: dict[str, Any], count: int) -> Iterator[tuple[type[Base], dict[str, Any]]]:
    post = stamps | {
        "title": _text("Gone "),
        "content": "x" * CONTENT_LENGTH,
        "status": PostStatus.draft.value,
        "version": 1,
        "deleted_at": LONG_AGO,
    }
    yield Post, post | {"id": _id(0), "author_id": _living(), "deleted_with_author": False}
    yield Post, post | {"id": _id(count), "author_id": _user(), "deleted_with_author": True}
    yield PostTag, {"post_id": _id(0), "tag_id": 1}
    yield Tag, {"id": _id(0), "name": _text("gone ")}


def _logins(stamps: dict[str, Any], count: int) -> Iterator[tuple[type[Base], dict[str, Any]]]:
    login = stamps | {"expires_at": LONG_AGO, "last_used_at": LONG_AGO, "ip": "::1", "guard": 0}
    token = stamps | {"used_at": LONG_AGO}
    yield LoginSession, login | {"id": _id(0), "user_id": _living(), "user_agent": ""}
    yield LoginSession, login | {"id": _id(count), "user_id": _user(), "user_agent": ""}
    # Of a session that goes on, and of one that goes.
    yield RefreshToken, token | {"id": _id(0), "session_id": _living(), "token_hash": _text("used")}
    owned = {"id": _id(count), "session_id": _id(count), "token_hash": _text("owned")}
    yield RefreshToken, token | owned
    link = stamps | {"purpose": Purpose.verify_email.value, "email": "", "expires_at": LONG_AGO}
    yield OneTimeToken, link | {"id": _id(0), "user_id": _living(), "token_hash": _text("old")}
    yield OneTimeToken, link | {"id": _id(count), "user_id": _id(0), "token_hash": _text("owned")}


def _others(stamps: dict[str, Any], count: int) -> Iterator[tuple[type[Base], dict[str, Any]]]:
    mail = stamps | {"kind": MailKind.welcome.value, "recipient": "a@example.com", "locale": "en"}
    mail |= {"values": {}, "attempts": 1, "next_attempt_at": LONG_AGO}
    mail |= {"state": MailState.sent.value}
    yield Mail, mail | {"id": _id(0), "key": _text("old")}
    yield Mail, mail | {"id": _id(count), "key": _text("owned"), "user_id": _id(0)}
    answer = {"status": 201, "headers": {}, "body": "x" * 500, "expires_at": LONG_AGO}
    yield (
        IdempotencyKey,
        answer | {"key_hash": _text("old"), "fingerprint": "x", "user_id": _living()},
    )
    event = {"id": _id(0), "created_at": LONG_AGO, "act": AuditAct.login_failed.value}
    yield (
        AuditEvent,
        event | {"actor_id": 2, "ip": "::1", "user_agent": "", "request_id": "", "details": {}},
    )


def _id(offset: int) -> Any:
    return lambda number: number + literal(FIRST + offset, Integer, literal_execute=True)


def _living() -> Any:
    """One of some hundred users who stay, and of their sessions."""
    return lambda number: 3 + number % 500


def _user() -> Any:
    """A user who goes; every hundredth row belongs to the first of them."""
    first = literal(FIRST, Integer, literal_execute=True)
    return lambda number: first + number * func.sign(number % 100)


def _text(before: str, after: str = "") -> Any:
    return lambda number: literal(before).concat(cast(number, String(20))).concat(literal(after))
