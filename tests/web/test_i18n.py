"""Language negotiation, and the texts of each language."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.core import i18n
from app.core.i18n import (
    DEFAULT_LOCALE,
    LOCALES,
    add_directories,
    catalogue,
    environment_locale,
    fill,
    find,
    negotiate,
    text,
)
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


@pytest.mark.parametrize(
    ("environment", "locale"),
    [
        ({}, "en"),
        ({"LANG": "es_ES.UTF-8"}, "es"),
        ({"LANG": "es"}, "es"),
        ({"LANG": "es_ES@euro", "LC_MESSAGES": ""}, "es"),
        ({"LANG": "es_ES.UTF-8", "LC_MESSAGES": "en_GB.UTF-8"}, "en"),
        ({"LANG": "en_GB.UTF-8", "LC_ALL": "es.UTF-8", "LC_MESSAGES": "en"}, "es"),
        ({"LANG": "C.UTF-8"}, "en"),
    ],
)
def test_a_shell_has_a_language(environment: dict[str, str], locale: str) -> None:
    assert environment_locale(environment) == locale


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


def test_numbers_and_lists_are_filled_in_as_the_language_writes_them() -> None:
    assert fill("en", "{n:day|days}", {"n": 1}) == "1 day"
    assert fill("es", "{n:día|días} de {m:>3}", {"n": 0, "m": 2}) == "0 días de   2"
    assert fill("en", "{values}.", {"values": ("a", "b")}) == "'a', 'b'."
    assert fill("es", "{values}.", {"values": ("a", "b")}) == "«a», «b»."


def test_a_value_that_is_missing_is_a_defect_unless_something_stands_for_it() -> None:
    with pytest.raises(KeyError):
        fill("en", "{n:day|days}", {})
    assert fill("en", "{n:day|days}", {}, missing="…") == "…"


@pytest.mark.parametrize("path", [("nowhere",), ("mail", "welcome"), ("errors", "nope", "title")])
def test_a_missing_text_is_a_defect(path: tuple[str, ...]) -> None:
    with pytest.raises(KeyError):
        text("en", *path)


def test_looking_for_what_is_not_there_finds_nothing() -> None:
    assert find("en", "errors", "not_found", "title", "deeper") is None
    assert find("en", "nowhere") is None
    assert find("en", "errors", "not_found")["title"]


@pytest.mark.parametrize("locale", LOCALES)
def test_seconds_agree_with_their_number(locale: str) -> None:
    one, many = (
        text(locale, "errors", "too_many_requests", "detail", seconds=seconds)
        for seconds in (1, 30)
    )
    second, seconds = {"en": ("second", "seconds"), "es": ("segundo", "segundos")}[locale]
    assert f"1 {second}." in one
    assert f"30 {seconds}." in many


@pytest.mark.parametrize("locale", LOCALES)
def test_the_example_of_an_entity_tag_is_like_those_of_the_api(locale: str) -> None:
    fix = text(locale, "errors", "precondition_failed", "fix")
    assert re.search(r'`If-Match: "[0-9a-f]{8}…"`', fix)


@pytest.mark.parametrize(("locale", "words"), [("es", "excepto"), ("en", "except")])
def test_the_mail_about_a_new_password_is_true_of_every_way_to_set_it(
    locale: str, words: str
) -> None:
    """By a link every session ends; by the API all but the caller's."""
    paragraphs = find(locale, "mail", "password_changed")["paragraphs"]
    assert words in paragraphs[0]


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
    assert messages["email"] == "La dirección de correo electrónico no es válida."
    assert messages["name"] == "Escribe al menos 2 caracteres."


@pytest.fixture
def our_directories(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget the directories that a test adds."""
    monkeypatch.setattr(i18n, "_directories", [*i18n._directories])
    yield
    monkeypatch.undo()
    catalogue.cache_clear()


@pytest.mark.usefixtures("our_directories")
def test_texts_of_other_directories_come_beside_ours(tmp_path: Path) -> None:
    before = catalogue("en")
    for locale in LOCALES:
        (tmp_path / f"{locale}.toml").write_text(f'[permissions]\n"notes:read" = "{locale}!"\n')
    add_directories([tmp_path, tmp_path])
    assert [text(locale, "permissions", "notes:read") for locale in LOCALES] == ["en!", "es!"]
    assert catalogue("en")["permissions"].keys() - before["permissions"] == {"notes:read"}
    assert find("en", "errors") == before["errors"]


@pytest.mark.usefixtures("our_directories")
@pytest.mark.parametrize("given", ['permissions = "x"', '[permissions]\n"users:read" = "x"'])
def test_texts_of_other_directories_replace_none_of_ours(tmp_path: Path, given: str) -> None:
    for locale in LOCALES:
        (tmp_path / f"{locale}.toml").write_text(given)
    with pytest.raises(ValueError, match="is there already"):
        add_directories([tmp_path])
