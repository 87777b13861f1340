"""Queues to look into, some of them without a Redis."""

from __future__ import annotations

import uuid
from typing import Any

from app.tasks.queue import QUEUE


def in_memory(celery: Any) -> Any:
    """The same Celery app with a queue in this process, of its own."""
    celery.conf.update(
        broker_url="memory://",
        broker_use_ssl=None,
        broker_transport_options={"polling_interval": 0, "prefix": uuid.uuid4().hex},
    )
    waiting(celery)
    return celery


def waiting(celery: Any) -> list[tuple[str, list[Any]]]:
    """Takes every task out of the queue: names and arguments, the first one first."""
    found = []
    with celery.connection_for_read() as connection:
        channel = connection.default_channel
        channel.queue_declare(queue=QUEUE)
        while (message := channel.basic_get(QUEUE, no_ack=True)) is not None:
            found.append((message.headers["task"], message.decode()[0]))
    return found
