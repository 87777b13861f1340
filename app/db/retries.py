"""How often a transaction is run again, and how long it waits before."""

from __future__ import annotations

import asyncio
import random

# How often a transaction is run again before its error counts.
RETRIES = 3


async def pause(attempt: int) -> None:
    """Wait before a transaction is run again; `attempt` counts from 0.

    Jitter keeps two transactions that met once from meeting again.
    """
    await asyncio.sleep(random.uniform(0.01, 0.05) * 2**attempt)  # noqa: S311 no secret
