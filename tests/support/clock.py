"""A clock that can be put forward, for what remembers things for a while."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from types import ModuleType

import pytest

from app.models import base

AHEAD: ContextVar[timedelta] = ContextVar("ahead", default=timedelta())


@dataclass
class Clock:
    """Stands in for the module `time`; `ahead` is in seconds."""

    ahead: float = 0.0

    def time(self) -> float:
        return time.time() + self.ahead

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


def clock_in(patch: pytest.MonkeyPatch, *modules: ModuleType) -> Clock:
    """The clock that these modules look at from now on."""
    clock = Clock()
    for module in modules:
        patch.setattr(module, "time", clock)
    return clock


class _Ahead(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]  # a plain one
        return datetime.now(tz) + AHEAD.get()


def clocks_apart(patch: pytest.MonkeyPatch) -> None:
    """From now on the app's clock in each task is ahead by what AHEAD says there: tasks stand for
    processes of different machines."""
    patch.setattr(base, "datetime", _Ahead)
