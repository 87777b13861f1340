"""One attempt to deliver one mail of the outbox, by an API process or a worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from app.config import Settings
from app.crud import outbox
from app.crud.outbox import Failure
from app.db.engine import Database
from app.db.errors import is_outage
from app.models.outbox import Mail, MailState
from app.tasks.mail import Mailer, NotSent, compose

log = logging.getLogger("app.outbox")
DATABASE_SECONDS = 10.0
BUSY_SECONDS = 0.1
T = TypeVar("T")


class Delivery:
    """Finds due mails and delivers them, one by one.

    Any number of processes may have one: `crud/outbox.py` lets a single one claim a mail.
    """

    def __init__(self, database: Database, mailer: Mailer, settings: Settings) -> None:
        self._database = database
        self._mailer = mailer
        self._settings = settings

    async def due(self, *, limit: int) -> Sequence[int]:
        """Return the ids of mails to try now, the longest waiting first."""
        async with (
            asyncio.timeout(DATABASE_SECONDS),
            self._database.begin(readonly=True) as session,
        ):
            return await outbox.due(session, limit=limit)

    async def deliver(self, mail_id: int) -> None:
        """Claim a mail, send it, write down how it went. Harmless when called twice."""
        mail = await self._write_with_retry(partial(outbox.claim, mail_id=mail_id))
        if mail is None:
            return
        try:
            await self._mailer.send(compose(mail, self._settings))
        except NotSent as error:
            await self._failed(mail, str(error), error.failure)
        # A mail that cannot even be written must not hold up the others.
        except Exception as error:  # noqa: BLE001 see above
            await self._failed(mail, type(error).__name__, Failure.refused)
        else:
            await self._write_with_retry(partial(outbox.mark_sent, claimed=mail))
            log.info("mail sent", extra={"mail_id": mail.id, "kind": mail.kind})

    async def _failed(self, mail: Mail, reason: str, failure: Failure) -> None:
        state = await self._write_with_retry(
            partial(outbox.mark_failed, claimed=mail, reason=reason, failure=failure)
        )
        level = logging.ERROR if state is MailState.dead else logging.WARNING
        log.log(level, "mail not sent", extra={"mail_id": mail.id, "state": state})

    async def _write_with_retry(self, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """Do some work in a transaction, again while the database is busy or away, within
        DATABASE_SECONDS: a delivery that is not written down would be repeated."""
        async with asyncio.timeout(DATABASE_SECONDS):
            while True:
                try:
                    async with self._database.begin() as session:
                        return await work(session)
                # Also when a lost COMMIT had arrived: what is done already is not done again.
                except Exception as error:
                    if not is_outage(error):
                        raise
                await asyncio.sleep(BUSY_SECONDS)
