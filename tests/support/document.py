"""The OpenAPI document by itself: no database is asked for it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jsonschema import Draft202012Validator

from app.main import create_app
from tests.conftest import make_settings
from tests.support.openapi import Contract


@cache
def documented() -> Contract:
    """The document of an app that never connects to anything."""
    with TemporaryDirectory() as folder:
        settings = make_settings("sqlite+aiosqlite:///never-opened.db", Path(folder))
        return Contract(create_app(settings).openapi())


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """What a `$ref` stands for."""
    if "$ref" not in schema:
        return schema
    found: dict[str, Any] = documented().document["components"]["schemas"][
        schema["$ref"].removeprefix("#/components/schemas/")
    ]
    return found


def validator_of(schema: dict[str, Any]) -> Draft202012Validator:
    """A validator that finds the document's components."""
    components = documented().document["components"]
    return Draft202012Validator(schema | {"components": components})
