"""Password policies over HTTP, and that every character of a password counts."""

from __future__ import annotations

from itertools import islice

import pytest
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from app.core.passwords import Policy, is_common, weaknesses
from tests.conftest import ROOT
from tests.support.client import Client
from tests.support.overrides import override_settings

SPANISH = ROOT / "app" / "locales" / "common_passwords_es.txt"
EMOJI = "\N{GRINNING FACE}"
LENGTHS = (8, 64, 72, 73, 128)


async def reasons(client: Client, password: str, **fields: str) -> list[str]:
    """The error types of a registration with a password; none when it is taken."""
    number = id(password)
    body = {"email": f"someone{number}@example.com", "name": "Someone", "password": password}
    response = await client.post("/auth/register", body | fields)
    if response.status_code == 201:
        return []
    assert response.status_code == 422, response.text
    errors = response.json()["errors"]
    assert {error["field"] for error in errors} == {"password"}
    return [error["type"] for error in errors]


async def test_the_classic_policy_asks_for_length_case_and_a_digit(client: Client) -> None:
    """A34: at least 8 with an upper-case letter and a digit; the response names every reason."""
    expected = {
        "Xk7-mQv": ["password_too_short"],
        "xk7-mqvw": ["password_no_uppercase"],
        "XkZ-mQvw": ["password_no_digit"],
        "xkz": ["password_too_short", "password_no_uppercase", "password_no_digit"],
        "Xk7-mQvw": [],
        "Éxk7mqvw": [],
    }
    assert {password: await reasons(client, password) for password in expected} == expected


async def test_the_nist_policy_asks_for_length_alone(client: Client) -> None:
    """A34: at least 15 characters, of any kind."""
    expected = {
        "Xk7-mQvw-Zr4-b": ["password_too_short"],
        "xkmqvwzrbtnpsdf": [],
        "once upon a time there": [],
        "¿dónde está mi gato?": [],
    }
    with override_settings(client.app, password_policy=Policy.nist):
        assert {password: await reasons(client, password) for password in expected} == expected


async def test_common_passwords_are_refused(client: Client) -> None:
    """A33: over HTTP, in both languages, however they are dressed up."""
    for password in (
        "Password1",
        "PASSWORD123",
        "Passw0rd",
        "Qwerty123",
        "Dragon2024!",
        "Iloveyou1",
        "Contraseña1",
        "Administrador1",
        "Tequiero1",
        "Barcelona10",
        "Cimiento1",
        "CIMIENTO-2026",
    ):
        assert await reasons(client, password) == ["password_common"], password


async def test_ones_own_name_and_address_are_refused(client: Client) -> None:
    """A33: the e-mail address, its local part, the name; with a tail of digits too."""
    own = {"email": "Zoraida.Quint7@example.com", "name": "Zoraida Quintanar"}
    for password in (
        "Zoraida.Quint7@example.com",
        "ZORAIDA.QUINT7",
        "Zoraida.Quint7!",
        "ZoraidaQuintanar1",
        "Zoraida Quintanar 1",
    ):
        assert await reasons(client, password, **own) == ["password_personal"], password
    assert await reasons(client, "Zoraida-likes-7-figs", **own) == []


@pytest.mark.parametrize("filler", ["x", EMOJI], ids=["ascii", "four bytes"])
async def test_every_character_counts_up_to_the_longest(client: Client, filler: str) -> None:
    """A31: 8 to 128 characters, whatever their size in bytes; none is cut off."""
    for length in LENGTHS:
        start = "Zq7" + filler * (length - 4)
        email = f"length{length}@example.com"
        await client.register(email=email, password=f"{start}k")
        for wrong in (f"{start}j", start, f"{start}kk"):
            form = {"username": email, "password": wrong}
            response = await client.request("POST", "/auth/login", data=form)
            assert response.status_code == 401, (length, wrong[-2:])
        assert await client.login(email, f"{start}k")
    assert await reasons(client, "Zq7" + filler * 126) == ["string_too_long"]


async def test_a_megabyte_of_password_is_not_even_read(client: Client) -> None:
    """A31: refused by its size, at registration as at login."""
    huge = "A1" + "x" * 1_000_000
    body = {"email": "huge@example.com", "name": "Huge", "password": huge}
    assert (await client.post("/auth/register", body)).status_code == 413
    form = {"username": "huge@example.com", "password": huge}
    assert (await client.request("POST", "/auth/login", data=form)).status_code == 413


async def test_a_password_is_taken_as_typed(client: Client) -> None:
    """A34: spaces at both ends and letters of any script are part of it."""
    for number, password in enumerate(
        (
            "  Leading and trailing 7  ",
            "Пароль-Длинный-7",
            "密碼很長A7密碼",
            "Tab\tand\nline-7",
            "Ñandú 7 é",
        )
    ):
        email = f"typed{number}@example.com"
        await client.register(email=email, password=password)
        assert await client.login(email, password)
        form = {"username": email, "password": password.strip() + "."}
        assert (await client.request("POST", "/auth/login", data=form)).status_code == 401
        if password != password.strip():
            form["password"] = password.strip()
            assert (await client.request("POST", "/auth/login", data=form)).status_code == 401


def dressed_up(words: list[str]) -> list[str]:
    """What people make of a common word to please a policy, in the order of the words."""
    capitalised = [word.capitalize() for word in words if word[:1].isalpha()]
    tailed = [word + "1234"[: max(1, 8 - len(word))] for word in capitalised if len(word) >= 4]
    return [
        password
        for pair in zip(tailed, capitalised, strict=False)
        for password in pair
        if len(password) >= 8 and any(character.isdigit() for character in password)
    ]


def test_the_3000_most_common_passwords_that_would_pass_are_refused() -> None:
    """A33: built from the frequency list: capitalised, with a digit, in order of frequency."""
    by_frequency = FREQUENCY_LISTS["passwords"]
    candidates = list(islice(dict.fromkeys(dressed_up(list(by_frequency))), 3_000))
    assert len(candidates) == 3_000
    assert {"Password1", "Qwerty12"} < set(candidates)
    taken = [
        password
        for password in candidates
        if weaknesses(password, Policy.classic, "zoe@example.com") != ["password_common"]
    ]
    assert taken == []


def test_spanish_common_passwords_are_refused() -> None:
    """A33: the frequency list is English; ours is beside the texts."""
    words = SPANISH.read_text(encoding="utf-8").split()
    assert len(words) > 500
    candidates = dressed_up(words)
    assert len(candidates) > 500
    assert [password for password in candidates if not is_common(password)] == []
