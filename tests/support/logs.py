"""The logging of the process, put back after a test that configured it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_CONFIGURED = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi", "aiosqlite")


@contextmanager
def kept_logging() -> Iterator[None]:
    """Leave handlers, levels and flags as they were before the block."""
    root = logging.getLogger()
    loggers = [root, *map(logging.getLogger, _CONFIGURED)]
    before = [(each, each.handlers[:], each.level, each.propagate) for each in loggers]
    try:
        yield
    finally:
        for each, handlers, level, propagate in before:
            each.handlers[:] = handlers
            each.setLevel(level)
            each.propagate, each.disabled = propagate, False


def decoded(output: str) -> list[dict[str, Any]]:
    """Every line of a log, decoded; fails on one that is not a JSON object."""
    entries = [json.loads(line, parse_constant=_refuse) for line in output.split("\n") if line]
    assert all(isinstance(entry, dict) for entry in entries)
    return entries


def _refuse(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")
