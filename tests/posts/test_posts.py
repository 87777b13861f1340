"""Posts: ownership, visibility and life cycle."""

from __future__ import annotations

from typing import Any

from app.core.permissions import Permission
from tests.support.client import Client, Person
from tests.support.etags import tag_shown

BODY = {"title": "A title", "content": "Some content."}


async def test_a_post_is_kept_as_it_was_written(client: Client) -> None:
    ana = await client.user()
    family = "👩\N{ZERO WIDTH JOINER}👧"
    content = f"  Líneas\n\ny {family} \N{RIGHT-TO-LEFT MARK}שלום e\N{COMBINING ACUTE ACCENT}  "
    created = await ana.post(
        "/posts", {"title": "  Hola  ", "content": content, "tags": ["b", "a"]}
    )
    assert created.status_code == 201
    post = created.json()
    assert created.headers["location"] == f"/api/v1/posts/{post['id']}"
    assert created.headers["etag"] == tag_shown(created, 1)
    kept = {name: value for name, value in post.items() if name not in {"id", "created_at"}}
    assert kept == {
        "title": "Hola",
        "content": content,
        "status": "draft",
        "published_at": None,
        "tags": ["a", "b"],
        "author": {"id": ana.id, "name": "Ana"},
        "version": 1,
        "updated_at": post["updated_at"],
        "deleted_at": None,
    }
    read = await ana.get(f"/posts/{post['id']}")
    assert read.json() == post
    assert read.headers["etag"] == created.headers["etag"] == tag_shown(read, 1)


async def test_a_post_is_held_to_its_rules(client: Client) -> None:
    ana = await client.user()
    post = await ana.write()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"title": ""}, "title: string_too_short"),
        ({"title": "   "}, "title: string_too_short"),
        ({"title": "x" * 201}, "title: string_too_long"),
        ({"title": None}, "title: string_type"),
        ({"title": "a\0b"}, "title: text_unstorable"),
        ({"content": "x" * 100_001}, "content: string_too_long"),
        ({"content": 7}, "content: string_type"),
        ({"status": "deleted"}, "status: enum"),
        ({"tags": "news"}, "tags: list_type"),
        ({"tags": [f"t{number}" for number in range(21)]}, "tags: too_long"),
        ({"tags": ["good", "x" * 51]}, "tags.1: tag_invalid"),
        ({"tags": ["  "]}, "tags.0: tag_invalid"),
        ({"author_id": 1}, "author_id: extra_forbidden"),
        ({"views": 9}, "views: extra_forbidden"),
        ({"deleted_with_author": True}, "deleted_with_author: extra_forbidden"),
    ]
    for body, expected in wrong:
        for response in (
            await ana.post("/posts", BODY | body),
            await ana.patch(f"/posts/{post['id']}", body),
        ):
            assert response.status_code == 422, body
            errors = response.json()["errors"]
            assert [f"{error['field']}: {error['type']}" for error in errors] == [expected]
    assert (await ana.get(f"/posts/{post['id']}")).json() == post
    assert (await ana.get("/posts")).json()["total"] == 1
    longest: dict[str, Any] = {
        "title": "😀" * 200,
        "content": "ñ" * 100_000,
        "tags": ["x" * 50] * 20,
    }
    assert (await ana.write(**longest))["content"] == longest["content"]


async def test_a_draft_is_its_authors_and_the_moderators_alone(client: Client) -> None:
    """A22: for everybody else it is not there, in no way of asking."""
    ana, luis, mod = await client.user(), await client.user("Luis"), await client.moderator()
    draft = await ana.write("Secret plan", status="draft", tags=["hidden"])
    path = f"/posts/{draft['id']}"
    for person, sees in ((client, False), (luis, False), (ana, True), (mod, True)):
        assert (await person.get(path)).status_code == (200 if sees else 404)
        for params in (
            {},
            {"q": "secret"},
            {"tag": "hidden"},
            {"status": "draft"},
            {"author_id": ana.id},
        ):
            assert (await person.get("/posts", params=params)).json()["total"] == sees, params
        assert (await person.get(f"/users/{ana.id}/posts")).json()["total"] == sees
        assert (await person.get("/posts", params={"q": "nothing"})).json()["total"] == 0
        assert (await person.get("/tags")).json()["items"] == []
    unknown = await luis.delete(f"/posts/{2**62}")
    for method, tail in (("PATCH", ""), ("DELETE", ""), ("PUT", "/publication")):
        response = await luis.request(method, path + tail, json={} if method == "PATCH" else None)
        assert response.status_code == 404
        assert response.json()["code"] == unknown.json()["code"]
    assert (await luis.post(f"{path}/restore")).status_code == 404
    assert (await ana.get(path)).json() == draft


