"""The OpenAPI document is written for its readers: every operation, member and parameter says what
it is, and every body has an example that fits its schema."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest

from tests.contract.resources import CASES
from tests.support.document import documented, resolved, validator_of
from tests.support.matrix import ACTORS, operation_of

OPERATIONS = documented().operations
each_operation = pytest.mark.parametrize("name", OPERATIONS)
# What a summary begins with: add the verb of a new operation if it is an imperative.
IMPERATIVES = {
    *("Assign", "Check", "Change", "Confirm", "Create", "Delete", "End", "List", "Log", "Publish"),
    *("Read", "Refresh", "Register", "Request", "Restore", "Retry", "Revoke", "Set", "Unpublish"),
    "Update",
}
# Those that anybody may read, and that refuse an account that was disabled.
OPTIONAL_LOGIN = {
    operation_of(row)
    for row, case in CASES.items()
    if case.statuses[0] == 200 and case.statuses[ACTORS.index("disabled")] == 401
}


@each_operation
def test_a_summary_is_a_short_sentence_in_the_imperative(name: str) -> None:
    summary = OPERATIONS[name][2]["summary"]
    assert re.fullmatch(r"[A-Z][a-z]+( \w+)+", summary)
    assert summary.partition(" ")[0] in IMPERATIVES
    assert len(summary) <= 60


def test_no_two_summaries_are_the_same() -> None:
    found = Counter(operation["summary"].lower() for _, _, operation in OPERATIONS.values())
    assert [summary for summary, times in found.items() if times > 1] == []


@each_operation
def test_a_description_says_more_than_the_summary(name: str) -> None:
    operation = OPERATIONS[name][2]
    description, _, _ = operation["description"].partition("\n\nPermission: ")
    assert re.fullmatch(r"[A-Z`].{19,}\.", description, re.DOTALL)
    assert not description.startswith(operation["summary"] + ".")


def test_the_groups_come_in_the_order_in_which_a_frontend_is_built() -> None:
    """Of the groups that every application has; others stand among them."""
    ours = ["auth", "users", "posts", "tags", "roles", "operations"]
    names = [tag["name"] for tag in documented().document["tags"]]
    assert [name for name in names if name in ours] == ours


@each_operation
def test_an_optional_login_is_declared_as_such(name: str) -> None:
    security = OPERATIONS[name][2]["security"]
    assert ({} in security) == (name in OPTIONAL_LOGIN)
    assert {} not in security or security == [{}, {"OAuth2": []}]


@pytest.mark.parametrize("name", documented().document["components"]["schemas"])
def test_every_member_is_described(name: str) -> None:
    schema = documented().document["components"]["schemas"][name]
    members = schema.get("properties", {}).items()
    assert [member for member, declared in members if not _is_described(declared)] == []


@each_operation
def test_every_parameter_is_described(name: str) -> None:
    parameters = OPERATIONS[name][2].get("parameters", ())
    assert [each["name"] for each in parameters if not each.get("description")] == []


@each_operation
def test_every_header_is_described(name: str) -> None:
    for response in OPERATIONS[name][2]["responses"].values():
        headers = response["headers"].items()
        assert [header for header, declared in headers if not declared.get("description")] == []


def _is_described(declared: dict[str, Any]) -> bool:
    """Whether a member is, or the component that it is of."""
    return bool(declared.get("description") or resolved(declared).get("description"))


@each_operation
def test_every_body_has_an_example_that_fits(name: str) -> None:
    operation = OPERATIONS[name][2]
    shown = [response for status, response in operation["responses"].items() if status < "300"]
    bodies = [body for body in (operation.get("requestBody"), *shown) if body and "content" in body]
    for body in bodies:
        (content,) = body["content"].values()
        assert [*validator_of(content["schema"]).iter_errors(content["example"])] == []


@each_operation
def test_every_path_has_an_example(name: str) -> None:
    for parameter in OPERATIONS[name][2].get("parameters", ()):
        if parameter["in"] == "path":
            assert [*validator_of(parameter["schema"]).iter_errors(parameter["example"])] == []
