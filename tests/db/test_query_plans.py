"""The cost of each page among 200,000 posts: every listing, filter and order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest

from app.core.keyring import SecretKeys
from app.core.permissions import Caller, Permission
from app.crud import audit_events, outbox, post_listing, roles, sessions, user_queries
from app.db.cursors import CursorSigner
from app.db.pagination import PageResult, Paginator
from app.schemas.audit_events import AuditQuery
from app.schemas.outbox import MailQuery
from app.schemas.pages import PageQuery
from app.schemas.posts import PostQuery
from app.schemas.roles import RoleQuery
from app.schemas.sessions import SessionQuery
from app.schemas.users import MemberQuery, UserQuery
from benchmarks.volume import BUSY_AUTHOR, Volume, fill_by_sql
from tests.conftest import SECRET, migrate
from tests.support.plans import MeasuringReader, Work
from tests.support.schema import empty_database, on

pytestmark = pytest.mark.long
VOLUME = Volume(posts=200_000, users=20_000, events=100_000, mails=20_000)
DEEP = 400
HALFWAY = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=VOLUME.posts * 5)
DAY = {"created_from": HALFWAY, "created_to": HALFWAY + timedelta(days=1)}
USER_ID = 5


@dataclass(frozen=True)
class ListingCase:
    """A listing, and the filters it is asked with."""

    find: Callable[[Paginator, Any], Awaitable[PageResult[Any]]]
    query: type[PageQuery]
    filters: tuple[dict[str, Any], ...] = ({},)


def caller(*permissions: Permission, user_id: int = USER_ID) -> Caller:
    return Caller(user_id, 1, frozenset(permissions))


def posts_of(who: Caller | None, *filters: dict[str, Any]) -> ListingCase:
    return ListingCase(
        lambda pages, query: post_listing.list_posts(
            pages, caller=who, query=query, author_id=query.author_id
        ),
        PostQuery,
        filters,
    )


def members_of(role_id: int) -> ListingCase:
    who = caller(Permission.users_read)
    return ListingCase(
        lambda pages, query: user_queries.list_members(
            pages, caller=who, role_id=role_id, query=query
        ),
        MemberQuery,
    )


POSTS: tuple[dict[str, Any], ...] = (
    {},
    *({"status": status} for status in ("draft", "published")),
    *({"tag": f"tag-0{number}"} for number in (1, 2, 3)),
    {"created_from": HALFWAY},
    {"created_to": HALFWAY},
    DAY,
    *({"author_id": author_id} for author_id in (USER_ID, BUSY_AUTHOR)),
    {"status": "draft", "author_id": BUSY_AUTHOR},
    {"status": "published", "tag": "tag-01"},
)
TRASH = tuple({**filters, "deleted": True} for filters in POSTS)
ROLES = ("user", "editor", "rare", "admin")
USERS: tuple[dict[str, Any], ...] = (
    {},
    *({"is_active": is_active} for is_active in (True, False)),
    *({"role": role} for role in ROLES),
    {"role": "user", "is_active": False},
)
LISTINGS = {
    "posts": posts_of(None, *POSTS),
    "posts of a member": posts_of(caller(), *POSTS),
    "posts of a moderator": posts_of(caller(Permission.posts_moderate), *POSTS),
    "own trash": posts_of(caller(user_id=BUSY_AUTHOR), *TRASH),
    "whole trash": posts_of(caller(Permission.posts_moderate), *TRASH),
    "users": ListingCase(
        lambda pages, query: user_queries.list_users(pages, query=query), UserQuery, USERS
    ),
    "deleted users": ListingCase(
        lambda pages, query: user_queries.list_users(pages, query=query),
        UserQuery,
        tuple({**filters, "deleted": True} for filters in USERS),
    ),
    **{f"members of role {role_id}": members_of(role_id) for role_id in (2, 3, 4)},
    "roles of a user": ListingCase(
        lambda pages, query: roles.list_of_user(pages, user_id=USER_ID, query=query), RoleQuery
    ),
    "roles": ListingCase(lambda pages, query: roles.list_roles(pages, query=query), RoleQuery),
    "sessions": ListingCase(
        lambda pages, query: sessions.list_own(
            pages, caller=caller(user_id=BUSY_AUTHOR), query=query
        ),
        SessionQuery,
    ),
    "audit events": ListingCase(
        lambda pages, query: audit_events.list_events(pages, query=query),
        AuditQuery,
        (
            {},
            *({"act": act} for act in ("login.succeeded", "role.granted", "user.deleted")),
            {"actor_id": USER_ID},
            *({"subject_type": kind} for kind in ("user", "role")),
            *({"subject_id": subject_id} for subject_id in (1, USER_ID, 10**9)),
            {"subject_type": "user", "subject_id": USER_ID},
            {"created_from": HALFWAY},
            {"created_to": HALFWAY},
            DAY,
            {"act": "login.succeeded", "actor_id": USER_ID},
            {"act": "login.succeeded", "created_to": HALFWAY},
            {"subject_type": "user", "created_from": HALFWAY},
        ),
    ),
    "mails": ListingCase(
        lambda pages, query: outbox.list_mails(pages, query=query),
        MailQuery,
        (
            {},
            *({"state": state} for state in ("sent", "dead", "pending", "sending")),
            *({"kind": kind} for kind in ("welcome", "email_changed", "invitation")),
            {"state": "sent", "kind": "welcome"},
            {"state": "dead", "kind": "email_changed"},
        ),
    ),
}


@pytest.fixture(scope="module")
def reader(
    database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MeasuringReader]:
    """Looks at a database of its own with all these rows."""
    folder = tmp_path_factory.mktemp("plans")
    with empty_database(database_url, folder) as url:
        migrate(url, folder)
        engine = on(url)
        fill_by_sql(engine, VOLUME)
        with engine.connect() as connection:
            yield MeasuringReader(connection)
        engine.dispose()


# A page is read from an index in its order, and what does not match is passed over: seven rows in a
# hundred of the table at most, but for those that a page by its number skips.
SHORT, LONG = Work(14_000, 100), Work(100_000, 100)
WHOLE = Work(240_000, 100)


@dataclass(frozen=True)
class Exempt:
    """Where it cannot be so, why, and how much it may be."""

    why: str
    holds: Callable[[str, dict[str, Any], str], bool]
    allowed: Work
    far: Work | None = None


EXCEPTIONS = (
    Exempt(
        "the ids of few that have a tag or a role are found and sorted: as many as"
        " `app/db/selective_filters.py` calls few, which is more for a page far behind",
        lambda name, filters, _: (
            not filters.keys().isdisjoint({"tag", "role"}) or name.startswith("members")
        ),
        Work(25_000, 15_000),
        far=Work(240_000, 240_000),
    ),
    Exempt(
        "drafts have no moment of publication and come first: they are passed over in the index, or"
        " what is published is",
        lambda name, _, sort: name.startswith("posts") and sort.endswith("published_at"),
        WHOLE,
    ),
    Exempt(
        "an index has one order: by another, what was created in a time is passed over for, or"
        " sorted if it is little",
        lambda _, filters, sort: (
            not filters.keys().isdisjoint(DAY) and not sort.endswith("created_at")
        ),
        Work(120_000, 20_000),
    ),
    Exempt(
        "an author's posts by anything but created_at are sorted, or passed over for",
        lambda _, filters, __: "author_id" in filters,
        Work(240_000, 30_000),
    ),
    Exempt(
        "the trash, which is emptied, is sorted, or passed over for: it has no indexes of its own,"
        " which every new post would pay for",
        lambda name, *_: "trash" in name or name == "deleted users",
        Work(240_000, 20_000),
    ),
    Exempt(
        "nearly nobody is inactive: the page goes on to the end of the index",
        lambda _, filters, __: filters.get("is_active") is False,
        Work(40_000, 1_000),
    ),
    Exempt(
        "how many users have each role is shown, and counted",
        lambda name, *_: name.startswith("roles"),
        Work(200_000, 50_000),
    ),
    Exempt(
        "one user's sessions are sorted",
        lambda name, *_: name == "sessions",
        Work(5_000, 5_000),
    ),
)


def limit(name: str, filters: dict[str, Any], sort: str, where: str) -> Work:
    """Return how much work a page may be: the most of what applies."""
    allowed = [
        each.far if each.far and where == "deep" else each.allowed
        for each in EXCEPTIONS
        if each.holds(name, filters, sort)
    ]
    usual = LONG if where == "deep" else SHORT
    return Work(
        max(work.read for work in [usual, *allowed]),
        max(work.ordered for work in [usual, *allowed]),
    )


async def works(
    reader: MeasuringReader, case: ListingCase, filters: dict[str, Any], sort: str
) -> dict[str, Work]:
    """What the first page takes, one further on, and the one behind that by cursor."""
    pages = Paginator(reader, CursorSigner(SecretKeys([SECRET])))
    given = {**filters, "sort": sort}
    found = {}

    async def page(name: str, **where: Any) -> PageResult[Any]:
        reader.work = Work()
        page = await case.find(pages, case.query(**given, **where))
        found[name] = reader.work
        return page

    first = await page("first")
    last = min(DEEP, first.total_pages or 1)
    deep = await page("deep", page=last) if last > 2 else first
    if deep.next_cursor:
        await page("cursor", cursor=deep.next_cursor)
    return found


@pytest.mark.parametrize("name", LISTINGS)
async def test_pages_are_found_without_looking_at_everything(
    reader: MeasuringReader, name: str
) -> None:
    case = LISTINGS[name]
    too_much = []
    for filters in case.filters:
        for sort in get_args(case.query.model_fields["sort"].annotation):
            for where, work in (await works(reader, case, filters, sort)).items():
                allowed = limit(name, filters, sort, where)
                if work.read > allowed.read or work.ordered > allowed.ordered:
                    too_much.append((filters, sort, where, work, allowed))
    assert not too_much
