"""The outbox: what was mailed, what waits, what failed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Query

from app.core.exceptions import MailAlreadySent
from app.crud import outbox
from app.crud.base import PageOf
from app.routers.deps import (
    API,
    CursorsDep,
    DispatcherDep,
    Id,
    LinksDep,
    OutboxReader,
    OutboxWriter,
    SessionDep,
    SettingsDep,
)
from app.routers.responses import problems
from app.schemas import outbox as schemas
from app.schemas.pages import Page
from app.tasks.mail import describe

router = APIRouter(prefix=f"{API}/outbox", tags=["operations"])


@router.get("", response_model=Page[schemas.Mail])
async def list_mails(
    query: Annotated[schemas.MailQuery, Query()],
    _: OutboxReader,
    session: SessionDep,
    settings: SettingsDep,
    cursors: CursorsDep,
    links: LinksDep,
) -> PageOf[schemas.Mail]:
    """List the mails. Without an SMTP server this is the development mailbox."""
    page = await outbox.list_mails(session, query=query, cursors=cursors)
    return links.to(page.of(lambda mail: describe(mail, settings)))


@router.post(
    "/{mail_id}/retry",
    status_code=202,
    response_model=schemas.Mail,
    responses=problems(MailAlreadySent),
)
async def retry_mail(
    mail_id: Id,
    _: OutboxWriter,
    session: SessionDep,
    settings: SettingsDep,
    background: BackgroundTasks,
    dispatcher: DispatcherDep,
) -> schemas.Mail:
    """Try a mail again, at once and with all its attempts."""
    mail = await outbox.retry(session, mail_id=mail_id)
    background.add_task(dispatcher.wake)
    return describe(mail, settings)
