"""The password policies as pure functions, without the API."""

from __future__ import annotations

import pytest
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from app.core.passwords import MAX_PASSWORD, MIN_LENGTH, Policy, is_common, weaknesses

EMAIL = "ana.garcia@example.com"
NAME = "Ana García"
CLASSIC, NIST = Policy.classic, Policy.nist


@pytest.mark.parametrize(
    ("password", "policy", "found"),
    [
        ("Xk7!pqwz", CLASSIC, []),
        ("Xk7!pqw", CLASSIC, ["password_too_short"]),
        ("xk7!pqwz", CLASSIC, ["password_no_uppercase"]),
        ("Xkv!pqwz", CLASSIC, ["password_no_digit"]),
        ("Ñk7 pqwz", CLASSIC, []),
        ("Xk٣!pqwz", CLASSIC, []),
        ("", CLASSIC, ["password_too_short", "password_no_uppercase", "password_no_digit"]),
        ("abc", CLASSIC, ["password_too_short", "password_no_uppercase", "password_no_digit"]),
        ("mossy lantern x", NIST, []),
        ("mossy lantern ", NIST, ["password_too_short"]),
        ("🐢🐢🐢🐢🐢🐢🐢🐢🐢🐢🐢🐢🐢🐢🐢", NIST, []),
        ("Xk7!pqwz", NIST, ["password_too_short"]),
    ],
)
def test_each_policy_names_every_rule_a_password_breaks(
    password: str, policy: Policy, found: list[str]
) -> None:
    """A34: both modes; spaces and any script count."""
    reasons = weaknesses(password, policy, EMAIL, NAME)
    assert [reason for reason in reasons if reason != "password_common"] == found


def test_the_bounds_are_those_of_the_contract() -> None:
    assert {CLASSIC: 8, NIST: 15} == MIN_LENGTH
    assert MAX_PASSWORD == 128


@pytest.mark.parametrize("policy", Policy)
def test_a_password_has_up_to_128_characters_of_any_width(policy: Policy) -> None:
    """A31: code points are counted, not bytes."""
    longest = "Xk7 " + "🐢" * (MAX_PASSWORD - 4)
    assert weaknesses(longest, policy, EMAIL) == []
    assert weaknesses(longest + "x", policy, EMAIL) == ["password_too_long"]


def test_spaces_are_never_trimmed() -> None:
    """A34: what was typed is what counts."""
    assert weaknesses("  Xk7!pq", CLASSIC, EMAIL) == []
    assert weaknesses("Xk7!pq", CLASSIC, EMAIL) == ["password_too_short"]


def _meets_the_policy(word: str) -> bool:
    return not set(weaknesses(word, CLASSIC, "x@example.com")) - {"password_common"}


def test_the_most_common_passwords_that_meet_the_policy_are_refused() -> None:
    """A33: the 3,000 most common, adapted as users do: capital first, digits last."""
    words = [w for w in FREQUENCY_LISTS["passwords"] if len(w) >= 4 and w[-1].isalpha()]
    dressed = [word.capitalize() + tail for word in words for tail in ("", "1", "123", "2024!")]
    fitting = [password for password in dressed if _meets_the_policy(password)][:3000]
    assert len(fitting) == 3000
    assert [password for password in fitting if not is_common(password)] == []


@pytest.mark.parametrize(
    "password",
    [
        "Password1",
        "PASSWORD1",
        "P\uff21ssword1",  # a full-width A
        "Contraseña1",
        "Contraseña2024!",
        "Cimiento1",
        "Dragon2024!",
    ],
)
def test_decorated_and_local_common_passwords_are_refused(password: str) -> None:
    """A33: the site's name and Spanish ones too."""
    assert "password_common" in weaknesses(password, CLASSIC, EMAIL)


@pytest.mark.parametrize(
    "password", ["Correct-Horse-7", "Xk7!pqwz", "Password-of-mine-7", "Abc12345x!"]
)
def test_a_password_that_merely_holds_a_common_word_is_not_common(password: str) -> None:
    assert not is_common(password)


@pytest.mark.parametrize(
    "password",
    [
        "Ana.Garcia@Example.com1",
        "Ana.Garcia1",
        "ANA.GARCIA99!",
        "Ana García7",
        "AnaGarcía2024!",
        "Ａna García7",  # noqa: RUF001  a full-width A is the case
    ],
)
def test_ones_own_name_and_address_are_refused(password: str) -> None:
    """A33: in any case and width, with a tail of digits and signs."""
    assert "password_personal" in weaknesses(password, CLASSIC, EMAIL, NAME)


def test_a_password_that_only_begins_like_ones_name_is_good() -> None:
    assert weaknesses("Ana-Garcia-7-turtles", CLASSIC, EMAIL, NAME) == []


def test_a_short_name_does_not_spoil_every_password_that_begins_with_it() -> None:
    assert "password_personal" not in weaknesses("Bo1234567", CLASSIC, "b@example.com", "Bo")


def test_an_empty_name_matches_nothing() -> None:
    assert "password_personal" not in weaknesses("12345678", CLASSIC, EMAIL, "")
