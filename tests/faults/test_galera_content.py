"""Posts and roles against what deletes them or their owner, on two nodes of a cluster."""

from __future__ import annotations

import itertools

import pytest
from sqlalchemy import ColumnElement, Select, delete, func, insert, select, update

from app.core.permissions import ADMIN_ROLE, Permission
from app.models.idempotency_keys import IdempotencyKey
from app.models.posts import Post
from app.models.roles import Role, RolePermission
from app.models.sessions import LoginSession
from app.models.tags import Tag
from app.models.users import User, UserRole
from tests.faults.nodes import Nodes, Person, role_members
from tests.faults.report import Report
from tests.faults.rounds import Race, Round, run

pytestmark = pytest.mark.faults

POST = {"title": "One", "content": "", "tags": []}
_numbers = itertools.count(1)


def orphans(author: Person) -> Select[int]:
    """Live posts of an author who is deleted."""
    deleted = select(User.id).where(User.id == author.id, User.deleted_at.is_not(None))
    live = Post.author_id.in_(deleted), Post.deleted_at.is_(None)
    return select(func.count()).select_from(Post).where(*live)


def rows(model: type[Post | Tag | IdempotencyKey], which: ColumnElement[bool]) -> Select[int]:
    return select(func.count()).select_from(model).where(which)


async def alive(nodes: Nodes, who: Person) -> None:
    """Take a user out of the trash, with the sessions they had."""
    await nodes.change(
        update(User).where(User.id == who.id).values(deleted_at=None, is_active=True),
        update(LoginSession).where(LoginSession.user_id == who.id).values(ended_at=None),
    )


async def post_in_trash(nodes: Nodes, author: Person) -> int:
    """The only post of an author, which they had put in the trash."""
    now = func.current_timestamp()
    await nodes.change(
        delete(Post).where(Post.author_id == author.id),
        insert(Post).values(author_id=author.id, title="One", content="", deleted_at=now),
    )
    return await nodes.count(select(func.max(Post.id)))


async def post_made_while_its_author_is_deleted(nodes: Nodes) -> Round:
    boss, author = await nodes.person(ADMIN_ROLE), await nodes.person("user")

    async def once() -> bool:
        await alive(nodes, author)
        await nodes.change(delete(Post).where(Post.author_id == author.id))
        await nodes.race(
            nodes.send(0, author, "POST", "/posts", POST),
            nodes.send(1, boss, "DELETE", f"/users/{author.id}"),
        )
        return await nodes.count(orphans(author)) > 0

    return once


def _restored(nodes: Nodes, boss: Person, author: Person, who: Person) -> Round:
    async def once() -> bool:
        await alive(nodes, author)
        post = await post_in_trash(nodes, author)
        await nodes.race(
            nodes.send(0, who, "POST", f"/posts/{post}/restore"),
            nodes.send(1, boss, "DELETE", f"/users/{author.id}"),
        )
        return await nodes.count(orphans(author)) > 0

    return once


async def post_restored_by_its_author_who_is_deleted(nodes: Nodes) -> Round:
    author = await nodes.person("user")
    return _restored(nodes, await nodes.person(ADMIN_ROLE), author, author)


async def post_restored_by_a_moderator(nodes: Nodes) -> Round:
    _, name = await nodes.role(Permission.posts_write, Permission.posts_moderate)
    author, moderator = await nodes.person("user"), await nodes.person(name)
    return _restored(nodes, await nodes.person(ADMIN_ROLE), author, moderator)


async def user_restored_and_deleted(nodes: Nodes) -> Round:
    """Their post is live exactly when they are."""
    boss, other = await nodes.person(ADMIN_ROLE), await nodes.person(ADMIN_ROLE)
    author = await nodes.person("user")

    async def once() -> bool:
        await alive(nodes, author)
        await post_in_trash(nodes, author)
        await nodes.change(update(Post).where(Post.author_id == author.id).values(deleted_at=None))
        assert (await nodes.send(0, boss, "DELETE", f"/users/{author.id}")).status_code == 204
        await nodes.race(
            nodes.send(0, boss, "POST", f"/users/{author.id}/restore"),
            nodes.send(1, other, "POST", f"/users/{author.id}/restore"),
            nodes.send(1, other, "DELETE", f"/users/{author.id}"),
        )
        is_live = User.id == author.id, User.deleted_at.is_(None)
        live = await nodes.count(select(func.count()).select_from(User).where(*is_live))
        mine = (Post.author_id == author.id) & Post.deleted_at.is_(None)
        return await nodes.count(rows(Post, mine)) != live

    return once


