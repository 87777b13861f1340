"""Delivers the outbox from inside the API process; no mail's only copy is ever in memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from app.config import Settings
from app.crud import outbox
from app.database import Database, is_transient
from app.models.outbox import Mail, MailState
from app.tasks.mail import Mailer, Refused, Unreachable, compose

log = logging.getLogger("app.outbox")
POLL_SECONDS = 1.0
AT_ONCE = 10
# With the server's own GRACE_SECONDS (app/cli.py) this stays under the 10 s of most supervisors.
STOP_SECONDS = 3.0
DATABASE_SECONDS = 10.0
BUSY_SECONDS = 0.1
T = TypeVar("T")


class Dispatcher:
    """Looks for due mails when woken and every second, and sends up to AT_ONCE side by side.

    Any number of processes may run one: `crud/outbox.py` lets a single one claim a mail.
    """

    def __init__(self, database: Database, mailer: Mailer, settings: Settings) -> None:
        self._database = database
        self._mailer = mailer
        self._settings = settings
        self._wake = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._sending: dict[int, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Begin to look for mails, in a task of its own."""
        self._loop = asyncio.create_task(self._run(), name="outbox-dispatcher")

    def wake(self) -> None:
        """Look for mails now. A call that is lost costs a second, not a mail."""
        self._wake.set()

    async def stop(self) -> None:
        """Finish what is being sent, within STOP_SECONDS; the rest stays in the outbox."""
        if self._loop is not None:
            self._loop.cancel()
            with suppress(asyncio.CancelledError):
                await self._loop
        if self._sending:
            _, late = await asyncio.wait(self._sending.values(), timeout=STOP_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._start_due()
            # Whatever goes wrong here (the database above all), the next round tries again.
            except Exception as error:  # noqa: BLE001 see above
                log.warning("outbox not readable", extra={"error": type(error).__name__})
            # Not `wait_for`: before Python 3.12 it swallows a cancellation that meets the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._wake.wait()

    async def _start_due(self) -> None:
        free = AT_ONCE - len(self._sending)
        if free <= 0:
            return
        async with (
            asyncio.timeout(DATABASE_SECONDS),
            self._database.begin(readonly=True) as session,
        ):
            mail_ids = await outbox.due(session, limit=AT_ONCE + free)
        for mail_id in [mail_id for mail_id in mail_ids if mail_id not in self._sending][:free]:
            task = asyncio.create_task(self.deliver(mail_id))
            self._sending[mail_id] = task
            task.add_done_callback(partial(self._done, mail_id))

    def _done(self, mail_id: int, task: asyncio.Task[None]) -> None:
        del self._sending[mail_id]
        self._wake.set()
        if not task.cancelled() and (error := task.exception()):
            log.warning("mail left for later", extra={"error": type(error).__name__})

    async def deliver(self, mail_id: int) -> None:
        """Claim a mail, send it, write down how it went. Harmless when called twice."""
        mail = await self._written(partial(outbox.claim, mail_id=mail_id))
        if mail is None:
            return
        try:
            await self._mailer.send(compose(mail, self._settings))
        except Unreachable as error:
            await self._failed(mail, str(error), is_outage=True)
        except Refused as error:
            await self._failed(mail, str(error))
        # A mail that cannot even be written must not hold up the others.
        except Exception as error:  # noqa: BLE001 see above
            await self._failed(mail, type(error).__name__)
        else:
            await self._written(partial(outbox.mark_sent, claimed=mail))
            log.info("mail sent", extra={"mail_id": mail.id, "kind": mail.kind})

    async def _failed(self, mail: Mail, reason: str, *, is_outage: bool = False) -> None:
        state = await self._written(
            partial(outbox.mark_failed, claimed=mail, reason=reason, is_outage=is_outage)
        )
        level = logging.ERROR if state is MailState.dead else logging.WARNING
        log.log(level, "mail not sent", extra={"mail_id": mail.id, "state": state})

    async def _written(self, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """Do some work in a transaction, again while the database is busy, within
        DATABASE_SECONDS: a delivery that is not written down would be repeated."""
        async with asyncio.timeout(DATABASE_SECONDS):
            while True:
                try:
                    async with self._database.begin() as session:
                        return await work(session)
                except DBAPIError as error:
                    if not is_transient(error):
                        raise
                await asyncio.sleep(BUSY_SECONDS)
