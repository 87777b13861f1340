"""A small world with one of everybody in it, and one valid call for every row of the matrix.

The permission matrix sends the same call, about the same kind of target, for every actor: what
one is refused is what another is allowed.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2
from sqlalchemy import select

from app.core.permissions import ADMIN_ROLE, USER_ROLE, Permission
from app.database import Database
from app.models.audit import AuditEvent
from app.models.base import INCLUDE_DELETED, Base
from tests.support import links
from tests.support.client import PASSWORD, Client, Person
from tests.support.people import granting, newcomer, newcomers

ACTORS = (
    "anonymous",
    "user",  # the role `user`, and a stranger to the row
    "owner",  # the author of the post, or the user that the row is about
    "stranger",  # logged in, without any role
    "moderator",  # `posts:write` and `posts:moderate`
    "admin",
    "disabled",  # had a good token when an admin disabled them
    "deleted",  # had a good token when an admin deleted them
)
MISSING_ID = 2**62
_numbers = itertools.count(1)


@dataclass
class Scene:
    """What one call is about: whose row it is, the ids in its path, its body."""

    owner: Client
    ids: dict[str, int] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class World:
    """The people of the matrix; `root` is an admin who sets the scenes and never acts."""

    root: Person
    people: Mapping[str, Client]

    async def act(self, actor: str, row: str, scene: Scene) -> httpx2.Response:
        """The call of a row, by an actor."""
        who = scene.owner if actor == "owner" else self.people[actor]
        return await call(who, row, scene)


async def call(who: Client, row: str, scene: Scene) -> httpx2.Response:
    """Send the request of a row's operation, as somebody."""
    method, template, _ = who.contract.operations[operation_of(row)]
    return await who.request(method.upper(), template.format(**scene.ids), **scene.options)


def operation_of(row: str) -> str:
    """`update_post:draft` is a call of `update_post`."""
    return row.partition(":")[0]


# --- People ----------------------------------------------------------------------------------


async def build(client: Client) -> World:
    """A fresh world; the disabled and the deleted were so by an admin, over HTTP."""
    moderating = granting(Permission.posts_write, Permission.posts_moderate)
    root, user, stranger, moderator, admin, disabled, deleted = await newcomers(
        client, [ADMIN_ROLE], [USER_ROLE], [], [moderating], [ADMIN_ROLE], [USER_ROLE], [USER_ROLE]
    )
    for gone in (disabled, deleted):
        assert (await gone.get("/users/me")).status_code == 200, "the token was good"
    response = await root.patch(f"/users/{disabled.id}", {"is_active": False})
    assert response.status_code == 200
    assert (await root.delete(f"/users/{deleted.id}")).status_code == 204
    people = {"user": user, "stranger": stranger, "moderator": moderator, "admin": admin}
    dead = {"disabled": disabled, "deleted": deleted}
    return World(root, {"anonymous": client} | people | dead)


# --- Scenes ----------------------------------------------------------------------------------


async def _nothing(world: World) -> Scene:
    return Scene(await newcomer(world.root))


async def _login(world: World) -> Scene:
    owner = await newcomer(world.root)
    return Scene(owner, options={"data": {"username": owner.email, "password": PASSWORD}})


async def _refresh(world: World) -> Scene:
    scene = await _login(world)
    login = await world.root.request("POST", "/auth/login", **scene.options)
    return Scene(scene.owner, options={"json": {"refresh_token": login.json()["refresh_token"]}})


async def _a_session(world: World) -> Scene:
    owner = await newcomer(world.root)
    (session,) = (await owner.get("/auth/sessions")).json()["items"]
    return Scene(owner, {"session_id": session["id"]})


async def _account(world: World) -> Scene:
    body = {"email": f"new{next(_numbers)}@example.com", "name": "Nora New"}
    return Scene(await newcomer(world.root), options={"json": body})


async def _registration(world: World) -> Scene:
    scene = await _account(world)
    scene.options["json"]["password"] = PASSWORD
    return scene


async def _own_password(world: World) -> Scene:
    body = {"current_password": PASSWORD}
    return Scene(await newcomer(world.root), options={"json": body})


async def _own_new_password(world: World) -> Scene:
    scene = await _own_password(world)
    scene.options["json"]["new_password"] = "Another-Horse-8"
    return scene


async def _own_new_email(world: World) -> Scene:
    scene = await _own_password(world)
    scene.options["json"]["new_email"] = f"new{next(_numbers)}@example.com"
    return scene


async def _forgotten(world: World) -> Scene:
    owner = await newcomer(world.root)
    return Scene(owner, options={"json": {"email": owner.email}})


async def _a_reset(world: World) -> Scene:
    scene = await _forgotten(world)
    token = await links.forgotten(scene.owner, **scene.options["json"])
    return Scene(scene.owner, options={"json": {"token": token, "password": PASSWORD}})


async def _a_verification(world: World) -> Scene:
    owner = await newcomer(world.root)
    assert (await owner.post("/auth/email/verify/resend")).status_code == 202
    token = await links.token_to(owner, owner.email)
    return Scene(owner, options={"json": {"token": token}})


async def _a_user(world: World) -> Scene:
    owner = await newcomer(world.root)
    return Scene(owner, {"user_id": owner.id})


async def _a_user_who_wrote(world: World) -> Scene:
    owner = await newcomer(world.root)
    await owner.write(tags=["seen"])
    return Scene(owner, {"user_id": owner.id})


