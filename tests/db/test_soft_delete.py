"""Soft-deleted rows are invisible to every kind of statement, with all that belongs to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Select, delete, exists, func, select, union_all, update
from sqlalchemy.orm import aliased, joinedload, selectinload, subqueryload

from app.crud import posts, roles, users
from app.models.base import INCLUDE_DELETED
from app.models.posts import Post
from app.models.roles import Role
from app.models.tags import PostTag, Tag
from app.models.users import User, UserRole
from tests.support.client import Client, Person
from tests.support.listings import page

pytestmark = pytest.mark.long

EVERYTHING = {INCLUDE_DELETED: True}
Other = aliased(Post)
# Statements whose first column counts, or lists, posts: of two posts one is in the trash.
COUNTS: dict[str, Callable[[], Select[Any]]] = {
    "count of rows": lambda: select(func.count()).select_from(Post),
    "count of a column": lambda: select(func.count(Post.id)),
    "columns": lambda: select(func.count()).select_from(select(Post.title).subquery()),
    "an alias": lambda: select(func.count(Other.id)),
    "a subquery": lambda: select(func.count()).select_from(select(Post).subquery()),
    "a common table": lambda: select(func.count()).select_from(select(Post.id).cte()),
    "in": lambda: select(func.count(User.id)).where(
        User.id.in_(select(Post.author_id).where(Post.title == "Deleted"))
    ),
    "exists": lambda: select(func.count(User.id)).where(
        exists().where(Post.author_id == User.id, Post.title == "Deleted")
    ),
    "a scalar subquery": lambda: select(
        select(func.count(Post.id)).where(Post.author_id == User.id).scalar_subquery()
    ).select_from(User),
    "a join": lambda: select(func.count()).select_from(User).join(Post, Post.author_id == User.id),
    "an outer join": lambda: (
        select(func.count(Post.id)).select_from(User).outerjoin(Post, Post.author_id == User.id)
    ),
    "a join of tags": lambda: (
        select(func.count()).select_from(Tag).join(PostTag).join(Post, Post.id == PostTag.post_id)
    ),
    "a union": lambda: select(func.count()).select_from(
        union_all(select(Post.id), select(Other.id)).subquery()
    ),
}


async def one_of_two_deleted(client: Client) -> tuple[Person, int]:
    """The author of a live post and a deleted one, both with a tag; the deleted one's id."""
    ana = await client.user()
    await ana.write("Live", tags=["tag"])
    gone = await ana.write("Deleted", tags=["tag"])
    assert (await ana.delete(f"/posts/{gone['id']}")).status_code == 204
    return ana, int(gone["id"])


async def test_no_statement_sees_the_trash_unless_it_says_so(client: Client) -> None:
    await one_of_two_deleted(client)
    async with client.database.begin(readonly=True) as session:
        seen = {name: await session.scalar(make()) for name, make in COUNTS.items()}
        whole = {
            name: await session.scalar(make(), execution_options=EVERYTHING)
            for name, make in COUNTS.items()
        }
    special = {"in": 0, "exists": 0, "a union": 2}
    assert seen == dict.fromkeys(COUNTS, 1) | special
    assert whole == dict.fromkeys(COUNTS, 2) | {"in": 1, "exists": 1, "a union": 4}


async def test_rows_cannot_be_fetched_by_their_keys(client: Client) -> None:
    _, gone = await one_of_two_deleted(client)
    async with client.database.begin(readonly=True) as session:
        assert await session.get(Post, gone) is None
        titles = set(await session.scalars(select(Post.title)))
        assert titles == {"Live"}
    async with client.database.begin(readonly=True) as session:
        assert await session.get(Post, gone, execution_options=EVERYTHING) is not None


@pytest.mark.parametrize("noun", ["user", "role", "post"])
async def test_what_was_just_deleted_is_gone_in_the_same_session(client: Client, noun: str) -> None:
    """The identity map keeps what a session has loaded: deleting takes it out of there."""
    admin, ana = await client.admin(), await client.user()
    post = await ana.write()
    role = (await admin.post("/roles", {"name": "role"})).json()
    async with client.database.begin() as session:
        model: Any
        match noun:
            case "user":
                model, row_id = User, ana.id
                user = await users.get_for_update(session, user_id=row_id)
                await users.soft_delete(session, user=user)
            case "role":
                model, row_id = Role, role["id"]
                caller = await _caller(admin)
                found = await roles.get_for_update(session, role_id=row_id)
                await roles.soft_delete(session, caller=caller, role=found)
            case _:
                model, row_id = Post, post["id"]
                caller = await _caller(ana)
                mine = await posts.get_for_update(session, caller=caller, post_id=row_id)
                await posts.soft_delete(session, post=mine)
        assert await session.get(model, row_id) is None
    async with client.database.begin(readonly=True) as session:
        kept = await session.get(model, row_id, execution_options=EVERYTHING)
        assert kept is not None
        assert kept.deleted_at is not None


async def _caller(person: Person) -> Any:
    """Return the caller that the app finds for the token of a person."""
    return await person.app.state.authenticator.authenticate(person.token)


async def test_bulk_statements_pass_over_the_trash(client: Client) -> None:
    _, gone = await one_of_two_deleted(client)
    async with client.database.begin() as session:
        await session.execute(update(Post).values(title="Changed"))
        titles = list(
            await session.scalars(
                select(Post.title).order_by(Post.title), execution_options=EVERYTHING
            )
        )
        assert titles == ["Changed", "Deleted"]
        await session.execute(delete(PostTag))
        await session.execute(delete(Post))
        left = list(await session.scalars(select(Post.id), execution_options=EVERYTHING))
        assert left == [gone]


