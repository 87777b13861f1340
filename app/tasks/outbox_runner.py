"""Who delivers the mails of an API process: itself, or workers by way of Redis."""

from __future__ import annotations

from typing import Protocol

from app.config import Settings
from app.db.engine import Database
from app.tasks.dispatcher import Dispatcher
from app.tasks.fallback import Fallback
from app.tasks.mail import Mailer
from app.tasks.queue import CeleryNotifier


class OutboxRunner(Protocol):
    """Has due mails delivered, from `start` to `stop`."""

    def start(self) -> None: ...

    async def wake(self) -> None: ...

    async def stop(self) -> None: ...


def outbox_runner_for(database: Database, mailer: Mailer, settings: Settings) -> OutboxRunner:
    """Return workers if there is a Redis to reach them by, this process otherwise."""
    dispatcher = Dispatcher(database, mailer, settings)
    return Fallback(CeleryNotifier(settings), dispatcher) if settings.redis_url else dispatcher
