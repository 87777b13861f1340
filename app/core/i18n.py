"""Texts people read, in English and Spanish: `app/locales/<locale>.toml`, looked up by key.

Packages outside `app/` add directories of their own, with the same files.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

LOCALES = ("en", "es")
DEFAULT_LOCALE = LOCALES[0]
_directories = [Path(__file__).parent.parent / "locales"]
_MAX_HEADER = 256


@cache
def catalogue(locale: str) -> dict[str, Any]:
    """Return the whole nested table of one locale's texts."""
    texts: dict[str, Any] = {}
    for directory in _directories:
        _add(texts, tomllib.loads((directory / f"{locale}.toml").read_text(encoding="utf-8")))
    return texts


def add_directories(directories: Iterable[Path]) -> None:
    """Add the texts of other directories to ours; raise ValueError for one that we have already."""
    added = [each for each in dict.fromkeys(directories) if each not in _directories]
    if added:
        _directories.extend(added)
        catalogue.cache_clear()
        for locale in LOCALES:
            catalogue(locale)


def _add(texts: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add nested texts that are new; refuse one that would replace another."""
    for name, value in more.items():
        if isinstance(value, dict) and isinstance(texts.setdefault(name, {}), dict):
            _add(texts[name], value)
        elif name in texts:
            raise ValueError(f"the text {name!r} is there already")
        else:
            texts[name] = value


def find(locale: str, *path: str) -> Any:
    """Return the text or table at `path`; None if the catalogue has none."""
    node: Any = catalogue(locale)
    for part in path:
        if not isinstance(node, dict) or part not in node:
            return None
        node = node[part]
    return node


def text(locale: str, *path: str, **values: object) -> str:
    """Return the text at `path` with its `{placeholders}` filled in.

    Raise KeyError if the catalogue lacks it: a missing text is a defect, not an input.
    """
    found = find(locale, *path)
    if not isinstance(found, str):
        raise KeyError(".".join(path))
    return fill(locale, found, values)


def fill(
    locale: str, template: str, values: Mapping[str, object], *, missing: str | None = None
) -> str:
    """Return a text of the catalogue with its placeholders filled in.

    `{days:day|days}` is a number with its noun in the singular or the plural. A tuple becomes a
    list as the language writes it. A value that is not there shows as `missing`, or raises
    KeyError.
    """
    shown = _Values({name: _shown(locale, value) for name, value in values.items()})
    shown.missing = missing
    return template.format_map(shown)


class _Values(dict[str, object]):
    missing: str | None = None

    def __missing__(self, key: str) -> object:
        if self.missing is None:
            raise KeyError(key)
        return _Missing(self.missing)


class _Missing(str):
    def __format__(self, spec: str) -> str:
        return str(self)


class _Number(int):
    def __format__(self, spec: str) -> str:
        if "|" not in spec:
            return super().__format__(spec)
        singular, plural = spec.split("|")
        return f"{int(self)} {singular if self == 1 else plural}"


def _shown(locale: str, value: object) -> object:
    match value:
        case int():
            return _Number(value)
        case tuple():
            lists = find(locale, "lists")
            separator: str = lists["separator"]
            return separator.join(lists["item"].format(item=item) for item in value)
        case _:
            return value


def negotiate(accept_language: str | None) -> str:
    """Return the best of our locales for an `Accept-Language` header (RFC 9110 §12.5.4).

    Unreadable parts are passed over; English when nothing fits.
    """
    return _negotiated((accept_language or "")[:_MAX_HEADER])


def environment_locale(environment: Mapping[str, str]) -> str:
    """Return the best of our locales for a shell's (POSIX: LC_ALL, LC_MESSAGES, LANG)."""
    names = ("LC_ALL", "LC_MESSAGES", "LANG")
    value = next((environment[name] for name in names if environment.get(name)), "")
    return negotiate(re.split("[_.@]", value)[0])


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
