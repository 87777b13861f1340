"""Pings: whether a pooled connection still leads anywhere, asked before it is used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine

_USED = "cimiento_used"
_are_wanted: ContextVar[bool] = ContextVar("pings_are_wanted", default=True)


def ping_before_use(engine: AsyncEngine) -> None:
    """Have the pool of an engine replace connections that are gone, as `pool_pre_ping` does; within
    `unpinged` the caller handles them."""
    dialect: Any = engine.sync_engine.dialect

    @event.listens_for(engine.sync_engine, "checkout")
    def ping(connection: Any, record: Any, _: object) -> None:
        is_new = _USED not in record.info
        record.info[_USED] = True
        if is_new or not _are_wanted.get():
            return
        try:
            dialect.do_ping(connection)
        except dialect.loaded_dbapi.Error as error:
            if not dialect.is_disconnect(error, connection, None):
                raise
            # The pool opens another, and discards those that are as old as this one.
            raise InvalidatePoolError from error


@contextmanager
def unpinged() -> Iterator[None]:
    """Use connections as they are: a round trip less for what can simply be done again."""
    token = _are_wanted.set(False)
    try:
        yield
    finally:
        _are_wanted.reset(token)
