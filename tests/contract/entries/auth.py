"""Accounts that their owners make, logins, and the links in mails."""

from __future__ import annotations

from tests.contract.entries.base import Body, Case, Entry, Filled, nothing
from tests.contract.entries.users import USER, account
from tests.support import links
from tests.support.client import PASSWORD
from tests.support.matrix import Scenario, World
from tests.support.people import new_user
from tests.support.proxied_app import new_account
from tests.support.response_shapes import keys, page_of

TOKEN = keys("access_token token_type expires_in refresh_token scope")
SESSION = keys("id created_at last_used_at expires_at ip user_agent current")


async def registration(world: World) -> Scenario:
    scenario = await account(world)
    scenario.options["json"]["password"] = PASSWORD
    return scenario


async def login(world: World) -> Scenario:
    owner = await new_user(world.root)
    return Scenario(owner, options={"data": {"username": owner.email, "password": PASSWORD}})


async def refresh(world: World) -> Scenario:
    scenario = await login(world)
    login_again = await world.root.request("POST", "/auth/login", **scenario.options)
    return Scenario(
        scenario.owner, options={"json": {"refresh_token": login_again.json()["refresh_token"]}}
    )


async def a_session(world: World) -> Scenario:
    owner = await new_user(world.root)
    (session,) = (await owner.get("/auth/sessions")).json()["items"]
    return Scenario(owner, {"session_id": session["id"]})


async def forgotten(world: World) -> Scenario:
    owner = await new_user(world.root)
    return Scenario(owner, options={"json": {"email": owner.email}})


async def a_reset(world: World) -> Scenario:
    scenario = await forgotten(world)
    token = await links.forgotten(scenario.owner, **scenario.options["json"])
    return Scenario(scenario.owner, options={"json": {"token": token, "password": PASSWORD}})


async def a_verification(world: World) -> Scenario:
    owner = await new_user(world.root)
    assert (await owner.post("/auth/email/verify/resend")).status_code == 202
    token = await links.token_to(owner, owner.email)
    return Scenario(owner, options={"json": {"token": token}})


def _body(number: int) -> Body:
    return {"email": f"key{number}@example.com", "name": "Ana", "password": PASSWORD}


async def _fill(filled: Filled) -> None:
    admin, members = filled.admin, filled.members
    refresh_token = (await admin.log_in(admin.email))["refresh_token"]
    members["refresh"] = {"refresh_token": refresh_token}
    (filled.ids["session"],) = [
        entry["id"]
        for entry in (await admin.get("/auth/sessions")).json()["items"]
        if not entry["current"]
    ]
    lost = (await admin.register("Lost"))["email"]
    members["verify_email"] = {"token": await links.token_to(admin, lost)}
    members["reset_password"] = {"token": await links.forgotten(admin, email=lost)}


ENTRY = Entry(
    "auth",
    # Of each of ACTORS: anonymous, user, owner, stranger, moderator, admin, disabled, deleted.
    {
        "register": Case((201, 201, 201, 201, 201, 201, 201, 201), registration, USER),
        "login": Case((200, 200, 200, 200, 200, 200, 200, 200), login, TOKEN),
        "refresh": Case((200, 200, 200, 200, 200, 200, 200, 200), refresh, TOKEN),
        "logout": Case((401, 204, 204, 204, 204, 204, 401, 401), nothing, None),
        "list_sessions": Case((401, 200, 200, 200, 200, 200, 401, 401), nothing, page_of(SESSION)),
        "end_session": Case((401, 404, 204, 404, 404, 404, 401, 401), a_session, None),
        "end_other_sessions": Case((401, 204, 204, 204, 204, 204, 401, 401), nothing, None),
        "forgot_password": Case((202, 202, 202, 202, 202, 202, 202, 202), forgotten, None),
        "reset_password": Case((204, 204, 204, 204, 204, 204, 204, 204), a_reset, None),
        "verify_email": Case((204, 204, 204, 204, 204, 204, 204, 204), a_verification, None),
        "resend_verification": Case((401, 202, 202, 202, 202, 202, 401, 401), nothing, None),
    },
    bodies={"/auth/register": _body},
    writes={
        "register": ("POST", "/auth/register", new_account()),
        "login": ("POST", "/auth/login", None),
        "refresh": ("POST", "/auth/refresh", {}),
        "logout": ("POST", "/auth/logout", None),
        "end_session": ("DELETE", "/auth/sessions/{session}", None),
        "end_other_sessions": ("DELETE", "/auth/sessions", None),
        "forgot_password": ("POST", "/auth/password/forgot", {"email": "lost@example.com"}),
        "reset_password": ("POST", "/auth/password/reset", {"password": "Another-Horse-8"}),
        "verify_email": ("POST", "/auth/email/verify", {}),
        "resend_verification": ("POST", "/auth/email/verify/resend", None),
    },
    fill=_fill,
)
