"""Localized texts: complete and consistent in both languages."""

from __future__ import annotations

import html
import re
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import app
from app.core import i18n
from app.core.exceptions import all_errors
from app.core.permissions import Permission
from app.schemas import account_recovery, auth, outbox, posts, roles, sessions, tags, users
from app.web.error_responses import example
from app.web.pages import with_code
from tests.support.client import Client

pytestmark = pytest.mark.long

# No text depends on the database; one of them will do.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True, scope="session")
CODES = sorted({kind.code for kind in all_errors()})
KINDS = {kind.code: kind for kind in all_errors()}
VALIDATION = i18n.find("en", "validation")
# What pydantic can say of each kind of node of a schema, under the constraints we use.
BY_NODE: dict[str, set[str]] = {
    "str": {"string_type", "string_unicode", "string_too_short", "string_too_long"}
    | {"string_pattern_mismatch"},
    "int": {"int_type", "int_parsing", "int_from_float", "int_parsing_size"}
    | {"greater_than_equal", "less_than_equal"},
    "bool": {"bool_type", "bool_parsing"},
    "date": {"date_type", "date_parsing", "date_from_datetime_parsing"}
    | {"date_from_datetime_inexact"},
    "datetime": {"datetime_type", "datetime_parsing", "datetime_from_date_parsing"}
    | {"datetime_object_invalid", "timezone_aware"},
    "enum": {"enum"},
    # Of permissions, which are no enum: packages declare more.
    "function-plain": {"enum"},
    "literal": {"literal_error"},
    "list": {"list_type", "too_long"},
    "model": {"model_type", "model_attributes_type"},
    "model-fields": {"missing", "extra_forbidden"},
}
# These pass on what is inside them; the errors of functions are our own, found in the source.
TRANSPARENT = {"chain", "default", "definitions", "definition-ref", "function-after"}
TRANSPARENT |= {"function-before", "function-wrap", "missing-sentinel", "model-field"}
TRANSPARENT |= {"no-info", "nullable", "with-info"}
CONSTRAINTS = {"ge", "le", "max_length", "min_length", "pattern", "strip_whitespace"}
CONSTRAINTS |= {"tz_constraint", "microseconds_precision", "strict"}
CONSTRAINED = {"bool", "date", "datetime", "int", "list", "str"}
HARMLESS = {"type", "items_schema", "metadata", "serialization"}


def leaves(node: dict[str, Any], *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, *path, key)
        else:
            yield (*path, key), value


def placeholders(value: str | list[str]) -> list[set[str]]:
    texts = [value] if isinstance(value, str) else value
    return [{name for _, name, _, _ in string.Formatter().parse(text) if name} for text in texts]


def test_both_languages_have_the_same_texts_with_the_same_placeholders() -> None:
    found = [
        {path: placeholders(value) for path, value in leaves(i18n.catalogue(locale))}
        for locale in i18n.LOCALES
    ]
    assert found[0] == found[1]
    assert len(found[0]) > 100


def test_no_text_is_empty_or_left_untranslated() -> None:
    english, spanish = (dict(leaves(i18n.catalogue(locale))) for locale in i18n.LOCALES)
    assert all(english.values())
    assert all(spanish.values())
    alike = {path for path in english if english[path] == spanish[path]}
    assert not {path for path in alike if path[0] in {"errors", "validation", "permissions"}}


def test_every_error_and_every_permission_has_its_texts_and_no_text_is_left_over() -> None:
    assert set(i18n.find("en", "errors")) == set(CODES)
    for code in CODES:
        assert set(i18n.find("en", "errors", code)) == {"title", "detail", "cause", "fix"}
    assert set(i18n.find("en", "permissions")) == set(Permission)


def test_every_error_of_our_own_validators_has_a_text() -> None:
    source = "".join(path.read_text() for path in Path(app.__file__ or "").parent.rglob("*.py"))
    named = set(re.findall(r'PydanticCustomError\(\s*"(\w+)"', source))
    named |= set(re.findall(r'FieldError\("\w+", "(\w+)"', source))
    named |= set(re.findall(r'append\("(password_\w+)"', source))
    assert len(named) > 10
    assert named <= set(VALIDATION)