async def role_assigned_while_it_is_deleted(nodes: Nodes) -> Round:
    boss, other = await nodes.person(ADMIN_ROLE), await nodes.person(ADMIN_ROLE)
    ana = await nodes.person("user", log_in=False)

    async def once() -> bool:
        role_id, _ = await nodes.role(Permission.posts_write)
        await nodes.race(
            nodes.send(0, boss, "PUT", f"/users/{ana.id}/roles/{role_id}"),
            nodes.send(1, other, "DELETE", f"/roles/{role_id}"),
        )
        deleted = select(Role.deleted_at.is_not(None)).where(Role.id == role_id)
        return await nodes.count(deleted) > 0 and await nodes.count(role_members(role_id)) > 0

    return once


async def role_renamed_while_it_is_deleted(nodes: Nodes) -> Round:
    """A name that was given is that of a role that was live then: both, in this order, or one."""
    boss, other = await nodes.person(ADMIN_ROLE), await nodes.person(ADMIN_ROLE)

    async def once() -> bool:
        role_id, _ = await nodes.role(Permission.posts_write)
        name = f"renamed {next(_numbers)}"
        renamed, deleted = await nodes.race(
            nodes.send(0, boss, "PATCH", f"/roles/{role_id}", {"name": name}),
            nodes.send(1, other, "DELETE", f"/roles/{role_id}"),
        )
        found = Role.id == role_id, Role.name == name
        has_name = await nodes.count(select(func.count()).select_from(Role).where(*found))
        is_deleted = await nodes.count(select(Role.deleted_at.is_not(None)).where(found[0]))
        return (has_name, is_deleted) != (renamed.is_success, deleted.is_success)

    return once


async def one_key_on_both_nodes(nodes: Nodes) -> Round:
    author = await nodes.person("user")

    async def once() -> bool:
        title = f"Post {next(_numbers)}"
        key = {"Idempotency-Key": f'"{title}"'.replace(" ", "-")}
        first, second = await nodes.race(
            *(
                nodes.send(node, author, "POST", "/posts", POST | {"title": title}, headers=key)
                for node in (0, 1)
            )
        )
        differs = first.is_success and second.is_success and first.json() != second.json()
        return differs or await nodes.count(rows(Post, Post.title == title)) != 1

    return once


async def one_tag_on_both_nodes(nodes: Nodes) -> Round:
    ana, ben = await nodes.person("user"), await nodes.person("user")

    async def once() -> bool:
        tag = f"tag{next(_numbers)}"
        responses = await nodes.race(
            nodes.send(0, ana, "POST", "/posts", POST | {"tags": [tag]}),
            nodes.send(1, ben, "POST", "/posts", POST | {"tags": [tag]}),
        )
        all_made = all(response.status_code == 201 for response in responses)
        return not all_made or await nodes.count(rows(Tag, Tag.name == tag)) != 1

    return once


async def rights_role_refilled_by_its_holder(nodes: Nodes) -> Round:
    """Emptied for good once that was acknowledged."""
    granted = (Permission.roles_write, Permission.posts_write)
    role_id, name = await nodes.role(*granted)
    member, boss = await nodes.person(name), await nodes.person(ADMIN_ROLE)

    async def once() -> bool:
        await nodes.change(
            delete(RolePermission).where(RolePermission.role_id == role_id),
            insert(RolePermission).values(
                [{"role_id": role_id, "permission": each} for each in granted]
            ),
        )
        emptied, _ = await nodes.race(
            nodes.send(0, boss, "PATCH", f"/roles/{role_id}", {"permissions": []}),
            nodes.send(1, member, "PATCH", f"/roles/{role_id}", {"permissions": [*granted]}),
        )
        left = RolePermission.role_id == role_id
        count = select(func.count()).select_from(RolePermission).where(left)
        return emptied.is_success and await nodes.count(count) > 0

    return once


async def rights_role_taken_back_by_its_holder(nodes: Nodes) -> Round:
    role_id, name = await nodes.role(Permission.roles_assign)
    member, boss = await nodes.person(name), await nodes.person(ADMIN_ROLE)

    async def once() -> bool:
        link = {"user_id": member.id, "role_id": role_id}
        await nodes.change(insert(UserRole).prefix_with("IGNORE").values(link))
        path = f"/users/{member.id}/roles/{role_id}"
        taken, _ = await nodes.race(
            nodes.send(0, boss, "DELETE", path), nodes.send(1, member, "PUT", path)
        )
        return taken.is_success and await nodes.count(role_members(role_id)) > 0

    return once


RACES: list[Race] = [
    post_made_while_its_author_is_deleted,
    post_restored_by_its_author_who_is_deleted,
    post_restored_by_a_moderator,
    user_restored_and_deleted,
    role_assigned_while_it_is_deleted,
    role_renamed_while_it_is_deleted,
    one_key_on_both_nodes,
    one_tag_on_both_nodes,
    rights_role_refilled_by_its_holder,
    rights_role_taken_back_by_its_holder,
]


@pytest.mark.parametrize("race", RACES, ids=lambda race: race.__name__)
async def test_no_round_is_violated(nodes: Nodes, race: Race, whole: bool, report: Report) -> None:
    await run(nodes, race, report, rounds=50 if whole else 3)
