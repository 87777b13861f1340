"""One notation for each type of value, in queries and in bodies, as documented."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from app.core.passwords import Policy
from app.schemas.base import RequestModel, StoredDate
from tests.support.client import PASSWORD, Client, Person
from tests.support.overrides import override_settings
from tests.support.people import new_user
from tests.support.refusals import refused


@pytest.fixture
async def admin(client: Client) -> Person:
    return await new_user(client, ["admin", "user"])


# --- Values ----------------------------------------------------------------------------------

MOMENTS = {
    "20271127": "datetime_parsing",
    "0": "datetime_parsing",
    "1764201600.5": "datetime_parsing",
    "-1": "datetime_parsing",
    "1e9": "datetime_parsing",
    "2026-11-21": "datetime_parsing",
    "2026-11-21 09:30:00Z": "datetime_parsing",
    "2026-11-21T09:30Z": "datetime_parsing",
    "2026-11-21T09:30:00+0200": "datetime_parsing",
    "2026-11-21T24:00:00Z": "datetime_parsing",
    "2026-11-21T09:30:00+02:00[Europe/Madrid]": "datetime_parsing",
    "٢٠٢٦-11-21T09:30:00Z": "datetime_parsing",
    "2026-11-21T09:30:00": "timezone_aware",
    "2026-02-30T09:30:00Z": "datetime_from_date_parsing",
    "0999-12-31T23:59:59Z": "datetime_out_of_range",
    "1000-01-01T00:00:00+00:01": "datetime_out_of_range",
    "9999-12-31T23:59:59-00:01": "datetime_out_of_range",
}


async def test_a_moment_of_a_query_is_a_date_time_of_rfc_3339(admin: Person) -> None:
    for path in ("/posts", "/audit-events", f"/users/{admin.id}/posts"):
        for text, kind in MOMENTS.items():
            for name in ("created_from", "created_to"):
                response = await admin.get(path, params={name: text})
                assert refused(response) == [(name, kind)], text
        for text in (
            "2026-11-21T09:30:00Z",
            "2026-11-21t09:30:00.123456789z",
            "2026-11-21T09:30:00-02:30",
            "1000-01-01T00:00:00Z",
        ):
            assert (await admin.get(path, params={"created_from": text})).status_code == 200


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (0, "date_type"),
        (20001231, "date_type"),
        (1.5, "date_type"),
        (True, "date_type"),
        ([], "date_type"),
        ("0", "date_parsing"),
        ("946684800", "date_parsing"),
        ("2000-1-1", "date_parsing"),
        ("20000101", "date_parsing"),
        ("2000-01-01T00:00:00", "date_from_datetime_inexact"),
        ("2000-01-01T00:00:00Z", "date_from_datetime_inexact"),
        (" 2000-01-01", "date_parsing"),
        ("2000-02-30", "date_from_datetime_parsing"),
        ("1899-12-31", "birth_date_invalid"),
    ],
)
async def test_a_date_of_a_body_is_a_full_date(client: Client, value: object, kind: str) -> None:
    user = await new_user(client)
    body = {"birth_date": value}
    assert refused(await user.patch("/users/me", body)) == [("birth_date", kind)]
    account = {"email": "new@example.com", "name": "Ana", "password": PASSWORD}
    response = await client.post("/auth/register", account | body)
    assert refused(response) == [("birth_date", kind)]
    assert (await user.patch("/users/me", {"birth_date": "2000-02-29"})).status_code == 200


@pytest.mark.parametrize("value", ["true", "false", "on", "", 1, 0, 1.0, [], {}, None])
async def test_a_boolean_of_a_body_is_no_other_value(admin: Person, value: object) -> None:
    user = await new_user(admin)
    response = await admin.patch(f"/users/{user.id}", {"is_active": value})
    assert refused(response) == [("is_active", "bool_type")]


def test_no_body_takes_a_boolean_or_an_integer_for_another_value() -> None:
    """New schemas included: pydantic takes `"true"`, 1 and 1.0 unless it is strict."""
    models = [*_below(RequestModel)]
    assert len(models) > 10
    for model in models:
        for node in _nodes(model.__pydantic_core_schema__):
            assert node.get("strict") or node.get("type") not in {"bool", "int"}, model


def _below(model: type[RequestModel]) -> Iterator[type[RequestModel]]:
    for child in model.__subclasses__():
        yield child
        yield from _below(child)


def _nodes(part: Any) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        yield part
        part = [*part.values()]
    if isinstance(part, list | tuple):
        for inner in part:
            yield from _nodes(inner)


async def test_a_boolean_of_a_query_is_true_or_false(admin: Person) -> None:
    for value in ("1", "0", "yes", "on", "t", "True", "TRUE", " true", ""):
        for path, name in (("/users", "is_active"), ("/users", "deleted"), ("/posts", "deleted")):
            response = await admin.get(path, params={name: value})
            assert refused(response) == [(name, "bool_parsing")], value
    for value in ("true", "false"):
        query = {"is_active": value, "deleted": value}
        assert (await admin.get("/users", params=query)).status_code == 200


async def test_a_parameter_comes_once(admin: Person) -> None:
    """A proxy that reads the first would have looked at another request."""
    for path, query in (
        ("/posts", "status=draft&status=published"),
        ("/posts", "page=1&page=1"),
        ("/users", "q=a&q=b"),
    ):
        answer = await admin.get(f"{path}?{query}")
        assert answer.status_code == 422
        kinds = [(each["field"], each["type"]) for each in answer.json()["errors"]]
        assert kinds == [(query.partition("=")[0], "duplicate")]


async def test_an_integer_of_a_query_is_plain_digits(admin: Person) -> None:
    for value in (
        "+1",
        " 1",
        "1 ",
        "01",
        "1.0",
        "1e0",
        "1_0",
        "0x1",
        "\u0661",
        "\uff11",
        "true",
        "",
    ):
        for path, name in (
            *(("/posts", "page"), ("/posts", "page_size"), ("/posts", "author_id")),
            *(("/audit-events", "actor_id"), ("/tags", "page"), ("/permissions", "page_size")),
        ):
            response = await admin.get(path, params={name: value})
            assert refused(response) == [(name, "int_parsing")], value
    assert (await admin.get("/posts", params={"page": "1", "page_size": "10"})).is_success


async def test_the_texts_of_the_refusals_are_there_in_both_languages(admin: Person) -> None:
    for language, message in (("en", "cannot be changed"), ("es", "no se puede modificar")):
        headers = {"Accept-Language": language}
        response = await admin.patch("/users/me", {"id": admin.id + 1}, headers=headers)
        assert refused(response) == [("id", "read_only")]
        assert message in response.json()["errors"][0]["message"]


# --- What is published -----------------------------------------------------------------------

# By the schema of a body and a field: what is refused, and the schema says so; what is accepted.
PUBLISHED: dict[tuple[str, str], tuple[list[object], list[object]]] = {
    ("PostCreate", "tags"): (
        [["x" * 51], [""], ["a\nb"], [" "], ["x"] * 21],
        [["x" * 50], ["ciencia\tficción "]],
    ),
    ("PostCreate", "title"): (
        ["", "  ", "a\nb", "\u200b", "x" * 201, "x" + " " * 200],
        ["Hola", "\t日本 \n", "\ufffd"],
    ),
    ("PostCreate", "content"): (["a\0b", "x" * 100_001], ["", "a\nb 🎉"]),
    ("UserCreate", "email"): (
        ["ana", "ana@localhost", "a b@example.com", "a@b@example.com", "Ana <ana@example.com>"],
        ["ana@example.com", "eva@exämple。com", " o'hara+x@example.com\n"],
    ),
    ("UserCreate", "phone"): (
        ["", "123 456 789", "1" * 21, "+" * 41 + "1" * 10],
        ["+34 600 123 456", "1" * 20],
    ),
    ("UserCreate", "birth_date"): (
        [0, "2000-1-1", "20000101", "2000-13-01", "1899-12-31", "2100-01-01"],
        ["2000-01-01", None],
    ),
    ("UserCreate", "name"): (["x", " x ", "a\nb", "x" * 101], ["Ana", " 日本 "]),
    ("RoleCreate", "name"): (["x", "<b>", "x" * 51, " a "], [" editors", "a.b\n"]),
    ("Registration", "password"): (["Short-7", "x" * 129], [PASSWORD]),
}
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "PostCreate": ("/posts", {"title": "Hello", "content": ""}),
    "UserCreate": ("/users", {"email": "luis@example.com", "name": "Luis"}),
    "RoleCreate": ("/roles", {"name": "anything"}),
    "Registration": (
        "/auth/register",
        {"email": "eva@example.com", "name": "Eva", "password": PASSWORD},
    ),
}


@pytest.mark.parametrize(("model", "field"), PUBLISHED)
async def test_the_api_docs_publish_what_is_enforced(admin: Person, model: str, field: str) -> None:
    schema = f'{{"$ref": "#/components/schemas/{model}"}}'
    fits = admin.contract._make_validator(schema)
    path, good = BODIES[model]
    wrong, right = PUBLISHED[model, field]
    for value in wrong:
        assert not fits.is_valid(good | {field: value}), value
        assert (await admin.post(path, good | {field: value})).status_code == 422, value
    for number, value in enumerate(right):
        body = good | {field: value}
        if "email" in body and field != "email":
            body["email"] = f"number{number}@example.com"
        if "name" in body and path == "/roles" and field != "name":
            body["name"] = f"number {number}"
        assert fits.is_valid(body), value
        assert (await admin.post(path, body)).status_code == 201, value


async def test_the_length_of_passwords_is_that_of_the_policy(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for policy, least in ((Policy.classic, 8), (Policy.nist, 15)):
        monkeypatch.setattr(client.app, "openapi_schema", None)
        with override_settings(client.app, password_policy=policy):
            schemas = client.app.openapi()["components"]["schemas"]
        for model, field in (
            ("Registration", "password"),
            ("PasswordReset", "password"),
            ("PasswordChange", "new_password"),
        ):
            assert schemas[model]["properties"][field]["minLength"] == least
        assert "minLength" not in schemas["PasswordChange"]["properties"]["current_password"]


def test_a_date_that_is_stored_is_one_that_every_database_holds() -> None:
    dates = TypeAdapter(StoredDate)
    assert dates.validate_python("1000-01-01").isoformat() == "1000-01-01"
    for text, kind in (
        ("0999-12-31", "date_out_of_range"),
        ("2026-02-30", "date_from_datetime_parsing"),
    ):
        with pytest.raises(ValidationError) as raised:
            dates.validate_python(text)
        assert [each["type"] for each in raised.value.errors()] == [kind]
    pattern = dates.json_schema()["pattern"]
    assert re.search(pattern, "1000-01-01")
    assert not re.search(pattern, "0999-12-31")


async def test_patterns_are_read_alike_by_python_and_by_browsers(client: Client) -> None:
    """ECMA-262 with the flag `u` refuses a backslash before what needs none."""
    patterns = [*_patterns(client.contract.document)]
    assert len(patterns) > 20
    for pattern in patterns:
        re.compile(pattern)
        assert not re.search(r"\\[^\\u\[\].w]", pattern.replace(r"\\", "")), pattern


def _patterns(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("pattern"), str):
            yield part["pattern"]
        part = [*part.values()]
    if isinstance(part, list):
        for inner in part:
            yield from _patterns(inner)
