"""The queue in Redis, by which API processes and beat tell the workers what there is to do.

It holds no mail, only ids and hints: whatever is lost with it, the next sweep finds in the outbox.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from app.config import Settings

if TYPE_CHECKING:
    from celery import Celery

log = logging.getLogger("app.queue")
QUEUE = "cimiento-jobs"
DELIVER, SWEEP, PURGE = "cimiento.deliver", "cimiento.sweep", "cimiento.purge"
SWEEP_SECONDS = 1.0
PURGE_AT = {"hour": 3, "minute": 17}  # UTC
# While this many tasks wait, no more are added: without workers the queue would grow for ever.
ENOUGH = 200
# A task that was not acknowledged for this long is given to another worker: longer than a delivery
# may take, like the lease of a claim.
VISIBILITY_SECONDS = 60
# A process that hangs beyond every timeout of a delivery is ended.
TASK_SECONDS = 55
PURGE_SECONDS = 3600
# Mails of the same moment share one wake.
PAUSE_SECONDS = 0.05
STOP_SECONDS = 1.0


def celery_for(settings: Settings) -> Celery:
    """Return the Celery app of the settings, without tasks; it connects at first use.

    Its keys in Redis begin with `cimiento`; one installation needs one Redis database.
    """
    # Imported at first use: a process without a queue saves a quarter of a second and 13 MB.
    from celery import Celery  # noqa: PLC0415 see above
    from celery.schedules import crontab  # noqa: PLC0415 see above

    assert settings.redis_url is not None
    app = Celery("cimiento", set_as_current=False)
    app.conf.update(
        **_broker(settings.redis_url),
        # Acknowledged when it is done, and given to another when its process dies.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_default_queue=QUEUE,
        task_time_limit=TASK_SECONDS,
        task_publish_retry=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # The workers take no commands by way of Redis, and nothing subscribes to it.
        worker_enable_remote_control=False,
        worker_concurrency=4,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        enable_utc=True,
        timezone="UTC",
        beat_schedule={
            "sweep": {"task": SWEEP, "schedule": SWEEP_SECONDS},
            "purge": {"task": PURGE, "schedule": crontab(**PURGE_AT)},
        },
    )
    return app


def _broker(redis_url: str) -> dict[str, Any]:
    """Return how Celery reaches the Redis of a URL, whose options it would read in its own way."""
    from redis import connection  # noqa: PLC0415 costs half a second

    parts: dict[str, Any] = connection.parse_url(redis_url)  # type: ignore[no-untyped-call]
    login = ":".join(quote(parts.get(name, ""), safe="") for name in ("username", "password"))
    host = f"[{parts['host']}]" if ":" in parts["host"] else parts["host"]
    is_tls = redis_url.startswith("rediss:")
    tls = {name: value for name, value in parts.items() if name.startswith("ssl_")}
    return {
        "broker_url": f"{'rediss' if is_tls else 'redis'}://{f'{login}@' if login != ':' else ''}"
        f"{host}:{parts.get('port', 6379)}/{parts.get('db', 0)}",
        "broker_use_ssl": {"ssl_cert_reqs": "required"} | tls if is_tls else None,
        "broker_transport_options": {
            "visibility_timeout": VISIBILITY_SECONDS,
            # How often it is looked for such tasks: by default every 100 seconds.
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            # A lock that is left behind when Redis freezes: by default for five minutes.
            "unacked_mutex_expire": 30,
            "socket_timeout": 5,
            "socket_connect_timeout": 2,
            # Of the connecting that goes before a command; workers try for ever all the same.
            "max_retries": 0,
            # Not `global_keyprefix`, which leaves out some commands.
            "unacked_key": "cimiento-unacked",
            "unacked_index_key": "cimiento-unacked-index",
            "unacked_mutex_key": "cimiento-unacked-mutex",
        },
    }


class Publisher:
    """Puts tasks into the queue while there is room, and never raises.

    Takes seconds when Redis is frozen: not for the event loop.
    """

    def __init__(self, celery: Celery) -> None:
        self._celery = celery
        self.is_down = False

    def publish(self, task: str, each: Iterable[tuple[int, ...]] = ((),)) -> bool:
        """Ask for a task, once for each of these arguments; return whether Redis has taken them.

        With ENOUGH tasks waiting nothing is added: who works them off looks for mails again.
        """
        try:
            with self._celery.producer_or_acquire() as producer:
                has_room = bool(producer.channel.queue_declare(queue=QUEUE).message_count < ENOUGH)
                for arguments in each if has_room else ():
                    self._celery.send_task(task, arguments, producer=producer)
        # What Redis, the sockets, TLS and the library raise.
        except Exception as error:  # noqa: BLE001 see above
            self._note(error)
            return False
        self._note(None)
        return has_room

    def close(self) -> None:
        """Hang up."""
        with suppress(Exception):  # as many kinds as above
            self._celery.amqp.producer_pool.force_close_all()
            self._celery.pool.force_close_all()

    def _note(self, error: Exception | None) -> None:
        """Log an outage once, and its end."""
        if self.is_down == bool(error):
            return
        self.is_down = bool(error)
        if error:
            log.warning("redis takes no tasks", extra={"error": type(error).__name__})
        else:
            log.info("redis takes tasks again")


class CeleryNotifier:
    """Tells the workers that there are mails, from a thread of its own: what becomes of Redis
    costs no request anything. A wake that is lost costs the time until the next sweep."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._news = threading.Event()
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None
        self._publisher: Publisher | None = None

    @property
    def is_down(self) -> bool:
        """Return whether Redis took no task when it was last tried."""
        return self._publisher is not None and self._publisher.is_down

    def start(self) -> None:
        """Begin to listen for wakes."""
        publisher = self._publisher = Publisher(celery_for(self._settings))
        # A daemon: a frozen Redis must not hold up the end of the process.
        self._thread = threading.Thread(
            target=self._run, args=(publisher,), name="queue-waker", daemon=True
        )
        self._thread.start()

    async def wake(self) -> None:
        """Have the workers look for mails. Returns at once."""
        self._news.set()

    async def stop(self) -> None:
        """End the thread; one that Redis holds up is left to itself after STOP_SECONDS."""
        if self._thread is not None:
            self._is_over.set()
            self._news.set()
            await asyncio.to_thread(self._thread.join, STOP_SECONDS)

    def _run(self, publisher: Publisher) -> None:
        while True:
            self._news.wait()
            self._news.clear()
            if self._is_over.is_set():
                publisher.close()
                return
            publisher.publish(SWEEP)
            self._is_over.wait(PAUSE_SECONDS)
