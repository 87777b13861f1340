"""Hidden rows cannot be inferred from errors, counts, filters, order or search."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from app.core.permissions import Permission
from app.db import totals
from tests.contract.resources import ENTRIES, HIDDEN, SCENARIOS
from tests.support.client import Client, Person
from tests.support.document import documented
from tests.support.matrix import MISSING_ID, Scenario, build, call, operation_of, snapshot
from tests.support.people import GRANTED_TO_USERS, new_user, user_with
from tests.support.sql import watched

pytestmark = pytest.mark.long


def _about(*ids: str) -> list[str]:
    """Return the operations that have one of these in their path."""
    return [
        name
        for name, (_, path, _) in documented().operations.items()
        if any(f"{{{each}}}" in path for each in ids)
    ]


def scopes_of(operation: dict[str, Any]) -> set[str]:
    """Return the permissions of which an operation asks for one."""
    return {name for each in operation["security"] for name in each.get("OAuth2", ())}


OF_WHAT_HIDES = _about(*(each for entry in ENTRIES if entry.hidden for each in entry.row_ids))
# What is asked by permission alone, and by one that the role `user` does not have: who a user is,
# say. Of a session nobody but its user learns anything (tests/auth/test_sessions.py).
OF_OTHER_ROWS = [
    name
    for name, (_, path, operation) in documented().operations.items()
    if "{" in path
    and name not in OF_WHAT_HIDES
    and (scopes := scopes_of(operation))
    and scopes.isdisjoint(GRANTED_TO_USERS)
]
Question = dict[str, Any]
SORTS = [
    f"{sign}{key}"
    for key in ("created_at", "updated_at", "published_at", "title")
    for sign in ("", "-")
]
QUESTIONS: list[Question] = [
    *({"sort": sort, "page_size": 2} for sort in SORTS),
    {"page": 3, "page_size": 1},
    *({"q": text} for text in ("secret", "needle", "title", "%")),
    *({"tag": tag} for tag in ("secret", "seen")),
    *({"status": status} for status in ("draft", "published")),
    {"created_from": "2020-01-01T00:00:00Z", "created_to": "2100-01-01T00:00:00Z"},
    {"deleted": True},
]
OF_AN_AUTHOR = QUESTIONS[-8:]
TAG_QUESTIONS: list[Question] = [
    *({"sort": sort, "page_size": 2} for sort in ("name", "-name", "post_count", "-post_count")),
    *({"q": text} for text in ("secret", "e", "unknown")),
]


# --- Rows that are not there for you ---------------------------------------------------------


def _comparable(response: httpx2.Response) -> tuple[int, Any, dict[str, str]]:
    """Return the parts of a response that do not depend on its request."""
    body = response.json()
    body.pop("instance")
    body.pop("request_id")
    ignored = {"x-request-id", "content-length"}
    headers = {name: text for name, text in response.headers.items() if name not in ignored}
    return response.status_code, body, headers


@pytest.mark.parametrize("hidden", HIDDEN)
async def test_hidden_posts_answer_like_missing_ones(client: Client, hidden: str) -> None:
    """A19: the same status and the same words, whatever is sent along; nothing changes."""
    world = await build(client)
    entry, target = HIDDEN[hidden], await SCENARIOS[hidden](world)
    before = await snapshot(client.database)
    for options in (
        {"json": entry.change},
        {"json": entry.invalid},
        {"json": entry.change, "headers": {"If-Match": '"999"'}},
    ):
        there = Scenario(target.owner, target.ids, options)
        missing = Scenario(target.owner, dict.fromkeys(target.ids, MISSING_ID), options)
        for operation in {*_about(*target.ids)} & {*map(operation_of, entry.cases)}:
            for actor in ("anonymous", "user", "stranger"):
                answer = _comparable(await world.act(actor, operation, there))
                assert answer == _comparable(await world.act(actor, operation, missing))
                assert actor != "user" or answer[0] == 404
    assert await snapshot(client.database) == before
    assert (await call(target.owner, hidden, target)).status_code == 200, "it is there"


async def test_rows_behind_a_permission_answer_like_missing_ones(client: Client) -> None:
    """A19: who lacks the permission learns nothing about ids."""
    world = await build(client)
    for operation in OF_OTHER_ROWS:
        there = await SCENARIOS[operation](world)
        missing = Scenario(there.owner, dict.fromkeys(there.ids, MISSING_ID), there.options)
        for actor, status in {"anonymous": 401, "user": 403, "moderator": 403}.items():
            answer = _comparable(await world.act(actor, operation, there))
            assert answer == _comparable(await world.act(actor, operation, missing))
            assert answer[0] == status
        assert (await world.act("admin", operation, missing)).status_code == 404
        assert (await world.act("admin", operation, there)).is_success


# --- Lists -----------------------------------------------------------------------------------


async def _walk(who: Client, path: str, question: Question) -> list[Any]:
    """Everything a listing says: its headers, its first page, then on by cursor."""
    response = await who.get(path, params=question)
    assert response.status_code == 200, response.text
    pages = [response.json()]
    onward = {name: value for name, value in question.items() if name != "page"}
    while cursor := pages[-1]["next_cursor"]:
        pages.append((await who.get(path, params=onward | {"cursor": cursor})).json())
    return [response.headers["link"], response.headers["x-total-count"], *pages]


async def _all_said(who: Client, author_id: int) -> list[Any]:
    """The answers to every question about posts that a hidden row could change."""
    return [
        *[await _walk(who, "/posts", question) for question in QUESTIONS],
        await _walk(who, "/posts", {"author_id": author_id}),
        *[await _walk(who, f"/users/{author_id}/posts", question) for question in OF_AN_AUTHOR],
    ]


async def _tags_said(who: Client) -> list[Any]:
    return [await _walk(who, "/tags", question) for question in TAG_QUESTIONS]


async def _hide_rows(author: Person, admin: Person) -> list[dict[str, Any]]:
    """Drafts, deleted posts, a deleted author's posts: with words and tags of the visible ones."""
    secret = {"content": "A needle", "tags": ["seen", "secret"]}
    drafts = [
        await author.write(title, status="draft", **secret)
        for title in ("A secret title", "Title 2b secret", "Zecret")
    ]
    unpublished = await author.write("Title 2c secret", **secret)
    response = await author.delete(f"/posts/{unpublished['id']}/publication")
    assert response.status_code == 200
    deleted = await author.write("Title 2d secret", **secret)
    assert (await author.delete(f"/posts/{deleted['id']}")).status_code == 204
    leaver = await new_user(author)
    gone = await leaver.write("Title 2e secret", **secret)
    assert (await admin.delete(f"/users/{leaver.id}")).status_code == 204
    return [*drafts, unpublished, deleted, gone]


