"""What the process logs, as bytes on stdout; and its logging put back after a test."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from app.core import logging as app_logging

_CONFIGURED = (
    "uvicorn",
    "uvicorn.error",
    "uvicorn.access",
    "uvicorn.asgi",
    "aiosqlite",
    "sqlalchemy",
    "httpx2",
)


class Output:
    """A stdout of UTF-8 bytes, as a terminal or a collector reads it."""

    def __init__(self) -> None:
        self._bytes = io.BytesIO()
        self.stream = io.TextIOWrapper(self._bytes, encoding="utf-8", newline="")
        self.handler: logging.Handler = logging.NullHandler()

    def take(self) -> str:
        """What was written since the last call."""
        self.stream.flush()
        written = self._bytes.getvalue().decode()
        self._bytes.seek(0)
        self._bytes.truncate()
        return written

    def entries(self) -> list[dict[str, Any]]:
        """The same, decoded; fails on a line that is not a JSON object."""
        return decoded(self.take())


@contextmanager
def captured_logging(*, level: str = "DEBUG", as_json: bool = True) -> Iterator[Output]:
    """The logging of production, into an Output."""
    output = Output()
    with kept_logging():
        with redirect_stdout(output.stream):
            app_logging.configure(level=level, as_json=as_json)
        # The tests' own client would write down each URL.
        logging.getLogger("httpx2").setLevel(logging.WARNING)
        output.handler = logging.getLogger().handlers[-1]
        yield output


@contextmanager
def kept_logging() -> Iterator[None]:
    """Leave handlers, levels and flags as they were before the block."""
    root = logging.getLogger()
    loggers = [root, *map(logging.getLogger, _CONFIGURED)]
    before = [(each, each.level, each.propagate, each.disabled) for each in loggers]
    try:
        yield
    finally:
        # Only ours: between the phases of a test pytest changes its own.
        for handler in [*root.handlers]:
            if type(handler).__module__ == app_logging.__name__:
                root.removeHandler(handler)
        for logger, level, propagate, disabled in before:
            logger.setLevel(level)
            logger.propagate, logger.disabled = propagate, disabled


def decoded(output: str) -> list[dict[str, Any]]:
    """Every line of a log, decoded; fails on one that is not a JSON object."""
    entries = [json.loads(line, parse_constant=_refuse) for line in output.split("\n") if line]
    assert all(isinstance(entry, dict) for entry in entries)
    return entries


def _refuse(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")
