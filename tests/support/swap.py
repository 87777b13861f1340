"""The running app with one of its parts, or some of its settings, exchanged for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import FastAPI


@contextmanager
def swapped(app: FastAPI, **parts: object) -> Iterator[None]:
    """Other parts than `create_app` put on `app.state`, inside the block."""
    kept = {name: getattr(app.state, name) for name in parts}
    for name, part in parts.items():
        setattr(app.state, name, part)
    try:
        yield
    finally:
        for name, part in kept.items():
            setattr(app.state, name, part)


@contextmanager
def settings(app: FastAPI, **values: object) -> Iterator[None]:
    """Other settings, for what reads them on each request."""
    with swapped(app, settings=app.state.settings.model_copy(update=values)):
        yield
