"""Override parts or settings of a running app inside a `with` block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import FastAPI


@contextmanager
def override_state(app: FastAPI, **parts: object) -> Iterator[None]:
    """Replace attributes of `app.state` inside the block."""
    kept = {name: getattr(app.state, name) for name in parts}
    for name, part in parts.items():
        setattr(app.state, name, part)
    try:
        yield
    finally:
        for name, part in kept.items():
            setattr(app.state, name, part)


@contextmanager
def override_settings(app: FastAPI, **values: object) -> Iterator[None]:
    """Change settings that are read on each request, inside the block."""
    with override_state(app, settings=app.state.settings.model_copy(update=values)):
        yield
