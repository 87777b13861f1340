"""Values of fields for the tests of a new resource, in Python."""

from __future__ import annotations

from collections.abc import Iterator

from app.cli.new_resource.fields import Field, Kind
from app.cli.new_resource.plan import Plan

# Of three rows: the ranks of their values. Neither these orders nor their reverses are the order of
# the ids.
_RANKS = ((1, 2, 0), (2, 0, 1), (1, 0, 2), (0, 2, 1))
# Of three rows: which of two values each has. The first value is that of the first row, which is
# the one that the tests change.
_CHOICES = ((0, 1, 0), (0, 0, 1), (0, 1, 1))
# Numbers of bodies have at most so many digits.
_DIGITS = 6
_COUNTED = {Kind.str, Kind.text, Kind.int, Kind.datetime, Kind.date}


def new(plan: Plan, field: Field) -> str:
    """Return a member of a new body, for which `number` is a parameter."""
    if has_only_choices(plan):
        second, first = _chosen_value(field, 1), _chosen_value(field, 0)
        return f'"{field.name}": ({second}, {first})[number % 2]'
    values = {
        Kind.str: _counted(field),
        Kind.text: 'f"Líneas\\n\\ny {number}"',
        Kind.int: "number",
        Kind.datetime: 'f"20{10 + number % 80}-11-21T09:30:00.000000Z"',
        Kind.date: 'f"20{10 + number % 80}-11-21"',
    }
    return f'"{field.name}": {values.get(field.kind) or _chosen_value(field, 0)}'


def _counted(field: Field) -> str:
    label = field.label.capitalize()
    if len(label) + 1 + _DIGITS <= field.length:
        return f'f"{label} {{number}}"'
    return "str(number)" if field.length >= _DIGITS else f"str(number)[-{field.length}:]"


def changed(field: Field) -> str:
    """Return a member that differs from that of a new body and from that of the first row."""
    values = {
        Kind.str: '"Changed"' if field.length >= len("Changed") else '"X"',
        Kind.text: '"Changed"',
        Kind.int: "-7",
        Kind.datetime: '"2027-01-01T00:00:00.000000Z"',
        Kind.date: '"2027-01-01"',
    }
    return f'"{field.name}": {values.get(field.kind) or _chosen_value(field, 1)}'


def has_only_choices(plan: Plan) -> bool:
    """Return whether there are few different bodies: those of even numbers equal the change."""
    return not any(field.kind in _COUNTED for field in plan.fields)


def rows(plan: Plan) -> Iterator[str]:
    """Return the bodies of three rows that every sort and every filter tells apart."""
    ranked = [field for field in plan.changeable if field.kind in _COUNTED]
    chosen = [field for field in plan.changeable if field.kind not in _COUNTED]
    for row in range(3):
        values = {
            field.name: _ranked_value(field, _RANKS[index % len(_RANKS)][row])
            for index, field in enumerate(ranked)
        } | {
            field.name: _chosen_value(field, _CHOICES[index % len(_CHOICES)][row])
            for index, field in enumerate(chosen)
        }
        members = [f'"{field.name}": {values[field.name]}' for field in plan.changeable]
        yield f"{{{', '.join(members)}}}"


def _ranked_value(field: Field, rank: int) -> str:
    values = {
        Kind.str: f'"{"ABC"[rank]}"',
        Kind.text: f'" {"ABC"[rank]}\\n\\nñ 😀 "',
        Kind.int: str(rank),
        Kind.datetime: f'"2026-11-2{rank}T09:30:00.000000Z"',
        Kind.date: f'"2026-11-2{rank}"',
    }
    return values[field.kind]


def _chosen_value(field: Field, index: int) -> str:
    return str(index == 0) if field.kind is Kind.bool else f'"{field.values[index]}"'


def spaced(field: Field) -> str:
    """Return a text with spaces at its ends, which leave `B`."""
    return '" B "' if field.length > len("B ") else '"B "'
