"""The OpenAPI document is valid, complete, and right about errors and permissions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from schemathesis.specs.openapi.definitions import OPENAPI_31

from app.core.exceptions import AppError, all_errors
from app.core.permissions import Permission
from tests.contract.resources import COLLECTIONS, RESPONSE_SHAPES, TAGGED_SHAPES, TAKES_IF_MATCH
from tests.support.client import Client
from tests.support.document import documented, resolved, validator_of
from tests.support.response_shapes import OPEN, Shape

pytestmark = pytest.mark.long

PROBLEM = "application/problem+json"
ERRORS: dict[str, type[AppError]] = {kind.code: kind for kind in all_errors()}
OPERATIONS = documented().operations
WITH_BODY = [name for name in OPERATIONS if "requestBody" in OPERATIONS[name][2]]
each_operation = pytest.mark.parametrize("name", OPERATIONS)


def _operation(name: str) -> dict[str, Any]:
    return OPERATIONS[name][2]


# --- The document as a whole -----------------------------------------------------------------


def test_the_committed_document_is_this_one() -> None:
    """A change of the contract is a diff: `scripts/openapi > docs/openapi.json` writes it."""
    committed = Path(__file__).parents[2] / "docs/openapi.json"
    assert json.loads(committed.read_text("utf-8")) == documented().document


def test_the_document_is_valid_openapi_3_1() -> None:
    document = json.loads(json.dumps(documented().document, allow_nan=False))
    errors = [error.message for error in Draft202012Validator(OPENAPI_31).iter_errors(document)]
    assert errors == []
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_every_component_exists_and_is_used() -> None:
    document = documented().document
    schemas = document["components"]["schemas"]
    used: set[str] = set()
    unread = [document["paths"]]
    while unread:
        found = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(unread.pop())))
        unread += [schemas[name] for name in found - used]
        used |= found
    assert used == set(schemas)
    schemes = {scheme for _, _, found in OPERATIONS.values() for scheme in _schemes(found)}
    assert schemes == set(document["components"]["securitySchemes"])


def _schemes(operation: dict[str, Any]) -> Iterator[str]:
    for entry in operation["security"]:
        yield from entry


def test_the_document_points_nowhere_else() -> None:
    """A53: no viewer of the document loads anything from another host."""
    text = json.dumps(documented().document)
    assert re.findall(r"(?i)(?:\w+:)?//[\w.-]+|www\.", text) == []


def test_tags_are_declared_and_described() -> None:
    declared = {tag["name"] for tag in documented().document["tags"] if tag["description"]}
    assert {tag for name in OPERATIONS for tag in _operation(name)["tags"]} == declared


def test_scopes_are_the_permissions_described() -> None:
    (scheme,) = documented().document["components"]["securitySchemes"].values()
    flow = scheme["flows"]["password"]
    assert {*flow["scopes"]} == {*Permission}
    assert all(flow["scopes"].values())
    assert ("post", flow["tokenUrl"]) == OPERATIONS["login"][:2]


def test_operation_ids_are_unique_and_short() -> None:
    items = documented().document["paths"].values()
    ids = [operation["operationId"] for item in items for operation in item.values()]
    assert len(ids) == len(set(ids))
    assert [name for name in ids if not re.fullmatch(r"[a-z][a-z_]{1,23}", name)] == []


# --- Each operation --------------------------------------------------------------------------


@each_operation
def test_an_operation_says_what_it_does_and_who_may(name: str) -> None:
    operation = _operation(name)
    assert len(operation["tags"]) == 1
    does, _, permission = operation["description"].partition("\n\nPermission: ")
    assert re.fullmatch(r"[A-Z].*\.", does, re.DOTALL)
    security = operation["security"]
    scopes = [scope for entry in security for scope in entry.get("OAuth2", [])]
    if scopes:
        assert permission == " or ".join(f"`{scope}`" for scope in scopes) + "."
    elif not security:
        assert permission == "none."
    else:
        optional = {} in security
        assert permission == ("none; a login shows more." if optional else "any login.")


@each_operation
def test_refusals_follow_from_the_security(name: str) -> None:
    operation = _operation(name)
    codes = {
        status: set(response["content"][PROBLEM]["examples"])
        for status, response in operation["responses"].items()
        if status >= "400"
    }
    security = operation["security"]
    required, scoped = {} not in security, any(any(entry.values()) for entry in security)
    assert ("invalid_token" in codes.get("401", ())) == bool(security)
    assert ("not_authenticated" in codes.get("401", ())) == (bool(security) and required)
    assert ("insufficient_scope" in codes.get("403", ())) == scoped


@each_operation
def test_errors_are_problems_of_the_tree_with_examples(name: str) -> None:
    for status, response in _operation(name)["responses"].items():
        if status < "400":
            continue
        assert set(response["content"]) == {PROBLEM}
        content = response["content"][PROBLEM]
        model = "ValidationProblem" if status == "422" else "Problem"
        assert content["schema"] == {"$ref": f"#/components/schemas/{model}"}
        assert content["examples"]
        for code, shown in content["examples"].items():
            body = shown["value"]
            assert (ERRORS[code].code, ERRORS[code].status) == (code, int(status))
            assert (body["code"], body["status"]) == (code, int(status))
            assert body["type"] == f"/errors/{code}"
            assert [*validator_of(content["schema"]).iter_errors(body)] == []
            assert code in response["description"]


@each_operation
def test_every_way_to_fail_is_declared(name: str) -> None:
    _, path, operation = OPERATIONS[name]
    statuses = set(operation["responses"])
    # There is always a query that may hold what the operation does not take.
    assert ("422" in statuses) == (path != "/health")
    # Public, and of a row that is not in the answer: empty, whether there is that row or not. And
    # what a repeated request created before may be gone.
    may_miss = ("{" in path and name != "list_user_posts") or name == "create_user"
    assert ("404" in statuses) == may_miss
    assert ("413" in statuses) == ("requestBody" in operation)
    assert {"400", "500"} <= statuses
    assert ("503" in statuses) == (name != "health")


@each_operation
def test_headers_are_declared(name: str) -> None:
    operation = _operation(name)
    listing = RESPONSE_SHAPES[name] is not None and "items" in (RESPONSE_SHAPES[name] or {})
    tagged = set(RESPONSE_SHAPES[name] or ()) in [set(shape) for shape in TAGGED_SHAPES]
    for status, response in operation["responses"].items():
        headers = set(response["headers"])
        assert "X-Request-ID" in headers
        assert ("Location" in headers) == (status == "201")
        assert ("Retry-After" in headers) == (status in {"429", "503"})
        assert ("RateLimit" in headers) == ("429" in operation["responses"] and status < "500")
        assert status != "401" or "WWW-Authenticate" in headers
        assert ("ETag" in headers) == (
            (tagged and status < "300") or (_is_read(name) and status < "400")
        )
        assert ("Idempotency-Replayed" in headers) == (status == "201")
        assert ({"Link", "X-Total-Count"} <= headers) == (listing and status < "300")


@each_operation
def test_what_creates_takes_a_key_and_what_changes_takes_a_tag(name: str) -> None:
    """A POST of one thing to a collection creates; what is shown with a tag is changed by it."""
    operation = _operation(name)
    headers = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "header"}
    assert ("Idempotency-Key" in headers) == ("201" in operation["responses"])
    taken = "idempotency_key_reused" in json.dumps(operation["responses"].get("422", {}))
    assert taken == ("Idempotency-Key" in headers)
    assert ("If-Match" in headers) == (name in TAKES_IF_MATCH)
    assert ("412" in operation["responses"]) == ("If-Match" in headers)
    assert ("If-None-Match" in headers) == ("304" in operation["responses"]) == _is_read(name)


def _is_read(name: str) -> bool:
    """Whether an operation shows something that may be the same as before: all but health."""
    method, path, _ = OPERATIONS[name]
    return method == "get" and not path.startswith("/health")


@each_operation
def test_declared_bodies_have_the_keys_of_the_contract(name: str) -> None:
    """A21: no key more, none less, none optional."""
    for status, response in _operation(name)["responses"].items():
        if status >= "300":
            continue
        shape = RESPONSE_SHAPES[name]
        assert ("content" in response) == (shape is not None)
        if shape is not None:
            _same_keys(response["content"]["application/json"]["schema"], shape)


def _same_keys(schema: dict[str, Any], shape: Shape) -> None:
    schema = resolved(schema)
    if shape is OPEN:
        assert schema["additionalProperties"] is True
        return
    assert set(schema["properties"]) == set(schema["required"]) == set(shape), schema["title"]
    for name, inner in shape.items():
        if inner is not None:
            value = schema["properties"][name]
            _same_keys(value.get("items", value), inner)


# --- Request bodies --------------------------------------------------------------------------


def _body(name: str) -> tuple[str, dict[str, Any]]:
    ((media_type, content),) = _operation(name)["requestBody"]["content"].items()
    return media_type, resolved(content["schema"])


def _written(schema: dict[str, Any]) -> dict[str, Any]:
    """The properties that can be set."""
    return {
        name: declared
        for name, declared in schema["properties"].items()
        if "readOnly" not in declared
    }


def _example(schema: dict[str, Any]) -> dict[str, Any]:
    """A body of the examples of its properties, leaving out what has none."""
    shown = {}
    for name, declared in _written(schema).items():
        for value in (declared, resolved(declared), *declared.get("anyOf", [])):
            if "examples" in value:
                shown[name] = value["examples"][0]
            elif "enum" in value:
                shown[name] = value["enum"][0]
            elif value.get("type") == "boolean":
                shown[name] = True
            else:
                continue
            break
    return shown


@pytest.mark.parametrize("name", WITH_BODY)
def test_every_field_of_a_body_has_a_valid_example(name: str) -> None:
    _, schema = _body(name)
    # What OAuth2 clients may send along; nobody fills these in by hand.
    shown = _example(schema)
    assert set(shown) == set(_written(schema)) - {"client_id", "client_secret"}
    assert [*validator_of(schema).iter_errors(shown)] == []


@pytest.mark.parametrize("name", WITH_BODY)
def test_bodies_are_json_that_allows_nothing_else(name: str) -> None:
    """A20: what a body may not hold can be read in the document."""
    media_type, schema = _body(name)
    form = name == "login"  # RFC 6749 §4.3.2 and §3.2: a form, in which unknown names are ignored
    assert media_type == ("application/x-www-form-urlencoded" if form else "application/json")
    assert schema.get("additionalProperties", True) is form
    assert _operation(name)["requestBody"]["required"] is True


async def test_the_examples_work(client: Client) -> None:
    """A request with the example body gets the response that the document declares."""
    admin = await client.admin()
    examples = {name: _example(_body(name)[1]) for name in WITH_BODY}
    assert (await client.post("/auth/register", examples["register"])).status_code == 201
    # The same person in all of them, so one example leads to the next.
    token = await client.login(examples["login"]["username"], examples["login"]["password"])
    for entry in COLLECTIONS:
        collection, members = entry.at(entry.collection, await entry.references(admin))
        created = await admin.post(collection, examples[f"create_{entry.noun}"] | members)
        assert created.status_code == 201, created.text
        location = created.headers["location"]
        changed = await admin.patch(location, examples[f"update_{entry.noun}"])
        assert changed.status_code == 200, changed.text
    headers = {"Authorization": f"Bearer {token}"}
    profile = await client.patch("/users/me", examples["update_me"], headers=headers)
    assert profile.status_code == 200
    gone = await client.delete("/users/me", examples["delete_me"], headers=headers)
    assert gone.status_code == 204
