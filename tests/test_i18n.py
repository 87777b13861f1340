"""Which language somebody gets, and the texts in it."""

from __future__ import annotations

import string
from collections.abc import Iterator
from typing import Any

import pytest

from app.core.i18n import DEFAULT_LOCALE, LOCALES, catalogue, find, negotiate, text
from tests.support.client import Client


@pytest.mark.parametrize(
    ("header", "locale"),
    [
        (None, "en"),
        ("", "en"),
        ("es", "es"),
        ("ES", "es"),
        ("es-MX", "es"),
        ("en-GB", "en"),
        ("fr", "en"),
        ("fr, es", "es"),
        ("es;q=0.8, en;q=0.9", "en"),
        ("es;q=0.9,en;q=0.8", "es"),
        ("en;q=0.1, es", "es"),
        ("es, en", "es"),
        ("en, es", "en"),
        ("es;q=0", "en"),
        ("en;q=0, es;q=0.001", "es"),
        ("*", "en"),
        ("es ; q=0.5", "es"),
        ("es;q=nonsense, en;q=0.1", "en"),
        ("es;q=2", "en"),
        ("es;q=-1", "en"),
        ("es;q=nan", "en"),
        ("es;q=inf", "en"),
        (",,;,;q=,es", "es"),
        ("españa", "en"),
        ("../../etc/passwd", "en"),
    ],
)
def test_the_best_language_we_speak_is_chosen(header: str | None, locale: str) -> None:
    assert negotiate(header) == locale


def test_a_huge_header_is_not_read_to_its_end() -> None:
    assert negotiate("fr," * 100_000 + "es") == "en"


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}")
    else:
        yield path, node


def _placeholders(leaf: str | list[str]) -> list[set[str | None]]:
    lines = [leaf] if isinstance(leaf, str) else leaf
    return [{field for _, field, _, _ in string.Formatter().parse(line) if field} for line in lines]


def test_every_text_exists_in_every_language_with_the_same_placeholders() -> None:
    kept = {path: _placeholders(leaf) for path, leaf in _leaves(catalogue(DEFAULT_LOCALE))}
    assert kept
    for locale in LOCALES:
        other = {path: _placeholders(leaf) for path, leaf in _leaves(catalogue(locale))}
        assert other == kept, locale


def test_no_text_is_empty() -> None:
    for locale in LOCALES:
        assert [path for path, leaf in _leaves(catalogue(locale)) if not leaf] == []


def test_a_text_comes_with_its_values_filled_in() -> None:
    assert text("en", "mail", "welcome", "subject", name="Ana") == "Welcome, Ana"
    assert text("es", "mail", "common", "greeting", name="{name}") == "Hola, {name}:"


@pytest.mark.parametrize("path", [("nowhere",), ("mail", "welcome"), ("errors", "nope", "title")])
def test_a_missing_text_is_a_defect(path: tuple[str, ...]) -> None:
    with pytest.raises(KeyError):
        text("en", *path)


def test_looking_for_what_is_not_there_finds_nothing() -> None:
    assert find("en", "errors", "not_found", "title", "deeper") is None
    assert find("en", "nowhere") is None
    assert find("en", "errors", "not_found")["title"]


async def test_errors_follow_the_language_of_the_request_and_codes_do_not(client: Client) -> None:
    spanish = await client.get("/posts/1", headers={"Accept-Language": "es-ES,en;q=0.5"})
    english = await client.get("/posts/1", headers={"Accept-Language": "de"})
    assert spanish.json()["title"] == "No encontrado"
    assert english.json()["title"] == "Not found"
    assert spanish.json()["code"] == english.json()["code"] == "not_found"


async def test_messages_about_fields_follow_the_language_too(client: Client) -> None:
    body = {"email": "x", "name": "A", "password": "short"}
    response = await client.post("/auth/register", body, headers={"Accept-Language": "es"})
    assert response.status_code == 422
    messages = {error["field"]: error["message"] for error in response.json()["errors"]}
    assert messages["email"] == "Esto no es una dirección de correo."
    assert messages["name"] == "Se necesitan al menos 2 caracteres."
