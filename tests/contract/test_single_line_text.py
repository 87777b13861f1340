"""Single-line text: what names, titles, role names and tags accept, wherever they are set."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from app.core.i18n import find, text
from app.core.single_line import has_visible
from app.models.users import User
from app.schemas.users import MIN_NAME
from tests.support.client import PASSWORD, Client, Person
from tests.support.commands import invoke

# Refused before any database sees it.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True, scope="session")
NOT_ONE_LINE, INVISIBLE = "text_not_single_line", "text_invisible"
BREAKS = {
    "LF": "\n",
    "CR": "\r",
    "VT": "\v",
    "FF": "\f",
    "NEL": "\x85",
    "line separator": "\u2028",
    "paragraph separator": "\u2029",
    "tab": "\t",
}
CONTROLS = {"BEL": "\x07", "ESC": "\x1b", "FS": "\x1c", "US": "\x1f", "DEL": "\x7f", "CSI": "\x9b"}
DIRECTIONS = {
    f"U+{code:04X}": chr(code)
    for code in (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x2070))
}
UNSEEN = {
    "zero width space": "\u200b",
    "joiners": "\u200c\u200d",
    "word joiner": "\u2060",
    "invisible operators": "\u2061\u2062\u2063\u2064",
    "byte-order mark": "\ufeff",
    "soft hyphen": "\u00ad",
    "grapheme joiner": "\u034f",
    "Hangul fillers": "\u115f\u1160\u3164\uffa0",
    "Khmer vowels": "\u17b4\u17b5",
    "Mongolian": "\u180b\u180e",
    "Braille blank": "\u2800",
    "variation selectors": "\ufe0f\ufe0e\U000e0100",
    "tags": "\U000e0041\U000e0042\U000e007f",
    "marks on nothing": "\u0301\u0302\u20dd",
    "musical": "\U0001d159\U0001d173",
    "hieroglyphic blank": "\U00013441\U00013430",
    "shorthand": "\U0001bca0\U0001bca1",
    "object replacement": "\ufffc\ufffc",
    "private use": "\ue000\U0010fffd",
    "noncharacters": "\ufffe\U0001ffff\ufdd0",
    "spaces between": "\u200b\u00a0\u3000\u200b",
}
# Invisible characters where they belong, and what looks like them.
LEGITIMATE = [
    "👩‍👩‍👧‍👦",
    "🏳️‍🌈",
    "❤️",
    "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "क्\u200dष",
    "J. R. García-Núñez, Jr.",
    "مرحبا שלום",
    "Z\u0351\u036b",
    "c\u00a0d\u200be",
    "王小明",
    "¡¿!?",
    # Newer than the Unicode of the oldest Python that is supported.
    "\U0001fae8\U0001fae9",
]
Send = Callable[[str], Awaitable[httpx2.Response]]


def places(client: Client, admin: Person, post: int, role: int) -> dict[str, tuple[Send, str]]:
    """Every place that takes a text of one line, and the name of its field."""
    number = iter(range(10_000))

    def account(name: str) -> dict[str, Any]:
        return {"email": f"line{next(number)}@example.com", "name": name}

    def written(**fields: Any) -> dict[str, Any]:
        return {"title": "A title", "content": ""} | fields

    return {
        "register": (
            lambda text: client.post("/auth/register", account(text) | {"password": PASSWORD}),
            "name",
        ),
        "create a user": (lambda text: admin.post("/users", account(text)), "name"),
        "change oneself": (lambda text: admin.patch("/users/me", {"name": text}), "name"),
        "change a user": (
            lambda text: admin.patch(f"/users/{admin.id}", {"name": text}),
            "name",
        ),
        "write a post": (lambda text: admin.post("/posts", written(title=text)), "title"),
        "change a post": (lambda text: admin.patch(f"/posts/{post}", {"title": text}), "title"),
        "tag a post": (lambda text: admin.post("/posts", written(tags=[text])), "tags.0"),
        "tag it anew": (lambda text: admin.patch(f"/posts/{post}", {"tags": [text]}), "tags.0"),
        "find a tag": (lambda text: client.get("/posts", params={"tag": text}), "tag"),
        "make a role": (lambda text: admin.post("/roles", {"name": text}), "name"),
        "rename a role": (lambda text: admin.patch(f"/roles/{role}", {"name": text}), "name"),
    }


@pytest.fixture
async def everywhere(client: Client) -> dict[str, tuple[Send, str]]:
    admin = await client.admin()
    post = (await admin.write())["id"]
    role = (await admin.post("/roles", {"name": "some role"})).json()["id"]
    return places(client, admin, post, role)


@on_sqlite
@pytest.mark.parametrize("sign", [*BREAKS, *CONTROLS, *DIRECTIONS])
async def test_text_of_one_line_holds_nothing_that_moves_the_reader(
    everywhere: dict[str, tuple[Send, str]], sign: str
) -> None:
    """Line breaks, other control characters, what turns the direction of writing."""
    character = (BREAKS | CONTROLS | DIRECTIONS)[sign]
    for place, (send, field) in everywhere.items():
        # A tab is a space between the words of a tag.
        if sign == "tab" and "tag" in place:
            continue
        response = await send(f"Ana{character}Luis")
        assert response.status_code == 422, place
        [defect] = response.json()["errors"]
        # Names of roles consist of letters, digits and few signs anyway.
        expected = {NOT_ONE_LINE, "string_pattern_mismatch"} if "role" in place else {NOT_ONE_LINE}
        assert defect["field"] == field, place
        assert defect["type"] in expected, place


@on_sqlite
@pytest.mark.parametrize("kind", UNSEEN)
async def test_text_of_one_line_shows_something(
    everywhere: dict[str, tuple[Send, str]], kind: str
) -> None:
    """Characters that cannot be seen are no name, however many they are."""
    text = UNSEEN[kind] * MIN_NAME
    for place, (send, _) in everywhere.items():
        response = await send(text)
        assert response.status_code == 422, place
        [defect] = response.json()["errors"]
        assert defect["type"] in {INVISIBLE, "tag_invalid", "string_pattern_mismatch"}, place
    # One that can be seen is enough.
    for place in ("register", "write a post"):
        assert (await everywhere[place][0](f"A{text}")).status_code == 201


@pytest.mark.parametrize("text", LEGITIMATE)
async def test_what_people_write_is_kept_as_it_is(client: Client, text: str) -> None:
    ana = await client.user(text * 2)
    assert ana.account["name"] == text * 2
    assert (await ana.write(text))["title"] == text
    assert len((await ana.write(tags=[text]))["tags"]) == 1


@on_sqlite
async def test_a_mark_that_stands_on_nothing_is_no_tag(client: Client) -> None:
    """Normalised, `¨` is a space and a mark without a letter."""
    ana = await client.user()
    body = {"title": "A title", "content": "", "tags": ["\u00a8"]}
    refused = await ana.post("/posts", body)
    assert refused.json()["errors"][0]["type"] == INVISIBLE


async def test_white_space_around_is_taken_off_before_it_is_judged(client: Client) -> None:
    ana = await client.user("  Ana García\n")
    assert ana.account["name"] == "Ana García"
    assert (await ana.write("\r\n Hola \u2028"))["title"] == "Hola"
    assert (await ana.write(tags=["\tNews\n"]))["tags"] == ["news"]


@on_sqlite
@pytest.mark.parametrize("language", ["en", "es"])
async def test_the_refusals_are_told_in_the_readers_language(client: Client, language: str) -> None:
    for name, kind in (("Ana\nLuis", NOT_ONE_LINE), ("\u200b\u200b", INVISIBLE)):
        body = {"email": "ana@example.com", "name": name, "password": PASSWORD}
        headers = {"Accept-Language": language}
        refused = await client.post("/auth/register", body, headers=headers)
        [defect] = refused.json()["errors"]
        assert (defect["type"], defect["message"]) == (kind, find(language, "validation", kind))


async def test_names_that_are_older_than_the_rule_stay_readable(client: Client) -> None:
    """And everything but the name can be changed."""
    ana, admin = await client.user(), await client.admin()
    old = "Ana\n\nYour account is locked.\u202e"
    async with client.database.begin() as session:
        (await session.get_one(User, ana.id)).name = old
    assert (await ana.get("/users/me")).json()["name"] == old
    assert (await admin.get(f"/users/{ana.id}")).json()["name"] == old
    changed = await ana.patch("/users/me", {"phone": "600 123 456 7"})
    assert (changed.status_code, changed.json()["name"]) == (200, old)
    assert (await ana.write())["author"]["name"] == old


@pytest.mark.usefixtures("same_database")
@pytest.mark.parametrize(
    ("name", "kind"),
    [("Ana\nLuis", NOT_ONE_LINE), ("\u200b\u200b", INVISIBLE), ("x", "string_too_short")],
)
async def test_the_command_that_makes_admins_has_the_same_rule(
    client: Client, name: str, kind: str
) -> None:
    options = ("--email", "boss@example.com", "--password", PASSWORD)
    refused = await invoke("create-admin", *options, "--name", name)
    assert refused.exit_code == 2
    shown = " ".join(refused.stderr.replace("│", " ").split())
    assert "--name" in shown
    assert text("en", "validation", kind, min_length=MIN_NAME) in shown
    done = await invoke("create-admin", *options, "--name", "  Ana  ")
    assert done.exit_code == 0
    person = await client.person({"email": "boss@example.com"})
    assert (await person.get("/users/me")).json()["name"] == "Ana"


def test_what_is_yet_unassigned_may_be_seen() -> None:
    """Emoji of next year's Unicode; but never noncharacters, which stay unassigned."""
    assert has_visible("\U0001faff")
    assert has_visible("\u0378")
    assert not has_visible("\ufdd0\ufdef\uffff\U0010ffff")
