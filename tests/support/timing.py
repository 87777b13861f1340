"""Whether the durations of two kinds of request distinguish them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import product

Attempt = Callable[[], Awaitable[object]]


def auc(first: Sequence[float], second: Sequence[float]) -> float:
    """How often one of the second kind took longer than one of the first: 0.5 is a guess."""
    won = sum((a < b) + (a == b) / 2 for a, b in product(first, second))
    return won / (len(first) * len(second))


async def latencies(
    attempts: Mapping[str, Attempt], number: int, *, at_once: int = 1
) -> dict[str, list[float]]:
    """Seconds that each kind takes, `number` times each, so many at once. In rounds of one of each
    in random order: what else the machine does meets all kinds alike."""
    kinds = [*attempts]
    order = [kind for _ in range(number) for kind in random.sample(kinds, len(kinds))]
    found: dict[str, list[float]] = {kind: [] for kind in attempts}

    async def take(kind: str) -> None:
        started = time.perf_counter()
        await attempts[kind]()
        found[kind].append(time.perf_counter() - started)

    for first in range(0, len(order), at_once):
        await asyncio.gather(*map(take, order[first : first + at_once]))
    return found