async def every_change(person: Client, post_id: int) -> dict[str, int]:
    """The status of each way to change a post, harmless ones first."""
    path = f"/posts/{post_id}"
    return {
        "patch": (await person.patch(path, {"title": "Changed"})).status_code,
        "unpublish": (await person.delete(f"{path}/publication")).status_code,
        "publish": (await person.put(f"{path}/publication")).status_code,
        "delete": (await person.delete(path)).status_code,
        "restore": (await person.post(f"{path}/restore")).status_code,
    }


async def test_ownership_comes_from_the_row(client: Client) -> None:
    """A19: another user's published post may be read and nothing more."""
    ana, luis, mod = await client.user(), await client.user("Luis"), await client.moderator()
    reader = await client.user_with(Permission.users_read)
    plain = await client.user_with(Permission.posts_moderate)
    post = await ana.write()
    assert set((await every_change(client, post["id"])).values()) == {401}
    for person in (luis, reader):
        assert set((await every_change(person, post["id"])).values()) == {403}
        assert (await person.get(f"/posts/{post['id']}")).json() == post
    for person in (ana, mod, plain):
        assert set((await every_change(person, post["id"])).values()) == {200, 204}
    assert (await ana.get(f"/posts/{post['id']}")).json()["author"]["id"] == ana.id
    assert (await reader.post("/posts", BODY)).status_code == 403
    assert (await plain.post("/posts", BODY)).status_code == 403
    assert (await client.post("/posts", BODY)).status_code == 401


async def test_an_author_without_the_permission_changes_nothing(client: Client) -> None:
    admin, ana = await client.admin(), await client.user()
    post, draft = await ana.write(), await ana.write(status="draft")
    role = next(
        role["id"]
        for role in (await admin.get(f"/users/{ana.id}/roles")).json()["items"]
        if role["name"] == "user"
    )
    await admin.delete(f"/users/{ana.id}/roles/{role}")
    assert set((await every_change(ana, post["id"])).values()) == {403}
    assert (await ana.get(f"/posts/{draft['id']}")).json() == draft, "still theirs to read"


async def test_publication_has_its_moment(client: Client) -> None:
    ana = await client.user()
    draft = await ana.write(status="draft")
    path = f"/posts/{draft['id']}/publication"
    published = (await ana.put(path)).json()
    assert (published["status"], published["version"]) == ("published", 2)
    assert published["published_at"] >= draft["created_at"]
    assert (await ana.put(path)).json() == published, "once is enough"
    back = (await ana.delete(path)).json()
    assert (back["status"], back["published_at"], back["version"]) == ("draft", None, 3)
    assert (await ana.delete(path)).json() == back
    by_patch = (await ana.patch(f"/posts/{draft['id']}", {"status": "published"})).json()
    assert by_patch["published_at"] > published["published_at"]
    at_once = await ana.write(status="published")
    assert at_once["published_at"] is not None


async def test_every_change_counts_and_no_change_does_not(client: Client) -> None:
    ana = await client.user()
    post = await ana.write(tags=["b", "a"])
    path, version = f"/posts/{post['id']}", 1
    for same in (
        {},
        {"title": f" {post['title']} "},
        {"tags": [" A", "b", "B "]},
        {"status": "published"},
        {name: post[name] for name in ("title", "content", "status", "tags")},
    ):
        response = await ana.patch(path, same)
        assert response.json() == post, same
        assert response.headers["etag"] == tag_shown(response, 1)
    changes: list[dict[str, Any]] = [{"title": "New"}, {"content": ""}, {"tags": ["a"]}, BODY]
    for change in (*changes, {"tags": []}):
        response = await ana.patch(path, change)
        changed, version = response.json(), version + 1
        assert changed["version"] == version
        assert response.headers["etag"] == tag_shown(response, version)
        read = await ana.get(path)
        assert (read.content, read.headers["etag"]) == (
            response.content,
            response.headers["etag"],
        )
        assert change.items() <= changed.items()
        assert changed["updated_at"] > post["updated_at"]
        assert changed["created_at"] == post["created_at"]
        post = changed
    assert (await ana.get(path)).json() == post


