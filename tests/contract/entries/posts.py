"""Posts: published ones, drafts that others do not see, and those in the trash."""

from __future__ import annotations

from app.core.permissions import Permission
from tests.contract.entries.base import Body, Case, Entry, Filled
from tests.support.client import Client, Person
from tests.support.matrix import Scenario, World
from tests.support.people import new_user
from tests.support.response_shapes import keys, page_of

POST = keys(
    "id title content status published_at tags version created_at updated_at deleted_at",
    author=keys("id name"),
)


async def new_post(world: World) -> Scenario:
    body = {"title": "A title", "content": "Some content.", "tags": ["new"]}
    return Scenario(await new_user(world.root), options={"json": body})


async def published(world: World) -> Scenario:
    owner = await new_user(world.root)
    post = await owner.write(tags=["seen"])
    return Scenario(owner, {"post_id": post["id"]})


async def draft(world: World) -> Scenario:
    owner = await new_user(world.root)
    post = await owner.write(status="draft", tags=["unseen"])
    return Scenario(owner, {"post_id": post["id"]})


async def trashed(world: World) -> Scenario:
    scenario = await published(world)
    assert (await scenario.owner.delete(f"/posts/{scenario.ids['post_id']}")).status_code == 204
    return scenario


async def _changed(scenario: Scenario) -> Scenario:
    scenario.options["json"] = {"title": "Another title"}
    return scenario


async def changed_published(world: World) -> Scenario:
    return await _changed(await published(world))


async def changed_draft(world: World) -> Scenario:
    return await _changed(await draft(world))


def _body(number: int) -> Body:
    return {"title": f"Key {number}", "content": "ñ 😀 \x01", "tags": ["a", "b"]}


async def _fill(filled: Filled) -> None:
    admin, ids = filled.admin, filled.ids
    for name in ("post", "doomed", "trashed"):
        ids[name] = (await admin.write(name, tags=["old"]))["id"]
    ids["draft"] = (await admin.write("draft", status="draft"))["id"]
    assert (await admin.delete(f"/posts/{ids['trashed']}")).status_code == 204


async def _post_id(_: Client, admin: Person) -> int:
    return int((await admin.write())["id"])


ENTRY = Entry(
    "posts",
    # Of each of ACTORS: anonymous, user, owner, stranger, moderator, admin, disabled, deleted.
    {
        "list_posts": Case((200, 200, 200, 200, 200, 200, 401, 401), published, page_of(POST)),
        "create_post": Case(
            (401, 201, 201, 403, 201, 201, 401, 401), new_post, POST, Permission.posts_write
        ),
        "get_post": Case((200, 200, 200, 200, 200, 200, 401, 401), published, POST),
        "get_post:draft": Case((404, 404, 200, 404, 200, 200, 401, 401), draft, POST),
        "update_post": Case(
            (401, 403, 200, 403, 200, 200, 401, 401),
            changed_published,
            POST,
            Permission.posts_moderate,
            if_match=True,
        ),
        "update_post:draft": Case(
            (401, 404, 200, 403, 200, 200, 401, 401), changed_draft, POST, if_match=True
        ),
        "delete_post": Case(
            (401, 403, 204, 403, 204, 204, 401, 401),
            published,
            None,
            Permission.posts_moderate,
            if_match=True,
        ),
        "delete_post:draft": Case(
            (401, 404, 204, 403, 204, 204, 401, 401), draft, None, if_match=True
        ),
        "restore_post:trash": Case(
            (401, 404, 200, 403, 200, 200, 401, 401),
            trashed,
            POST,
            Permission.posts_moderate,
            if_match=True,
        ),
        "publish_post": Case(
            (401, 403, 200, 403, 200, 200, 401, 401),
            published,
            POST,
            Permission.posts_moderate,
            if_match=True,
        ),
        "publish_post:draft": Case(
            (401, 404, 200, 403, 200, 200, 401, 401), draft, POST, if_match=True
        ),
        "unpublish_post": Case(
            (401, 403, 200, 403, 200, 200, 401, 401),
            published,
            POST,
            Permission.posts_moderate,
            if_match=True,
        ),
        "unpublish_post:draft": Case(
            (401, 404, 200, 403, 200, 200, 401, 401), draft, POST, if_match=True
        ),
    },
    hidden=("get_post:draft", "restore_post:trash"),
    bodies={"/posts": _body},
    writes={
        "create_post": ("POST", "/posts", {"title": "New", "content": "", "tags": ["new"]}),
        "update_post": ("PATCH", "/posts/{post}", {"title": "Changed", "tags": ["other"]}),
        "delete_post": ("DELETE", "/posts/{doomed}", None),
        "restore_post": ("POST", "/posts/{trashed}/restore", None),
        "publish_post": ("PUT", "/posts/{draft}/publication", None),
        "unpublish_post": ("DELETE", "/posts/{post}/publication", None),
    },
    fill=_fill,
    row_ids={"post_id": _post_id},
    tagged=(POST,),
    collection="/posts",
    noun="post",
    is_unique=False,
    change={"title": "Mine now"},
    invalid={"title": ""},
)
