"""What workers and beat do, on every database; `test_queue_processes.py` has them as processes."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from celery import signals

from app.config import Settings
from app.crud import outbox
from app.db.engine import Database
from app.models.outbox import MailState
from app.tasks import worker as working
from app.tasks.queue import DELIVER, ENOUGH, PURGE, SWEEP, Publisher
from app.tasks.retention import Purged
from app.tasks.worker import celery_with_tasks
from tests.conftest import make_settings
from tests.support.client import Client
from tests.support.commands import SetEnv, invoke
from tests.support.delivery import A
from tests.support.logs import Output, kept_logging
from tests.support.mails import make_due, queue, stored
from tests.support.queues import in_memory, waiting
from tests.support.smtp import Sink


class Worker:
    """The tasks of a worker in this process, with a queue of its own."""

    def __init__(self, settings: Settings) -> None:
        with_redis = settings.model_copy(update={"redis_url": "redis://nowhere"})
        self.celery, self.jobs = celery_with_tasks(with_redis)
        in_memory(self.celery)

    async def run(self, task: str, *arguments: Any) -> None:
        """Run a task as a worker does, in a thread as it is not a coroutine."""
        ran = self.celery.tasks[task].apply
        await asyncio.to_thread(lambda: ran(arguments, throw=False))

    def waiting(self) -> list[tuple[str, list[Any]]]:
        return waiting(self.celery)


@pytest.fixture
async def worker(smtp: Settings) -> AsyncIterator[Worker]:
    found = Worker(smtp)
    yield found
    await asyncio.to_thread(found.jobs.close)


@pytest.fixture
def quiet_signals() -> Iterator[None]:
    """What is connected to Celery's signals is forgotten again."""
    known = (
        signals.setup_logging,
        signals.worker_process_shutdown,
        signals.worker_shutdown,
        signals.worker_shutting_down,
    )
    before, stdout = [each.receivers for each in known], sys.__stdout__
    for each in known:
        each.receivers = []
    with kept_logging():
        yield
    sys.__stdout__ = stdout  # type: ignore[misc]  # see worker.py
    for each, receivers in zip(known, before, strict=True):
        each.receivers = receivers


# --- The tasks -------------------------------------------------------------------------------


async def test_a_sweep_finds_what_is_due_and_a_delivery_sends_it_once(
    database: Database, worker: Worker, sink: Sink
) -> None:
    first, second, later = await queue(database, A, "b@example.com", "c@example.com")
    await make_due(database, later, (await stored(database, later)).created_at.replace(year=2999))
    await worker.run(SWEEP)
    assert sorted(worker.waiting()) == [(DELIVER, [first]), (DELIVER, [second])]
    await asyncio.gather(*(worker.run(DELIVER, first) for _ in range(3)))
    assert len(sink.to(A)) == 1
    assert (await stored(database, first)).state == MailState.sent
    await worker.run(SWEEP)
    assert worker.waiting() == [(DELIVER, [second])]