async def test_no_listing_changes_when_hidden_rows_appear(client: Client) -> None:
    """A22: totals, pages, order, search, filters, tags and cursors say the same as before."""
    ana, eve, admin = await new_user(client), await new_user(client), await client.admin()
    await eve.write("Title of Eve", tags=["seen"])
    for number in range(3):
        await ana.write(f"Title {number}", tags=["seen", f"tag {number}"])
    before = [await _all_said(asker, ana.id) for asker in (client, eve)]
    hers, tags = await _all_said(ana, ana.id), await _tags_said(client)

    await _hide_rows(ana, admin)

    assert [await _all_said(asker, ana.id) for asker in (client, eve)] == before
    assert await _tags_said(client) == tags
    assert await _tags_said(ana) == tags, "tags count what is published, for everybody"
    changed = [now != then for now, then in zip(await _all_said(ana, ana.id), hers, strict=True)]
    assert sum(changed) > len(changed) // 2, "the author sees them: the questions can tell"


async def test_the_posts_of_nobody_look_like_those_of_who_shows_none(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To each caller, in every part of the answer and in the queries sent: an unknown id, a deleted
    user, a user without posts and a user with drafts only."""
    monkeypatch.setattr(totals, "TOTAL_CACHE_SECONDS", 0)
    admin, eve = await client.admin(), await new_user(client)
    gone, silent, hiding = [await new_user(client) for _ in range(3)]
    for author in (gone, hiding):
        await author.write("A secret", status="draft")
    await gone.write("Title")
    assert (await admin.delete(f"/users/{gone.id}")).status_code == 204
    shown = [await admin.write() for _ in range(2)]
    path = f"/users/{shown[0]['author']['id']}/posts"
    cursor = (await client.get(path, params={"page_size": 1})).json()["next_cursor"]
    for asker in (client, eve):
        for question in (*OF_AN_AUTHOR, {}, {"page": 2}, {"cursor": cursor}):
            said = []
            for number in (MISSING_ID, gone.id, silent.id, hiding.id):
                with watched(client.database) as sent:
                    answer = await asker.get(f"/users/{number}/posts", params=question)
                assert answer.status_code == 200, answer.text
                assert answer.json()["items"] == []
                headers = {**answer.headers, "x-request-id": ""}
                rendered = str((answer.json(), headers)).replace(f"/{number}/", "/{id}/")
                # Who asks is looked up once for all.
                asked = [each.text for each in sent if "JOIN sessions" not in each.text]
                said.append((rendered, asked))
            assert said == [said[0]] * 4, question
    assert (await hiding.get(f"/users/{hiding.id}/posts")).json()["total"] == 1
    assert (await admin.get(f"/users/{gone.id}/posts?deleted=true")).json()["total"] == 2


async def test_no_question_finds_a_hidden_row(client: Client) -> None:
    """A22: not even one that knows all there is to know about it."""
    ana, eve, admin = await new_user(client), await new_user(client), await client.admin()
    for post in await _hide_rows(ana, admin):
        assert (await client.get(f"/posts/{post['id']}")).status_code == 404
        for known in (
            {"q": post["title"]},
            {"q": post["content"]},
            {"tag": "secret"},
            {"author_id": post["author"]["id"]},
            {"created_from": post["created_at"], "status": post["status"]},
            {"deleted": True, "q": post["title"]},
        ):
            for asker in (client, eve):
                found = (await asker.get("/posts", params=known)).json()
                assert (found["items"], found["total"], found["total_pages"]) == ([], 0, 0)
    assert (await client.get("/tags")).json()["total"] == 0


async def test_a_cursor_shows_nobody_more_than_they_may_see(client: Client) -> None:
    """A22: a cursor from an author's own listing continues in what the next one may see."""
    ana, eve = await new_user(client), await new_user(client)
    for title, status in (("A", "published"), ("B", "draft"), ("C", "draft"), ("D", "published")):
        await ana.write(title, status=status)
    asked = {"sort": "title", "page_size": 2}
    cursor = (await ana.get("/posts", params=asked)).json()["next_cursor"]
    hers = (await ana.get("/posts", params=asked | {"cursor": cursor})).json()
    others = (await eve.get("/posts", params=asked | {"cursor": cursor})).json()
    assert [post["title"] for post in hers["items"]] == ["C", "D"]
    assert [post["title"] for post in others["items"]] == ["D"]
    assert others["total"] is None


async def test_members_of_a_role_keep_their_private_data(client: Client) -> None:
    """A22: without `users:read` they are null, and no order or filter goes by them."""
    admin, reader = await client.admin(), await user_with(client, Permission.roles_read)
    seer = await user_with(client, Permission.roles_read, Permission.users_read)
    role = (await admin.post("/roles", {"name": "club"})).json()
    path = f"/roles/{role['id']}/users"
    members = [await new_user(client) for _ in range(3)]
    for member in members:
        await admin.put(f"/users/{member.id}/roles/{role['id']}")

    async def said(who: Person) -> list[Any]:
        found = [
            await _walk(who, path, {"sort": f"{sign}{key}", "page_size": 1})
            for key in ("created_at", "name")
            for sign in ("", "-")
        ]
        for page in (page for walk in found for page in walk if isinstance(page, dict)):
            for item in page["items"]:
                item.pop("updated_at")
        return found

    before, seen_before = await said(reader), await said(seer)
    new = {"phone": "+34 699 999 999", "birth_date": "1990-05-17"}
    assert (await members[1].patch("/users/me", new)).status_code == 200
    assert await said(reader) == before
    assert await said(seer) != seen_before, "who may see them sees the change"
    for item in (await reader.get(path)).json()["items"]:
        assert [item[name] for name in ("email", "phone", "birth_date")] == [None] * 3
    for guess in ({"q": "person"}, {"email": members[0].email}, {"phone": "6"}, {"sort": "email"}):
        assert (await reader.get(path, params=guess)).status_code == 422
        assert (await reader.get("/users", params=guess)).status_code == 403


async def test_deleted_members_are_not_counted(client: Client) -> None:
    """A22: neither in the listing nor in the number beside the role."""
    admin, reader = await client.admin(), await user_with(client, Permission.roles_read)
    role = (await admin.post("/roles", {"name": "club"})).json()
    path = f"/roles/{role['id']}"
    stays, leaves = await new_user(client), await new_user(client)
    for member in (stays, leaves):
        await admin.put(f"/users/{member.id}{path}")
    assert (await reader.get(path)).json()["user_count"] == 2
    assert (await admin.delete(f"/users/{leaves.id}")).status_code == 204
    assert (await reader.get(path)).json()["user_count"] == 1
    body = (await reader.get(f"{path}/users")).json()
    assert ([item["id"] for item in body["items"]], body["total"]) == ([stays.id], 1)
