"""Refusals that wait until the framework has read everything else of a request.

FastAPI validates a body after the dependencies have run. A precondition is judged by a dependency,
on the row it has locked, and comes last all the same (RFC 9110 §13.2.1); and a caller who
may not ask does not learn what is wrong with the request. So such a refusal is kept, and raised in
place of the operation.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

_waiting: ContextVar[list[Exception] | None] = ContextVar("waiting_refusals", default=None)


@contextmanager
def deferring_refusals(*refusals: Exception) -> Iterator[None]:
    """Defer refusals, these first, until FastAPI calls the operation."""
    token = _waiting.set([*refusals])
    try:
        yield
    finally:
        _waiting.reset(token)


def raise_or_defer(error: Exception) -> None:
    """Defer the error within `deferring_refusals`; raise it at once in the operation itself, and
    where nothing is deferred."""
    waiting = _waiting.get()
    if waiting is None:
        raise error
    waiting.append(error)


def raises_deferred(operation: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Wrap an operation: raise the first deferred refusal instead of running it."""

    @wraps(operation)
    async def run(*given: Any, **named: Any) -> Any:
        waiting = _waiting.get()
        if waiting is None:
            return await operation(*given, **named)
        if waiting:
            raise waiting[0]
        token = _waiting.set(None)
        try:
            return await operation(*given, **named)
        finally:
            _waiting.reset(token)

    return run
