"""Records that are sent back as they were read: what cannot be changed has to be as it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from app.core.exceptions import FieldError, Invalid
from app.schemas.base import UpdateModel, UtcDatetime

_utc_datetime: TypeAdapter[object] = TypeAdapter(UtcDatetime)


async def require_unchanged(
    data: UpdateModel, show: Callable[[], Awaitable[Mapping[str, Any]]]
) -> None:
    """Raise Invalid unless each read-only member that came has the value that `show` answers, which
    is what the caller would read now."""
    if not data.set_aside:
        return
    shown = from_json(to_json(await show()))
    changed = [name for name, value in data.set_aside.items() if not _is_same(value, shown[name])]
    if changed:
        raise Invalid([FieldError(name, "read_only") for name in sorted(changed)])


def _is_same(given: Any, shown: Any) -> bool:
    """Compare values of JSON; only a date and time may be written in another way."""
    if type(given) is not type(shown):
        return False
    if isinstance(shown, dict):
        return bool(given.keys() == shown.keys()) and all(
            _is_same(given[name], value) for name, value in shown.items()
        )
    if isinstance(shown, list):
        return len(given) == len(shown) and all(map(_is_same, given, shown))
    return bool(given == shown) or (isinstance(shown, str) and _is_same_time(given, shown))


def _is_same_time(given: str, shown: str) -> bool:
    try:
        return _utc_datetime.validate_python(given) == _utc_datetime.validate_python(shown)
    except ValidationError:
        return False
