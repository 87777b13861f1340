"""The tables. Importing this package registers all of them."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from app.models.base import Base

__all__ = ["Base"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