async def test_sweeps_while_workers_are_slow_do_not_fill_the_queue(
    database: Database, worker: Worker
) -> None:
    await queue(database, *(f"person{number}@example.com" for number in range(ENOUGH // 2)))
    for _ in range(5):
        await worker.run(SWEEP)
    assert len(worker.waiting()) == ENOUGH, "twice in it at most"


async def test_an_empty_outbox_puts_nothing_into_the_queue(worker: Worker) -> None:
    await worker.run(SWEEP)
    assert worker.waiting() == []


@pytest.mark.parametrize("poison", [(999_999_999,), ("x",), (None,), (2**80,), ({},), (), (1, 2)])
async def test_a_task_that_makes_no_sense_is_done_with(
    database: Database, worker: Worker, sink: Sink, poison: tuple[Any, ...]
) -> None:
    """It does not come up again, and the next one is done."""
    [mail_id] = await queue(database, A)
    await worker.run(DELIVER, *poison)
    assert worker.waiting() == []
    await worker.run(DELIVER, mail_id)
    assert len(sink.to(A)) == 1


async def test_a_mail_that_ends_every_worker_is_given_up(
    database: Database, worker: Worker, sink: Sink
) -> None:
    [mail_id] = await queue(database, A)
    for _ in range(outbox.MAX_ATTEMPTS):
        async with database.begin() as session:
            assert await outbox.claim(session, mail_id=mail_id)
        await make_due(database, mail_id)
    await worker.run(DELIVER, mail_id)
    assert (await stored(database, mail_id)).state == MailState.dead
    assert sink.deliveries == []


async def test_a_database_that_is_away_is_told_and_the_next_sweep_goes_on(
    database: Database, worker: Worker, logs: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    await queue(database, A)

    async def away(*_: Any, **__: Any) -> None:
        raise ConnectionRefusedError

    with monkeypatch.context() as patch:
        patch.setattr(outbox, "due", away)
        patch.setattr(working, "purge_deleted", away)
        await worker.run(SWEEP)
        await worker.run(PURGE)
    assert worker.waiting() == []
    lines = [entry for entry in logs.entries() if entry["logger"] == "app.worker"]
    assert [(line["message"], line["error"]) for line in lines] == [
        ("task left for later", "ConnectionRefusedError")
    ] * 2
    await worker.run(SWEEP)
    assert len(worker.waiting()) == 1


async def test_the_nightly_purge_does_what_the_command_does(
    client: Client, worker: Worker, logs: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    ana = await client.user()
    post_id = (await ana.write())["id"]
    await ana.delete(f"/posts/{post_id}")
    monkeypatch.setattr(worker.jobs, "_settings", worker.jobs._settings.model_copy())
    worker.jobs._settings.trash_days = 0
    await worker.run(PURGE)
    [line] = [entry for entry in logs.entries() if entry["logger"] == "app.worker"]
    assert (line["message"], line["posts"], line["users"], line["events"]) == ("purged", 1, 0, 0)


async def test_what_could_not_be_purged_is_told(
    worker: Worker, logs: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: Any) -> Purged:
        return Purged(Counter(posts=0, tags=1), failures={"posts": ConnectionRefusedError()})

    monkeypatch.setattr(working, "purge_deleted", refused)
    await worker.run(PURGE)
    done, left = [entry for entry in logs.entries() if entry["logger"] == "app.worker"]
    assert (done["message"], done["posts"], done["tags"]) == ("purged", 0, 1)
    assert (left["message"], left["rule"], left["error"]) == (
        "not all purged",
        "posts",
        "ConnectionRefusedError",
    )


# --- One event loop a process ----------------------------------------------------------------


async def test_tasks_that_are_first_at_once_share_one_event_loop(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []

    def slowly() -> Any:
        started.append(None)
        threading.Event().wait(0.05)
        return start_blocking_portal()

    monkeypatch.setattr(working, "start_blocking_portal", slowly)
    await asyncio.gather(*(worker.run(SWEEP) for _ in range(5)))
    assert len(started) == 1


async def test_after_the_end_of_its_event_loop_a_process_can_make_another(
    database: Database, worker: Worker, sink: Sink
) -> None:
    await asyncio.to_thread(worker.jobs.close)
    for recipient in (A, "b@example.com"):
        [mail_id] = await queue(database, recipient)
        await worker.run(DELIVER, mail_id)
        await asyncio.to_thread(worker.jobs.close)
    assert len(sink.deliveries) == 2
    assert not [each for each in threading.enumerate() if "anyio" in each.name.lower()]


# --- The commands ----------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["worker", "beat"])
async def test_without_redis_there_is_nothing_to_work_for(set_env: SetEnv, command: str) -> None:
    set_env(redis_url="")
    refused = await invoke(command)
    assert refused.exit_code == 1
    assert str(refused.exception).startswith("cimiento: refusing to start: workers need REDIS_URL")


@pytest.mark.usefixtures("quiet_signals")
async def test_a_worker_takes_the_options_of_celery(
    set_env: SetEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[str] = []
    monkeypatch.setattr("celery.Celery.worker_main", lambda _, argv: given.extend(argv))
    set_env(redis_url="redis://nowhere", log_format="console")
    done = await invoke("worker", "--concurrency", "8", "--pool", "threads")
    assert done.exit_code == 0, done.output
    assert given[given.index("worker") :] == [
        *("worker", "--without-mingle", "--without-gossip"),
        *("--concurrency", "8", "--pool", "threads"),
    ]
    assert sys.__stdout__ is None, "Celery has nowhere to talk past the log"
    signals.setup_logging.send(sender=None)
    assert not logging.getLogger("celery.app.trace").isEnabledFor(logging.INFO)


@pytest.mark.usefixtures("quiet_signals")
async def test_beat_asks_for_sweeps_and_adds_nothing_to_a_full_queue(
    set_env: SetEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: dict[str, Any] = {}

    class Beat:
        def __init__(self, **options: Any) -> None:
            recorded.update(options)

        def run(self) -> None:
            recorded["ran"] = True

    monkeypatch.setattr("celery.Celery.Beat", Beat)
    set_env(redis_url="redis://nowhere")
    done = await invoke("beat")
    assert done.exit_code == 0, done.output
    assert recorded["ran"]


def test_the_ticks_of_beat_become_sweeps(tmp_path: Path) -> None:
    worker = Worker(make_settings("sqlite://", tmp_path))
    scheduler = working._scheduler(Publisher(worker.celery))(app=worker.celery)
    schedule = scheduler.schedule
    assert {entry.task for entry in schedule.values()} == {SWEEP, PURGE}
    for _ in range(ENOUGH + 10):
        scheduler.apply_entry(schedule["sweep"], producer=scheduler.producer)
    assert worker.waiting() == [(SWEEP, [])] * ENOUGH


def test_a_worker_that_hangs_at_the_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    killed: list[tuple[int, int]] = []

    class Child:
        pid = 123

    def leave(status: int) -> None:
        assert status == 0
        ended.set()

    monkeypatch.setattr(working, "STOP_SECONDS", 0)
    monkeypatch.setattr("billiard.active_children", lambda: [Child])
    monkeypatch.setattr(os, "kill", lambda pid, what: killed.append((pid, what)))
    monkeypatch.setattr(os, "_exit", leave)
    working._end_in_time(sig="SIGTERM")
    assert ended.wait(10)
    assert killed == [(123, signal.SIGKILL)]
