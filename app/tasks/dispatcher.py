"""Delivers the outbox from inside the API process; no mail's only copy is ever in memory."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import partial

from app.config import Settings
from app.db.engine import Database
from app.db.failures import described
from app.tasks.delivery import Delivery
from app.tasks.mail import Mailer

log = logging.getLogger("app.outbox")
POLL_SECONDS = 1.0
AT_ONCE = 10
# With what `server/serving.py` takes before this stays under the 10 s of most supervisors.
STOP_SECONDS = 3.0


class Dispatcher:
    """Looks for due mails when woken and every second, and sends up to AT_ONCE side by side.

    Any number of processes may run one: `crud/outbox.py` lets a single one claim a mail.
    """

    def __init__(self, database: Database, mailer: Mailer, settings: Settings) -> None:
        self._delivery = Delivery(database, mailer, settings)
        self.deliver = self._delivery.deliver
        self._wake = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._sending: dict[int, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Begin to look for mails, in a task of its own."""
        self._loop = asyncio.create_task(self._run(), name="outbox-dispatcher")

    async def wake(self) -> None:
        """Look for mails now. A call that is lost costs a second, not a mail."""
        self._wake.set()

    async def pause(self) -> None:
        """Look for no more mails; what is being sent is sent to its end."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.wait({self._loop})

    async def stop(self) -> None:
        """Finish what is being sent, within STOP_SECONDS; the rest stays in the outbox."""
        await self.pause()
        if not self._sending:
            return
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
                log.warning("outbox not readable", extra=described(error))
            # Not `wait_for`: before Python 3.12 it swallows a cancellation that meets the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._wake.wait()

    async def _start_due(self) -> None:
        free = AT_ONCE - len(self._sending)
        if free <= 0:
            return
        mail_ids = await self._delivery.due(limit=AT_ONCE + free)
        for mail_id in [mail_id for mail_id in mail_ids if mail_id not in self._sending][:free]:
            task = asyncio.create_task(self.deliver(mail_id))
            self._sending[mail_id] = task
            task.add_done_callback(partial(self._done, mail_id))

    def _done(self, mail_id: int, task: asyncio.Task[None]) -> None:
        del self._sending[mail_id]
        self._wake.set()
        if not task.cancelled() and (error := task.exception()):
            log.warning("mail left for later", extra=described(error))