def test_every_error_that_pydantic_can_find_in_our_input_has_a_text() -> None:
    found = {name for model in inputs() for name in possible_errors(model)}
    assert len(found) > 20
    assert found <= set(VALIDATION), "add these to app/locales"
    assert "json_invalid" in VALIDATION, "FastAPI's own"


def inputs() -> list[type[BaseModel]]:
    """Every model of a body, a form or a query."""
    modules = (auth, outbox, posts, account_recovery, roles, sessions, tags, users)
    models = {item for module in modules for item in vars(module).values() if is_input(item)}
    return sorted(models, key=lambda model: model.__name__)


def is_input(item: object) -> bool:
    if not (isinstance(item, type) and issubclass(item, BaseModel)):
        return False
    return item is auth.LoginForm or item.model_config.get("extra") == "forbid"


def possible_errors(model: type[BaseModel]) -> Iterator[str]:
    for node in nodes(model.__pydantic_core_schema__):
        kind = node["type"]
        assert kind in BY_NODE or kind in TRANSPARENT, f"new to this test: {kind}"
        if kind in CONSTRAINED:
            assert not node.keys() - CONSTRAINTS - HARMLESS, f"new to this test: {node}"
        yield from BY_NODE.get(kind, ())


def nodes(schema: object) -> Iterator[dict[str, Any]]:
    """Every node of a core schema."""
    if isinstance(schema, list):
        for item in schema:
            yield from nodes(item)
    elif isinstance(schema, dict):
        if isinstance(schema.get("type"), str):
            yield schema
        for key, value in schema.items():
            if key not in {"metadata", "serialization", "config"}:
                yield from nodes(value)


@on_sqlite
@pytest.mark.parametrize("locale", i18n.LOCALES)
async def test_every_error_has_a_page_that_explains_it(client: Client, locale: str) -> None:
    """A51: the `type` of each problem resolves, in the reader's language."""
    headers = {"Accept-Language": locale}
    listing = await client.get("/errors", headers=headers)
    assert listing.status_code == 200
    for code in CODES:
        assert f'href="/errors/{code}"' in listing.text
        page = await client.get(f"/errors/{code}", headers=headers)
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["content-language"] == locale
        assert "Accept-Language" in page.headers["vary"]
        assert f'<html lang="{locale}">' in page.text
        read = html.unescape(re.sub(r"</?code>", "`", page.text))
        for part in ("title", "cause", "fix"):
            assert i18n.text(locale, "errors", code, part) in read
        assert f"/errors/{code}" in example(KINDS[code], locale)["type"]
        assert "{permission}" not in page.text


@on_sqlite
async def test_what_stands_in_backticks_is_shown_as_code(client: Client) -> None:
    for headers in ({"Accept-Language": locale} for locale in i18n.LOCALES):
        page = await client.get("/errors/precondition_failed", headers=headers)
        assert "<code>ETag</code>" in page.text
        assert "<code>If-Match: &#34;733dc7c6…&#34;</code>" in page.text
        assert "`" not in page.text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Send `a` or `b`.", "Send <code>a</code> or <code>b</code>."),
        ("<b> `<i>` & `", "&lt;b&gt; <code>&lt;i&gt;</code> &amp; `"),
        ("``", "``"),
    ],
)
def test_all_else_in_it_stays_text(text: str, shown: str) -> None:
    assert str(with_code(text)) == shown


@on_sqlite
async def test_the_page_of_an_unknown_error_shows_nothing_of_its_name(client: Client) -> None:
    """A52"""
    for code in ("nothing", "%3Cscript%3E", "x" * 65, "..%2F..%2Fetc"):
        response = await client.get(f"/errors/{code}")
        assert response.status_code in {404, 422}
        assert response.headers["content-type"] == "application/problem+json"
