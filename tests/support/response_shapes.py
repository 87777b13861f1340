"""The keys of response bodies by the contract: no more and no fewer."""

from __future__ import annotations

from typing import Any

# The names of an object's keys, each with the shape of what is in it where that is an object.
Shape = dict[str, "Shape | None"]


def keys(names: str, **inner: Shape) -> Shape:
    """Return the shape of an object with these keys, and with `inner` objects."""
    return dict.fromkeys(names.split()) | inner


def page_of(item: Shape) -> Shape:
    """Return the shape of a page of a listing."""
    names = "total total_is_exact page page_size total_pages has_next has_prev next_cursor"
    return keys(names, items=item)


# An object with any keys.
OPEN: Shape = {"*": None}
PROBLEM = keys("type title status detail code instance request_id")
INVALID = PROBLEM | keys("", errors=keys("field message type"))


def check_shape(body: Any, shape: Shape, where: str) -> None:
    """Fail unless an object has exactly the keys of a shape, all the way down."""
    if shape is OPEN:
        assert isinstance(body, dict), where
        return
    assert set(body) == set(shape), where
    for name, inner in shape.items():
        if inner is None:
            assert not _holds_objects(body[name]), f"{where}.{name}: an object nobody promised"
            continue
        for row in body[name] if isinstance(body[name], list) else [body[name]]:
            check_shape(row, inner, f"{where}.{name}")


def _holds_objects(value: Any) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value)
    )
