"""The works that are measured: what is sent, and what has to come back."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any
from urllib.parse import urlencode

from app.core.permissions import Permission
from app.models.base import TimestampedModel
from app.models.posts import Post
from app.models.sessions import LoginSession
from benchmarks.dataset import ADMIN_ID, CALLER_ID, CONTENT_LENGTH, PASSWORD, tag_name
from benchmarks.load import Request
from benchmarks.targets import API, PAGE_SIZE, Target, expect

_FORM = "application/x-www-form-urlencoded"
_NEW_POST = {"title": "A post of the benchmark", "content": "x" * CONTENT_LENGTH}
# As many different posts as are asked for, at most: they are kept in one file.
_SPREAD = 10_000
_LOOKS = 3
_TAG_ID = 7


@dataclass(frozen=True)
class Work:
    """Something people do with the API.

    `requests` is what the load sends in turn; `check` asks once more, and compares the answers
    with the data set; `grows` is the table that gets a row by each answer.
    """

    name: str
    title: str
    requests: Callable[[Target], list[Request]]
    check: Callable[[Target], None]
    grows: type[TimestampedModel] | None = None


def _tokens(target: Target, many: bool) -> Sequence[str]:
    return target.tokens if many else [target.token]


def _some_tokens(target: Target, many: bool) -> Sequence[str]:
    tokens = _tokens(target, many)
    return tokens[:: max(1, len(tokens) // _LOOKS)]


# --- Reading ---------------------------------------------------------------------------------


def _posts(target: Target, *, many: bool = False) -> list[Request]:
    tokens, total = _tokens(target, many), target.data.posts
    ids = random.Random(7).sample(range(1, total + 1), min(total, _SPREAD))  # noqa: S311  no secret
    return [
        Request(f"{API}/posts/{post_id}", tokens[place % len(tokens)])
        for place, post_id in enumerate(ids)
    ]


def _check_posts(target: Target, *, many: bool = False) -> None:
    asked = _posts(target, many=many)
    for request in asked[:: max(1, len(asked) // _LOOKS)]:
        body = target.ask(request)
        _expect_post(target, body, int(request.path.rpartition("/")[2]))


def _expect_post(target: Target, body: dict[str, Any], post_id: int) -> None:
    wanted = target.data.shown(post_id)
    expect({name: body[name] for name in wanted}, wanted, f"post {post_id}")


def _page(target: Target, *, number: int, many: bool = False) -> list[Request]:
    place = f"page={number}&" if number > 1 else ""
    path = f"{API}/posts?{place}page_size={PAGE_SIZE}"
    return [Request(path, token) for token in _tokens(target, many)]


def _first_page(target: Target, *, many: bool = False) -> list[Request]:
    return _page(target, number=1, many=many)


def _far_page(target: Target) -> list[Request]:
    return _page(target, number=target.far_page)


def _behind_cursor(target: Target) -> list[Request]:
    path = f"{API}/posts?cursor={target.far_cursor()}&page_size={PAGE_SIZE}"
    return [Request(path, target.token)]


def _check_first_page(target: Target, *, many: bool = False) -> None:
    for token in _some_tokens(target, many):
        body = target.ask(Request(_first_page(target)[0].path, token))
        _expect_page(target, body, number=1, total=target.data.posts)


def _check_far_page(target: Target) -> None:
    body = target.ask(_far_page(target)[0])
    _expect_page(target, body, number=target.far_page, total=target.data.posts)


def _check_cursor(target: Target) -> None:
    body = target.ask(_behind_cursor(target)[0])
    _expect_page(target, body, number=target.far_page, total=None)


def _expect_page(target: Target, body: dict[str, Any], *, number: int, total: int | None) -> None:
    """The newest posts come first, so a page's ids follow from its number."""
    first = target.data.posts - (number - 1) * PAGE_SIZE
    wanted = range(first, max(0, first - PAGE_SIZE), -1)
    expect(body["total"], total, f"total of page {number}")
    expect(len(body["items"]), len(wanted), f"length of page {number}")
    for item, post_id in zip(body["items"], wanted, strict=True):
        _expect_post(target, item, post_id)


def _tagged(target: Target) -> list[Request]:
    path = f"{API}/posts?tag={tag_name(_TAG_ID)}&page_size={PAGE_SIZE}"
    return [Request(path, target.token)]


