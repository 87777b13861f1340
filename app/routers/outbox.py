"""The outbox: what was mailed, what waits, what failed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request

from app.core.exceptions import MailAlreadySent
from app.core.permissions import may_manage
from app.crud import outbox
from app.routers.bodies import StrictRoute
from app.routers.deps import (
    API,
    MAILS,
    Id,
    OutboxReader,
    OutboxWriter,
    SessionDep,
    SettingsDep,
    pages_of,
)
from app.routers.lists import Json, listed, parsed
from app.routers.responses import problems
from app.schemas import outbox as schemas
from app.schemas.pages import Page
from app.tasks.mail import describe

router = APIRouter(prefix=f"{API}/outbox", tags=["operations"], route_class=StrictRoute)
MailQuery = Annotated[schemas.MailQuery, parsed(schemas.MailQuery)]


@router.get("", response_model=Page[schemas.Mail])
async def list_mails(
    caller: OutboxReader, query: MailQuery, settings: SettingsDep, request: Request
) -> Json:
    """List the mails. Without an SMTP server this is, in development, the mailbox: `text` and
    `html` are shown, with the links that open accounts cut out unless you may manage the
    recipient. In production they are shown only if you may, and null otherwise."""

    def shown(listed_mail: outbox.ListedMail) -> schemas.Mail:
        held = listed_mail.recipient_permissions
        is_managed = held is not None and may_manage(caller, held)
        return describe(listed_mail.mail, settings, recipient_is_managed=is_managed)

    page = await outbox.list_mails(pages_of(request), query=query)
    return listed(request, page.of(shown))


@router.post(
    "/{mail_id}/retry",
    status_code=202,
    response_model=schemas.Mail,
    responses=problems(MailAlreadySent),
    dependencies=[MAILS],
)
async def retry_mail(
    mail_id: Id,
    _: OutboxWriter,
    session: SessionDep,
    settings: SettingsDep,
) -> schemas.Mail:
    """Try a mail again, at once and with all its attempts. `text` and `html` are always null."""
    mail = await outbox.retry(session, mail_id=mail_id)
    return describe(mail, settings, with_texts=False)
