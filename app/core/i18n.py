"""Texts people read, in English and Spanish: `app/locales/<locale>.toml`, looked up by key."""

from __future__ import annotations

import tomllib
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

LOCALES = ("en", "es")
DEFAULT_LOCALE = LOCALES[0]
_DIRECTORY = Path(__file__).parent.parent / "locales"
_MAX_HEADER = 256


@cache
def catalogue(locale: str) -> dict[str, Any]:
    """The whole nested table of one locale's texts."""
    return tomllib.loads((_DIRECTORY / f"{locale}.toml").read_text(encoding="utf-8"))


def find(locale: str, *path: str) -> Any:
    """The text or table at `path`, or None when the catalogue has none."""
    node: Any = catalogue(locale)
    for part in path:
        if not isinstance(node, dict) or part not in node:
            return None
        node = node[part]
    return node


def text(locale: str, *path: str, **values: object) -> str:
    """The text at `path` with its `{placeholders}` filled in.

    Raises KeyError when the catalogue lacks it: a missing text is a defect, not an input.
    """
    found = find(locale, *path)
    if not isinstance(found, str):
        raise KeyError(".".join(path))
    return found.format(**values)


def negotiate(accept_language: str | None) -> str:
    """The best of our locales for an `Accept-Language` header (RFC 9110 §12.5.4).

    Unreadable parts are passed over; English when nothing fits.
    """
    return _negotiated((accept_language or "")[:_MAX_HEADER])


@lru_cache(256)
def _negotiated(accept_language: str) -> str:
    best, best_quality = DEFAULT_LOCALE, 0.0
    for part in accept_language.split(","):
        tag, _, parameters = part.strip().partition(";")
        language = tag.strip().lower().partition("-")[0]
        quality = _quality(parameters)
        if language in LOCALES and quality > best_quality:
            best, best_quality = language, quality
    return best


def _quality(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        quality = float(value)
    except ValueError:
        return 0.0
    return quality if 0 <= quality <= 1 else 0.0
