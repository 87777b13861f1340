"""A clock that can be put forward, for what remembers things for a while."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import ModuleType

import pytest


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
