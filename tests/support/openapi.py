"""Holds responses against the OpenAPI document: declared status, declared schema and headers."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import httpx2
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from tests.support.canaries import check_response

METHODS = {"get", "post", "put", "patch", "delete"}
# What a response may never hold, whatever its schema says.
FORBIDDEN = re.compile(r"Traceback|sqlalchemy|password_hash|SELECT |INSERT ")


def parameters_of(path: str) -> list[str]:
    """Return the names of the parameters of a path."""
    return re.findall(r"\{([^}]+)\}", path)


class Contract:
    """The OpenAPI document of the app."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        resource = Resource.from_contents(document, default_specification=DRAFT202012)
        self._registry: Registry[Any] = Registry().with_resource("urn:openapi", resource)
        self._paths = [
            (re.compile(re.sub(r"\{[^}]+\}", "[^/]+", path) + r"\Z"), path)
            for path in sorted(document["paths"], key=lambda path: path.count("{"))
        ]
        self._validator = cache(self._make_validator)

    @property
    def operations(self) -> dict[str, tuple[str, str, dict[str, Any]]]:
        """Method, path and description of every operation, by operation id."""
        return {
            operation["operationId"]: (method, path, operation)
            for path, item in self.document["paths"].items()
            for method, operation in item.items()
            if method in METHODS
        }

    def path_parameters(self) -> list[str]:
        """Return the name of every parameter of a path, once."""
        paths = [path for _, path, _ in self.operations.values()]
        return list(dict.fromkeys(name for path in paths for name in parameters_of(path)))

    def check(self, response: httpx2.Response) -> None:
        """Fail unless the response is one that the document promises."""
        check_response(response)
        assert not FORBIDDEN.search(response.text), "a response shows what it must not"
        assert response.headers["x-request-id"]
        assert response.headers["x-content-type-options"] == "nosniff"
        request = response.request
        template = self._template(request.url.path)
        if template is None:
            return
        # HEAD is not documented: it is GET without a body.
        method = "get" if request.method == "HEAD" else request.method.lower()
        operation = self.document["paths"][template].get(method)
        if operation is None:
            assert response.status_code in {400, 405, 413}, "a method nobody promised"
            return
        declared = operation["responses"].get(str(response.status_code))
        assert declared, f"{request.method} {template} does not declare {response.status_code}"
        self._check_body(response, declared, f"{request.method} {template}")

    def _check_body(self, response: httpx2.Response, declared: dict[str, Any], what: str) -> None:
        content = declared.get("content")
        if content is None or response.request.method == "HEAD":
            assert not response.content, f"{what}: a body where none is declared"
            return
        media_type = response.headers["content-type"].partition(";")[0]
        assert media_type in content, f"{what}: {media_type} is not declared"
        body = json.loads(response.text, parse_constant=_refuse_constant)
        schema = json.dumps(content[media_type]["schema"])
        problems = [error.message for error in self._validator(schema).iter_errors(body)]
        assert not problems, f"{what}: {problems}"

    def _template(self, path: str) -> str | None:
        return next((template for regex, template in self._paths if regex.match(path)), None)

    def _make_validator(self, schema: str) -> Draft202012Validator:
        absolute = schema.replace('"#/components', '"urn:openapi#/components')
        return Draft202012Validator(json.loads(absolute), registry=self._registry)


def _refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")
