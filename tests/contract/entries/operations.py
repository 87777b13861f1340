"""The audit trail, the outbox, public keys and health."""

from __future__ import annotations

from sqlalchemy import select, update

from app.core.permissions import Permission
from app.models.outbox import Mail, MailState
from tests.contract.entries.base import Case, Entry, Filled, nothing
from tests.support.client import Client, Person
from tests.support.matrix import Scenario, World
from tests.support.people import new_user
from tests.support.response_shapes import OPEN, keys, page_of

MAIL = keys(
    "id kind recipient locale subject text html message_id state attempts next_attempt_at"
    " sent_at last_error created_at"
)
EVENT = keys(
    "id created_at act actor_id subject_type subject_id ip user_agent request_id", details=OPEN
)
HEALTH = keys("status")
JWKS = keys("", keys=keys("kty crv x y alg use kid"))


async def a_mail(world: World) -> Scenario:
    account = await world.root.register("Mel")
    mails = (await world.root.get("/outbox")).json()["items"]
    mail = next(mail for mail in mails if mail["recipient"] == account["email"])
    return Scenario(await new_user(world.root), {"mail_id": mail["id"]})


async def an_event(world: World) -> Scenario:
    await world.root.register("Eve")
    return Scenario(await new_user(world.root))


async def _fill(filled: Filled) -> None:
    async with filled.admin.database.begin() as session:
        filled.ids["mail"] = await session.scalar(select(Mail.id).limit(1)) or 0
        await session.execute(update(Mail).values(state=MailState.dead))


async def _mail_id(_: Client, admin: Person) -> int:
    return int((await admin.get("/outbox")).json()["items"][0]["id"])


ENTRY = Entry(
    "operations",
    # Of each of ACTORS: anonymous, user, owner, stranger, moderator, admin, disabled, deleted.
    {
        "list_audit_events": Case(
            (401, 403, 403, 403, 403, 200, 401, 401),
            an_event,
            page_of(EVENT),
            Permission.audit_read,
        ),
        "list_mails": Case(
            (401, 403, 403, 403, 403, 200, 401, 401), a_mail, page_of(MAIL), Permission.outbox_read
        ),
        "retry_mail": Case(
            (401, 403, 403, 403, 403, 202, 401, 401), a_mail, MAIL, Permission.outbox_write
        ),
        "list_keys": Case((200, 200, 200, 200, 200, 200, 200, 200), nothing, JWKS),
        "health": Case((200, 200, 200, 200, 200, 200, 200, 200), nothing, HEALTH),
        "ready": Case((200, 200, 200, 200, 200, 200, 200, 200), nothing, HEALTH),
    },
    writes={"retry_mail": ("POST", "/outbox/{mail}/retry", None)},
    fill=_fill,
    row_ids={"mail_id": _mail_id},
)
