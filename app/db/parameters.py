"""Parameters of prepared statements, as drivers take them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Dialect

Convert = Callable[[Any], Any]
# Its name, its value or that it must be given, how the driver takes it.
Parameter = tuple[str, Any, bool, Convert | None]


def parameter(name: str, bind: Any, dialect: Dialect) -> Parameter:
    """Return how to pass one of a compiled statement's parameters."""
    convert = bind.type.dialect_impl(dialect).bind_processor(dialect)
    return name, bind.value, not bind.unique, convert


def arguments_of(
    parameters: Sequence[Parameter], given: Mapping[str, Any], *, positional: bool
) -> Any:
    """Return the parameters' values as a driver takes them; raise KeyError if one is missing."""
    values = [
        convert(given[name] if required else value)
        if convert
        else (given[name] if required else value)
        for name, value, required, convert in parameters
    ]
    if positional:
        return tuple(values)
    return {entry[0]: value for entry, value in zip(parameters, values, strict=True)}
