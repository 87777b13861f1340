"""Workers and beat: the outbox delivered, and old rows purged, outside the API processes.

Celery's tasks are plain functions. Ours are coroutines: each worker process runs them in one event
loop, in a thread of its own.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from app.config import LogFormat, Settings
from app.core import logging as app_logging
from app.db.engine import Database, connect
from app.db.failures import described
from app.tasks.delivery import Delivery
from app.tasks.mail import mailer_for
from app.tasks.queue import (
    DELIVER,
    ENOUGH,
    PURGE,
    PURGE_SECONDS,
    SWEEP,
    Publisher,
    celery_for,
)
from app.tasks.retention import purge_deleted

if TYPE_CHECKING:
    from celery import Celery

log = logging.getLogger("app.worker")
T = TypeVar("T")
# What is still being sent then is left to the next worker: this stays under the 10 s of most
# supervisors.
STOP_SECONDS = 6.0
# One line for each task would be several a second. Whatever matters is logged by the task.
_TALKATIVE = ("celery.app.trace", "celery.worker.strategy", "celery.beat")


class Jobs:
    """The tasks of one process, with its database and its event loop.

    The first task opens them: what exists before a worker forks does not work after it.
    """

    def __init__(self, settings: Settings, publisher: Publisher) -> None:
        self._settings = settings
        self._publisher = publisher
        self._lock = threading.Lock()
        self._open = ExitStack()
        self._portal: BlockingPortal | None = None
        self._database: Database | None = None

    def deliver(self, mail_id: int) -> None:
        """Try to deliver a mail, if it is due and no other worker has it."""
        self._try(lambda database: self._delivery(database).deliver(mail_id))

    def sweep(self) -> None:
        """Put what is due into the queue. Several at once put some in twice, which is harmless."""
        due = self._try(lambda database: self._delivery(database).due(limit=ENOUGH))
        if due:
            self._publisher.publish(DELIVER, [(mail_id,) for mail_id in due])

    def purge(self) -> None:
        """Delete what is too old to be kept."""
        done = self._try(lambda database: purge_deleted(database, self._settings))
        if done is not None:
            log.info("purged", extra=done.counts)
            for name, error in done.failures.items():
                log.warning("not all purged", extra={**described(error), "rule": name})

    def close(self, **_: object) -> None:
        """Close the connections and the event loop of this process; the next task opens others."""
        with self._lock:
            self._open.close()
            self._portal = None

    def _delivery(self, database: Database) -> Delivery:
        return Delivery(database, mailer_for(self._settings), self._settings)

    def _try(self, work: Callable[[Database], Awaitable[T]]) -> T | None:
        """Do some work. What goes wrong is not tried again: the next sweep finds what is due."""
        try:
            portal, database = self._opened()
            return portal.call(work, database)
        except Exception as error:  # noqa: BLE001 see above
            log.warning("task left for later", extra=described(error))
            return None

    def _opened(self) -> tuple[BlockingPortal, Database]:
        # Locked: with threads in place of processes, several tasks may be the first.
        with self._lock:
            if self._portal is None or self._database is None:
                self._portal = self._open.enter_context(start_blocking_portal())
                self._database = connect(self._settings)
                self._open.callback(self._portal.call, self._database.dispose)
            return self._portal, self._database


def celery_with_tasks(settings: Settings) -> tuple[Celery, Jobs]:
    """Return the Celery app of a worker, and what its tasks do."""
    celery = celery_for(settings)
    jobs = Jobs(settings, Publisher(celery))
    # Not `shared`: that is with every Celery app of the process.
    celery.task(jobs.deliver, name=DELIVER, shared=False)
    celery.task(jobs.sweep, name=SWEEP, shared=False)
    # Takes longer than the queue waits for an acknowledgement; tomorrow there is another one.
    celery.task(jobs.purge, name=PURGE, shared=False, acks_late=False, time_limit=PURGE_SECONDS)
    return celery, jobs


def run_worker(settings: Settings, options: Sequence[str] = ()) -> None:
    """Work until SIGTERM, and then for no longer than STOP_SECONDS. Takes Celery's own options."""
    from celery import signals  # noqa: PLC0415 see queue.celery_for

    celery, jobs = celery_with_tasks(settings)
    _log_as(settings)
    signals.worker_process_shutdown.connect(jobs.close, weak=False)
    signals.worker_shutdown.connect(jobs.close, weak=False)
    signals.worker_shutting_down.connect(_end_in_time, weak=False)
    celery.worker_main(["--quiet", "worker", "--without-mingle", "--without-gossip", *options])


def run_beat(settings: Settings) -> None:
    """Ask for a sweep every second and a purge every night, until SIGTERM. Keeps no file."""
    celery = celery_for(settings)
    _log_as(settings)
    celery.Beat(scheduler=_scheduler(Publisher(celery)), quiet=True).run()


def _scheduler(publisher: Publisher) -> Any:
    from celery.beat import Scheduler  # noqa: PLC0415 see queue.celery_for

    class Ticker(Scheduler):  # type: ignore[misc]  # Celery ships no types
        """Adds nothing to a queue that no worker empties, and logs an outage once."""

        producer = None

        def apply_async(self, entry: Any, **_: object) -> None:
            publisher.publish(entry.task)

    return Ticker


def _log_as(settings: Settings) -> None:
    """Log as the API does, and let Celery add nothing of its own."""
    from celery import signals  # noqa: PLC0415 see queue.celery_for

    def configure(**_: object) -> None:
        as_json = settings.log_format is LogFormat.json
        app_logging.configure(level=settings.log_level, as_json=as_json)
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)

    signals.setup_logging.connect(configure, weak=False)
    # Celery talks to it past the log.
    sys.__stdout__ = None  # type: ignore[misc]  # Python itself sets it where there is none


def _end_in_time(**_: object) -> None:
    """Wait for running tasks no longer than STOP_SECONDS from now on."""
    timer = threading.Timer(STOP_SECONDS, _end_now)
    timer.daemon = True
    timer.start()


def _end_now() -> None:
    """End this worker and its processes as kill -9 would: their mails come up again."""
    from billiard import active_children  # noqa: PLC0415 see queue.celery_for

    log.warning("stopped in the middle of a task")
    for child in active_children():
        os.kill(child.pid, signal.SIGKILL)
    os._exit(0)
