"""What sees to the mails of an API process: itself, or workers by way of Redis."""

from __future__ import annotations

from typing import Protocol

from app.config import Settings
from app.database import Database
from app.tasks.dispatcher import Dispatcher
from app.tasks.mail import Mailer
from app.tasks.queue import Waker


class Engine(Protocol):
    """Sees to it that due mails are delivered, from `start` to `stop`."""

    def start(self) -> None: ...

    async def wake(self) -> None: ...

    async def stop(self) -> None: ...


def engine_for(database: Database, mailer: Mailer, settings: Settings) -> Engine:
    """Workers when there is a Redis to reach them by, this process otherwise."""
    if settings.redis_url:
        return Waker(settings)
    return Dispatcher(database, mailer, settings)