def _check_tagged(target: Target) -> None:
    body = target.ask(_tagged(target)[0])
    newest = range(target.data.posts, 0, -1)
    wanted = islice((each for each in newest if _TAG_ID in target.data.tags(each)), PAGE_SIZE)
    expect([item["id"] for item in body["items"]], list(wanted), "posts with a tag")


def _users(target: Target) -> list[Request]:
    return [Request(f"{API}/users?page_size={PAGE_SIZE}", target.tokens[ADMIN_ID - 1])]


def _check_users(target: Target) -> None:
    body = target.ask(_users(target)[0])
    newest = [*range(target.data.users, 0, -1)][:PAGE_SIZE]
    expect([item["id"] for item in body["items"]], newest, "newest users")
    expect(body["total"], target.data.users, "total of users")


def _me(target: Target, *, many: bool = False) -> list[Request]:
    return [Request(f"{API}/users/me", token) for token in _tokens(target, many)]


def _check_me(target: Target, *, many: bool = False) -> None:
    for token in _some_tokens(target, many):
        _expect_person(target, token, target.tokens.index(token) + 1)


def _expect_person(target: Target, token: str, user_id: int) -> None:
    body = target.ask(Request(f"{API}/users/me", token))
    expect(body["id"], user_id, "id of me")
    expect(body["email"], target.data.email(user_id), f"address of user {user_id}")
    expect(body["name"], target.data.name(user_id), f"name of user {user_id}")
    roles = sorted(role["name"] for role in body["roles"])
    expect(roles, target.data.roles(user_id), f"roles of user {user_id}")
    expect(Permission.posts_write in body["permissions"], True, "whether everybody may write")


# --- Writing ---------------------------------------------------------------------------------


def _creations(target: Target) -> list[Request]:
    return [Request(f"{API}/posts", target.token, json.dumps(_NEW_POST))]


def _check_creation(target: Target) -> None:
    body = target.ask(_creations(target)[0], status=201)
    expect(target.written(body["id"]), {"author_id": CALLER_ID, **_NEW_POST}, "row of a new post")
    shown = target.ask(Request(f"{API}/posts/{body['id']}", target.token))
    expect(shown["content"], _NEW_POST["content"], "content of a new post")
    page = target.ask(_first_page(target)[0])
    expect(page["items"][0]["id"], body["id"], "first post of the listing")
    expect(page["total"], target.count(Post), "total with the new posts")


def _logins(target: Target) -> list[Request]:
    forms = (
        urlencode({"username": target.data.email(user_id), "password": PASSWORD})
        for user_id in range(1, target.data.logins + 1)
    )
    return [Request(f"{API}/auth/login", body=form, content_type=_FORM) for form in forms]


def _check_login(target: Target) -> None:
    body = target.ask(_logins(target)[CALLER_ID - 1])
    _expect_person(target, body["access_token"], CALLER_ID)


# --- All of them -----------------------------------------------------------------------------

_ALL = (
    Work("post", "one post by id, with its author", _posts, _check_posts),
    Work("page", "20 posts with authors and total", _first_page, _check_first_page),
    Work("me", "one's own account", _me, _check_me),
    Work("page450", "page 450, by number", _far_page, _check_far_page),
    Work("cursor", "page 450, by cursor", _behind_cursor, _check_cursor),
    Work("tagged", "20 posts with a tag, with total", _tagged, _check_tagged),
    Work("users", "20 users with their roles and total", _users, _check_users),
    Work(
        "post1000",
        "post, 1,000 callers in turn",
        partial(_posts, many=True),
        partial(_check_posts, many=True),
    ),
    Work(
        "page1000",
        "page, 1,000 callers in turn",
        partial(_first_page, many=True),
        partial(_check_first_page, many=True),
    ),
    Work(
        "me1000",
        "me, 1,000 callers in turn",
        partial(_me, many=True),
        partial(_check_me, many=True),
    ),
    Work("create", "a new post of 240 characters", _creations, _check_creation, Post),
    Work("login", "a login", _logins, _check_login, LoginSession),
)
# What writes comes last: what reads finds the data set as it was built.
WORKS = {work.name: work for work in _ALL}