@pytest.mark.parametrize("load", [selectinload, joinedload, subqueryload])
async def test_relationships_do_not_load_the_trash(client: Client, load: Any) -> None:
    admin, ana = await client.admin(), await client.user()
    post = await ana.write()
    role = (await admin.post("/roles", {"name": "role"})).json()
    await admin.put(f"/users/{ana.id}/roles/{role['id']}")
    async with client.database.begin() as session:
        # Past the crud layer, which would have taken the links and the posts along.
        dead = update(Role).where(Role.id == role["id"]).values(deleted_at=func.now())
        await session.execute(dead, execution_options={"synchronize_session": False})
    async with client.database.begin(readonly=True) as session:
        with_roles = select(User).where(User.id == ana.id).options(load(User.roles))
        user = (await session.scalars(with_roles)).unique().one()
        assert [each.name for each in user.roles] == ["user"]
        linked = select(func.count()).select_from(UserRole).where(UserRole.user_id == ana.id)
        assert await session.scalar(linked) == 2, "it was the loading that left it out"
    async with client.database.begin() as session:
        dead = update(User).where(User.id == ana.id).values(deleted_at=func.now())
        await session.execute(dead, execution_options={"synchronize_session": False})
    async with client.database.begin(readonly=True) as session:
        with_author = select(Post).where(Post.id == post["id"]).options(load(Post.author))
        orphan = (await session.scalars(with_author)).unique().one_or_none()
        assert orphan is None or orphan.author is None


async def snapshot(person: Person) -> dict[str, Any]:
    """Everything the API tells of posts, live and deleted, as this person sees it."""
    return {
        "live": (await page(person, "/posts", page_size=100))["items"],
        "trash": (await page(person, "/posts", page_size=100, deleted=True))["items"],
        "tags": (await page(person, "/tags"))["items"],
    }


@pytest.mark.parametrize("by", ["admin", "owner"])
async def test_a_users_posts_go_and_come_back_with_them(client: Client, by: str) -> None:
    """Restoring brings back exactly what that deletion took: not what was in the trash before."""
    admin, ana, luis = await client.admin(), await client.user(), await client.user("Luis")
    await luis.write("Luis's", tags=["luis"])
    await ana.write("Published", tags=["ana", "both"])
    await ana.write("Draft", status="draft")
    thrown = await ana.write("Thrown away")
    await ana.delete(f"/posts/{thrown['id']}")
    before = await snapshot(admin)
    user_before = (await admin.get(f"/users/{ana.id}")).json()
    role = (await admin.post("/roles", {"name": "kept"})).json()
    await admin.put(f"/users/{ana.id}/roles/{role['id']}")
    if by == "admin":
        assert (await admin.delete(f"/users/{ana.id}")).status_code == 204
    else:
        gone = await ana.delete("/users/me", {"current_password": "Correct-Horse-7"})
        assert gone.status_code == 204
    meanwhile = await snapshot(admin)
    assert [post["title"] for post in meanwhile["live"]] == ["Luis's"]
    assert len(meanwhile["trash"]) == 3
    assert [tag["name"] for tag in meanwhile["tags"]] == ["luis"]
    trash = (await page(admin, "/users", deleted=True))["items"]
    assert [user["id"] for user in trash] == [ana.id]
    restored = await admin.post(f"/users/{ana.id}/restore")
    assert restored.status_code == 200
    assert await snapshot(admin) == before
    user = restored.json()
    assert [each["name"] for each in user["roles"]] == ["kept", "user"]
    assert user == user_before | {name: user[name] for name in ("roles", "updated_at")}
    assert (await admin.post(f"/users/{ana.id}/restore")).json() == user, "live: as it is"
    back = await client.person(ana.account)
    assert (await back.post(f"/posts/{thrown['id']}/restore")).status_code == 200


async def test_a_second_deletion_takes_what_is_there_then(client: Client) -> None:
    admin, ana = await client.admin(), await client.user()
    first = await ana.write("First")
    await admin.delete(f"/users/{ana.id}")
    await admin.post(f"/users/{ana.id}/restore")
    ana = await client.person(ana.account)
    await ana.write("Second")
    await ana.delete(f"/posts/{first['id']}")
    await admin.delete(f"/users/{ana.id}")
    await admin.post(f"/users/{ana.id}/restore")
    assert [post["title"] for post in (await snapshot(admin))["live"]] == ["Second"]


async def test_a_deleted_user_is_nowhere(client: Client) -> None:
    """A22: not by id, not in lists, counts and roles, not through what they wrote."""
    admin, ana = await client.admin(), await client.user()
    await ana.write()
    roles_listed = (await page(admin, "/roles"))["items"]
    role = next(each for each in roles_listed if each["name"] == "user")
    await admin.delete(f"/users/{ana.id}")
    for path in ("", "/roles"):
        assert (await admin.get(f"/users/{ana.id}{path}")).status_code == 404, path
    for person in (admin, client):
        assert (await page(person, f"/users/{ana.id}/posts"))["total"] == 0
    for method in ("PUT", "DELETE"):
        answer = await admin.request(method, f"/users/{ana.id}/roles/{role['id']}")
        assert answer.status_code == 404
    assert ana.id not in [user["id"] for user in (await page(admin, "/users"))["items"]]
    members = await page(admin, f"/roles/{role['id']}/users")
    assert ana.id not in [user["id"] for user in members["items"]]
    now = (await admin.get(f"/roles/{role['id']}")).json()
    assert now["user_count"] == role["user_count"] - 1 == members["total"]
    assert (await page(client, "/posts", author_id=ana.id))["total"] == 0
