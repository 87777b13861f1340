"""Dispatchers at work, and the settings with which they deliver to the tests' mail server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from app.config import Settings
from app.tasks.dispatcher import Dispatcher
from tests.conftest import make_settings
from tests.support.smtp import Sink

A = "a@example.com"


def delivering_to(sink: Sink, database_url: str, data_dir: Path) -> Settings:
    """Settings with the sink as the mail server."""
    return make_settings(
        database_url,
        data_dir,
        smtp_host="127.0.0.1",
        smtp_port=sink.port,
        smtp_tls="none",
        smtp_timeout_seconds=10,
    )


@asynccontextmanager
async def started(*dispatchers: Dispatcher) -> AsyncIterator[None]:
    """The dispatchers run inside the block."""
    for each in dispatchers:
        each.start()
    try:
        yield
    finally:
        for each in dispatchers:
            await each.stop()
