"""The API process delivers mails within a minute while Redis accepts no tasks."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import cast

import pytest
from redis.asyncio import Redis

from app.tasks import fallback
from app.tasks.dispatcher import Dispatcher
from app.tasks.fallback import Fallback
from app.tasks.queue import CeleryNotifier
from tests.conftest import make_settings, migrate
from tests.support.apps import app_of
from tests.support.client import Client
from tests.support.faults import eventually
from tests.support.redis_server import free_port, running_redis


def test_a_minute_is_enough() -> None:
    assert fallback.PATIENCE_SECONDS + 2 * fallback.LOOK_SECONDS < 60


async def test_one_that_never_ran_can_be_stopped(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/test.db"
    async with app_of(make_settings(url, tmp_path, redis_url="redis://nowhere")) as app:
        await app.state.dispatcher.stop()


class Engine:
    """What is started and stopped, and may be down."""

    def __init__(self) -> None:
        self.is_down = False
        self.done: list[str] = []

    def start(self) -> None:
        self.done.append("start")

    async def wake(self) -> None:
        self.done.append("wake")

    async def stop(self) -> None:
        self.done.append("stop")

    async def pause(self) -> None:
        self.done.append("pause")


async def test_it_delivers_after_a_while_and_until_redis_takes_tasks() -> None:
    waker, dispatcher = Engine(), Engine()
    own = Fallback(cast("CeleryNotifier", waker), cast("Dispatcher", dispatcher))
    await own._look(0.0)
    waker.is_down = True
    for moment in (100.0, 110.0, 100.0 + fallback.PATIENCE_SECONDS, 200.0):
        assert dispatcher.done == (["start"] if moment == 200.0 else [])
        await own._look(moment)
    await own.wake()
    waker.is_down = False
    await own._look(300.0)
    await own._look(400.0)
    assert dispatcher.done == ["start", "wake", "pause"]
    own._is_over = True
    await own._run()
    assert waker.done == ["wake"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fallback, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(fallback, "PATIENCE_SECONDS", 0.1)


@pytest.mark.usefixtures("quick")
async def test_a_redis_that_is_away_keeps_no_mail(tmp_path: Path) -> None:
    """Without it the process delivers itself; a mail lands where there is no SMTP server."""
    url = f"sqlite+aiosqlite:///{tmp_path}/test.db"
    await asyncio.to_thread(migrate, url, tmp_path)
    away = f"redis://127.0.0.1:{free_port()}/0"
    settings = make_settings(url, tmp_path, redis_url=away)
    async with app_of(settings) as app, app.router.lifespan_context(app):
        engine = app.state.dispatcher
        assert isinstance(engine, Fallback)
        await eventually(lambda: engine._delivers)
        await engine.wake()


@pytest.mark.usefixtures("quick")
async def test_a_redis_that_is_full_is_told_and_gone_around(
    client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = client.app.state.settings.database_url
    async with running_redis(tmp_path) as redis:
        settings = make_settings(url, tmp_path, redis_url=redis.url)
        async with (
            app_of(settings) as app,
            app.router.lifespan_context(app),
            Redis.from_url(redis.url) as commands,
        ):
            engine, readiness = app.state.dispatcher, app.state.readiness
            assert await readiness.missing() == []
            await commands.config_set("maxmemory", "1mb")
            await commands.config_set("maxmemory-policy", "noeviction")
            await eventually(lambda: engine._delivers)
            assert await readiness.missing() == ["redis"]
            account = await Client(client.http, client.app, client.contract).register()
            await engine.wake()
            began = time.monotonic()
            kept = tmp_path / "mail"
            await eventually(lambda: kept.is_dir() and any(kept.iterdir()))
            assert time.monotonic() - began < 30
            assert account["email"]
            await commands.config_set("maxmemory", "0")
            await eventually(lambda: not engine._delivers)
    messages = [record.getMessage() for record in caplog.records if record.name == "app.queue"]
    assert "mails are delivered by this process until redis takes tasks" in messages