async def _a_deleted_user(world: World) -> Scene:
    scene = await _a_user(world)
    assert (await world.root.delete(f"/users/{scene.ids['user_id']}")).status_code == 204
    return scene


async def _a_new_name(world: World) -> Scene:
    scene = await _a_user(world)
    scene.options["json"] = {"name": "Another Name"}
    return scene


async def _new_role(world: World) -> Scene:
    body = {"name": f"new role {next(_numbers)}", "permissions": []}
    return Scene(await newcomer(world.root), options={"json": body})


async def _a_role(world: World) -> Scene:
    """A role that its owner has and that grants nothing: only the gate can refuse."""
    owner = await newcomer(world.root)
    made = await world.root.post("/roles", {"name": f"a role {next(_numbers)}"})
    role_id = made.json()["id"]
    given = await world.root.put(f"/users/{owner.id}/roles/{role_id}")
    assert given.status_code == 204
    return Scene(owner, {"user_id": owner.id, "role_id": role_id})


async def _a_changed_role(world: World) -> Scene:
    scene = await _a_role(world)
    scene.options["json"] = {"description": "Another description"}
    return scene


async def _a_role_to_give(world: World) -> Scene:
    scene = await _a_role(world)
    taken = await world.root.delete("/users/{user_id}/roles/{role_id}".format(**scene.ids))
    assert taken.status_code == 204
    return scene


async def _a_mail(world: World) -> Scene:
    account = await world.root.register("Mel")
    mails = (await world.root.get("/outbox")).json()["items"]
    mail = next(mail for mail in mails if mail["recipient"] == account["email"])
    return Scene(await newcomer(world.root), {"mail_id": mail["id"]})


async def _an_event(world: World) -> Scene:
    await world.root.register("Eve")
    return Scene(await newcomer(world.root))


async def _new_post(world: World) -> Scene:
    body = {"title": "A title", "content": "Some content.", "tags": ["new"]}
    return Scene(await newcomer(world.root), options={"json": body})


async def _published(world: World) -> Scene:
    owner = await newcomer(world.root)
    post = await owner.write(tags=["seen"])
    return Scene(owner, {"post_id": post["id"]})


async def _draft(world: World) -> Scene:
    owner = await newcomer(world.root)
    post = await owner.write(status="draft", tags=["unseen"])
    return Scene(owner, {"post_id": post["id"]})


async def _trashed(world: World) -> Scene:
    scene = await _published(world)
    assert (await scene.owner.delete(f"/posts/{scene.ids['post_id']}")).status_code == 204
    return scene


async def _changed(scene: Scene) -> Scene:
    scene.options["json"] = {"title": "Another title"}
    return scene


async def _changed_published(world: World) -> Scene:
    return await _changed(await _published(world))


async def _changed_draft(world: World) -> Scene:
    return await _changed(await _draft(world))


SCENES: dict[str, Callable[[World], Awaitable[Scene]]] = {
    "register": _registration,
    "login": _login,
    "refresh": _refresh,
    "logout": _nothing,
    "list_sessions": _nothing,
    "end_session": _a_session,
    "end_other_sessions": _nothing,
    "forgot_password": _forgotten,
    "reset_password": _a_reset,
    "verify_email": _a_verification,
    "resend_verification": _nothing,
    "get_me": _nothing,
    "update_me": _a_new_name,
    "change_password": _own_new_password,
    "change_email": _own_new_email,
    "delete_me": _own_password,
    "list_users": _nothing,
    "create_user": _account,
    "get_user": _a_user,
    "update_user": _a_new_name,
    "delete_user": _a_user,
    "restore_user": _a_deleted_user,
    "list_user_posts": _a_user_who_wrote,
    "list_user_roles": _a_user,
    "assign_role": _a_role_to_give,
    "revoke_role": _a_role,
    "list_permissions": _nothing,
    "list_roles": _nothing,
    "create_role": _new_role,
    "get_role": _a_role,
    "update_role": _a_changed_role,
    "delete_role": _a_role,
    "list_role_users": _a_role,
    "list_posts": _published,
    "create_post": _new_post,
    "get_post": _published,
    "get_post:draft": _draft,
    "update_post": _changed_published,
    "update_post:draft": _changed_draft,
    "delete_post": _published,
    "delete_post:draft": _draft,
    "restore_post:trash": _trashed,
    "publish_post": _published,
    "publish_post:draft": _draft,
    "unpublish_post": _published,
    "unpublish_post:draft": _draft,
    "list_tags": _published,
    "list_audit_events": _an_event,
    "list_mails": _a_mail,
    "retry_mail": _a_mail,
    "list_keys": _nothing,
    "health": _nothing,
    "ready": _nothing,
}


# --- Looking behind the API ------------------------------------------------------------------


async def snapshot(database: Database) -> dict[str, list[Any]]:
    """Every row of every table but the audit trail, where refusals are written down."""
    options = {INCLUDE_DELETED: True}
    found = {}
    async with database.begin(readonly=True) as session:
        for table in Base.metadata.sorted_tables:
            if table is AuditEvent.__table__:
                continue
            statement = select(table).order_by(*table.primary_key.columns)
            rows = await session.execute(statement, execution_options=options)
            found[table.name] = [tuple(row) for row in rows]
    return found