async def if_match(person: Person, path: str, tags: str) -> int:
    """The status of a change that names versions."""
    body = {"content": tags}
    return (await person.patch(path, body, headers={"If-Match": tags})).status_code


async def test_if_match_names_the_version_to_change(client: Client) -> None:
    ana = await client.user()
    path = f"/posts/{(await ana.write())['id']}"
    assert await if_match(ana, path, '"1"') == 200
    assert await if_match(ana, path, '"1"') == 412, "stale"
    assert await if_match(ana, path, "*") == 200
    assert await if_match(ana, path, '"1", "3"') == 200, "any of a list"
    assert await if_match(ana, path, '"4","99"') == 200
    version = (await ana.get(path)).json()["version"]
    assert version == 5
    for other in ('W/"4"', 'w/"5"', "5", '"05"', '"5', '""', '"1", "2"', 'W/"4", "4"'):
        assert await if_match(ana, path, other) == 412, other
    stale = {"If-Match": '"1"'}
    for response in (
        await ana.patch(path, {}, headers=stale),
        await ana.put(f"{path}/publication", headers=stale),
        await ana.delete(f"{path}/publication", headers=stale),
        await ana.delete(path, headers=stale),
    ):
        assert response.status_code == 412
        assert response.json()["code"] == "precondition_failed"
    assert (await ana.get(path)).json()["version"] == version
    assert (await ana.delete(path, headers={"If-Match": '"5"'})).status_code == 204


async def test_a_stale_version_tells_strangers_nothing(client: Client) -> None:
    """A19: who may not change the post hears that, and not which version it has."""
    ana, luis = await client.user(), await client.user("Luis")
    post, draft = await ana.write(), await ana.write(status="draft")
    assert await if_match(luis, f"/posts/{post['id']}", '"9"') == 403
    assert await if_match(luis, f"/posts/{draft['id']}", '"9"') == 404


async def test_a_post_goes_to_the_trash_and_comes_back(client: Client) -> None:
    ana, luis, mod = await client.user(), await client.user("Luis"), await client.moderator()
    post = await ana.write(tags=["news"])
    path = f"/posts/{post['id']}"
    assert (await ana.post(f"{path}/restore")).json() == post, "a live one stays as it is"
    assert (await ana.delete(path)).status_code == 204
    for person in (client, ana, luis, mod):
        assert (await person.get(path)).status_code == 404
        assert (await person.get("/posts")).json()["total"] == 0
    assert set((await every_change(luis, post["id"])).values()) == {404}
    assert (await ana.patch(path, {})).status_code == 404
    assert (await ana.delete(path)).status_code == 404
    for person, sees in ((client, 0), (luis, 0), (ana, 1), (mod, 1)):
        trash = (await person.get("/posts", params={"deleted": True})).json()
        assert trash["total"] == sees
    assert trash["items"][0]["deleted_at"] is not None
    restored = await ana.post(f"{path}/restore")
    back = restored.json()
    assert restored.headers["etag"] == tag_shown(restored, back["version"])
    changed = {name: back[name] for name in ("version", "updated_at")}
    assert back == post | changed
    assert back["version"] > post["version"]
    assert (await client.get(path)).json() == back
    assert (await ana.get("/posts", params={"deleted": True})).json()["total"] == 0
    await ana.delete(path)
    assert (await mod.post(f"{path}/restore")).status_code == 200


async def test_a_post_does_not_come_back_without_its_author(client: Client) -> None:
    admin, ana = await client.admin(), await client.user()
    alone, along = await ana.write("Alone"), await ana.write("Along")
    await ana.delete(f"/posts/{alone['id']}")
    await admin.delete(f"/users/{ana.id}")
    for post in (alone, along):
        response = await admin.post(f"/posts/{post['id']}/restore")
        assert response.status_code == 409
        assert response.json()["code"] == "author_deleted"
    assert (await client.get("/posts")).json()["total"] == 0
