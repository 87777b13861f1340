"""Pages of listings, and rows to list; `every_listing.py` has all listings of the API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from sqlalchemy import insert, select, update

from app.models.audit_events import AuditAct, AuditEvent
from app.models.base import TimestampedModel, utc_now
from app.models.outbox import Mail, MailKind
from app.models.posts import Post
from app.models.roles import Role, RolePermission
from app.models.sessions import LoginSession
from app.models.tags import PostTag, Tag
from app.models.users import User, UserRole, email_key
from tests.support.client import Client, Person


async def page(person: Client, path: str, **params: Any) -> dict[str, Any]:
    """One page of a listing, which must be there."""
    response = await person.get(path, params=params)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def walk(person: Client, path: str, **params: Any) -> AsyncIterator[list[Any]]:
    """The items of every page, from the first to the last by cursor alone."""
    found = await page(person, path, **params)
    yield found["items"]
    while found["next_cursor"]:
        params["cursor"] = found["next_cursor"]
        found = await page(person, path, **params)
        yield found["items"]


async def fill(person: Person, number: int, *, prefix: str = "Row") -> None:
    """So many rows in the listings of users, roles, posts, tags, sessions, mails and events.

    Written past the API, as hundreds of requests would take long.
    """
    async with person.database.begin() as session:
        role_id = (await session.scalars(select(Role.id).where(Role.name == "user"))).one()
        users = [
            {"email": f"{prefix}{n}@x.org", "email_key": email_key(f"{prefix}{n}@x.org")}
            | {"name": f"{prefix} {n}"}
            for n in range(number)
        ]
        user_ids = list(await session.scalars(insert(User).returning(User.id), users))
        member = [{"user_id": user_id, "role_id": role_id} for user_id in user_ids]
        await session.execute(insert(UserRole), member)
        roles = [{"name": f"{prefix} {n}".lower()} for n in range(number)]
        role_ids = list(await session.scalars(insert(Role).returning(Role.id), roles))
        grants = [{"role_id": each, "permission": "users:read"} for each in role_ids]
        await session.execute(insert(RolePermission), grants)
        theirs = [{"user_id": person.id, "role_id": each} for each in role_ids]
        await session.execute(insert(UserRole), theirs)
        posts = [
            {"author_id": person.id, "title": f"{prefix} {n}", "content": "-"}
            | {"status": "published", "published_at": utc_now()}
            for n in range(number)
        ]
        post_ids = list(await session.scalars(insert(Post).returning(Post.id), posts))
        tag_rows = [{"name": f"{prefix} {n}".lower(), "post_count": 1} for n in range(number)]
        tag_ids = list(await session.scalars(insert(Tag).returning(Tag.id), tag_rows))
        links = [
            {"post_id": post_id, "tag_id": tag_id}
            for post_id, tag_id in zip(post_ids, tag_ids, strict=True)
        ]
        await session.execute(insert(PostTag), links)
        mails = [
            {"kind": MailKind.welcome, "user_id": user_id, "recipient": "x@x.org", "locale": "en"}
            | {"values": {"name": "x"}}
            for user_id in user_ids
        ]
        await session.execute(insert(Mail), mails)
        now = utc_now()
        logins = [
            {"user_id": person.id, "last_used_at": now, "expires_at": now + timedelta(days=1)}
            for _ in range(number)
        ]
        await session.execute(insert(LoginSession), logins)
        events = [
            {"act": AuditAct.user_registered, "actor_id": each, "details": {"n": each}}
            for each in user_ids
        ]
        await session.execute(insert(AuditEvent), events)


async def make_ties(person: Person, *others: type[TimestampedModel]) -> None:
    """Give rows of the tables that `fill` fills, and of others, the same moments, three by three,
    the ids out of order."""
    start = utc_now() - timedelta(days=1)
    models: list[type[TimestampedModel]] = [User, Role, Post, Mail, LoginSession, *others]
    async with person.database.begin() as session:
        for model in models:
            ids = list(await session.scalars(select(model.id).order_by(model.id)))
            for position, row_id in enumerate(ids):
                moment = start - timedelta(seconds=position // 3, microseconds=position // 6)
                changed = {"created_at": moment, "updated_at": moment}
                if model is LoginSession:
                    changed["last_used_at"] = moment
                await session.execute(update(model).where(model.id == row_id).values(changed))
        # Past the ORM, which changes no event.
        events: Any = AuditEvent.__table__
        for position, row_id in enumerate(await session.scalars(select(AuditEvent.id))):
            moment = start - timedelta(seconds=position // 3, microseconds=position // 6)
            changed_event = update(events).where(events.c.id == row_id)
            await session.execute(changed_event.values(created_at=moment))


async def titles(client: Client, path: str, name: str, **params: Any) -> list[str]:
    found, cursor = [], ""
    while True:
        given = params | ({"cursor": cursor} if cursor else {})
        answer = await client.get(path, params={"page_size": 100, **given})
        assert answer.status_code == 200, answer.text
        found += [item[name] for item in answer.json()["items"]]
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            return found
