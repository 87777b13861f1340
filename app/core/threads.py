"""Threads for work that takes long: everything else goes first."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

_NICENESS = 10


def background_threads(count: int, name: str) -> ThreadPoolExecutor:
    """Return an executor of so many threads with a lower priority than the event loop's."""
    # A thread's own priority is Linux's.
    return ThreadPoolExecutor(count, name, _stand_back if sys.platform == "linux" else None)


def _stand_back() -> None:
    """Let every other thread go first: long work takes all the time it gets, a request little."""
    thread = threading.get_native_id()
    # Who is not root may not raise it again: a process may have been started with less.
    niceness = max(_NICENESS, os.getpriority(os.PRIO_PROCESS, thread))
    os.setpriority(os.PRIO_PROCESS, thread, niceness)
