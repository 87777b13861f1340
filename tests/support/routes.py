"""The routes that the routers of the app declare."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

from fastapi import APIRouter
from fastapi.routing import APIRoute

from app import routers


def all_routes() -> Iterator[APIRoute]:
    """Yield every route of every module of `app.routers`."""
    for module in pkgutil.iter_modules(routers.__path__):
        for value in vars(importlib.import_module(f"app.routers.{module.name}")).values():
            if isinstance(value, APIRouter):
                yield from (route for route in value.routes if isinstance(route, APIRoute))
