"""What `docs/openapi.json` says of the resources that are there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.cli.new_resource.fields import MistakeError

DOCUMENT = "docs/openapi.json"


@dataclass(frozen=True)
class Document:
    """The names in the API document."""

    paths: frozenset[str]
    operations: frozenset[str]
    schemas: frozenset[str]

    @classmethod
    def of(cls, root: Path) -> Document:
        """Read the document of a checkout; raise MistakeError if it is none."""
        try:
            read: dict[str, Any] = json.loads((root / DOCUMENT).read_text("utf-8"))
            paths, schemas = read["paths"], read["components"]["schemas"]
            operations = frozenset(_operations(paths))
        except (ValueError, KeyError, TypeError):
            raise MistakeError(f"{DOCUMENT} is no API document: write it anew") from None
        return cls(frozenset(paths), operations, frozenset(schemas))

    def singular_of(self, plural: str) -> str:
        """Return what one of a resource is called: its path ends with `{singular_id}`; nothing
        for a resource that has no such path."""
        for path in sorted(self.paths):
            *_, collection, parameter = path.split("/")
            is_id = parameter.startswith("{") and parameter.endswith("_id}")
            if collection == plural.replace("_", "-") and is_id:
                return parameter[1:].removesuffix("_id}")
        return ""


def _operations(paths: dict[str, dict[str, Any]]) -> Iterator[str]:
    for operations in paths.values():
        yield from (operation["operationId"] for operation in operations.values())
