"""The outbox: what was mailed, what waits, what failed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request

from app.core.exceptions import MailAlreadySent
from app.core.permissions import may_manage
from app.crud import outbox
from app.schemas import outbox as schemas
from app.schemas.pages import Page
from app.tasks.mail import describe
from app.web.dependencies import (
    API,
    WAKE_MAIL_DELIVERY,
    Id,
    OutboxReader,
    OutboxWriter,
    SessionDep,
    SettingsDep,
    paginator_of,
)
from app.web.error_responses import error_responses
from app.web.pagination import page_response, query_params
from app.web.responses import FastJSONResponse
from app.web.strict_route import StrictRoute

router = APIRouter(prefix=f"{API}/outbox", tags=["operations"], route_class=StrictRoute)
MailQuery = Annotated[schemas.MailQuery, query_params(schemas.MailQuery)]


@router.get("", response_model=Page[schemas.Mail])
async def list_mails(
    caller: OutboxReader, query: MailQuery, settings: SettingsDep, request: Request
) -> FastJSONResponse:
    """List the mails of the outbox.

    List the mails and the state of their delivery. Without an SMTP server this is, in
    development, the mailbox: `text` and `html` are shown, and links that open accounts are
    cut out unless you may manage the recipient. In production they are shown only if you may,
    and are null otherwise.
    """

    def shown(listed_mail: outbox.ListedMail) -> schemas.Mail:
        held = listed_mail.recipient_permissions
        is_managed = held is not None and may_manage(caller, held)
        return describe(listed_mail.mail, settings, recipient_is_managed=is_managed)

    page = await outbox.list_mails(paginator_of(request), query=query)
    return page_response(request, page.of(shown))


@router.post(
    "/{mail_id}/retry",
    status_code=202,
    response_model=schemas.Mail,
    responses=error_responses(MailAlreadySent),
    dependencies=[WAKE_MAIL_DELIVERY],
)
async def retry_mail(
    mail_id: Id,
    _: OutboxWriter,
    session: SessionDep,
    settings: SettingsDep,
) -> schemas.Mail:
    """Retry a mail.

    Send the mail at once, with all its attempts again. `text` and `html` of the answer are
    always null.
    """
    mail = await outbox.retry(session, mail_id=mail_id)
    return describe(mail, settings, with_texts=False)
